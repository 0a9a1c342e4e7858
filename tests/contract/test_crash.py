"""The tracker is killed, without warning, while clients log to it. What it acknowledged must be there afterwards."""

import json
import random
import socket
import time
from pathlib import Path

import pytest

from tests.contract.conftest import KEY, Server, answer_of, start_script, start_tracker, stop

CLIENTS = 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_what_was_acknowledged_survives_kill_9_and_nothing_is_half_there(
    request: pytest.FixtureRequest, tmp_path: Path, kills: int
) -> None:
    port = str(_free_port())  # the same after every start, as a real server's is
    data, stop_file = tmp_path / "data", tmp_path / "stop"
    process, url = start_tracker(data, "--port", port)
    server = Server(url, KEY, "crash")
    clients = [
        start_script(
            tmp_path / f"client{n}",
            server,
            "log_until",
            project="crash",
            collection="model",
            stop=str(stop_file),
            ledger=str(tmp_path / f"ledger{n}"),
        )
        for n in range(CLIENTS)
    ]
    request.addfinalizer(lambda: [started.kill() for started in (process, *clients)])  # whatever fails below
    chance = random.Random(kills)
    for _ in range(kills):
        _wait_for_progress(tmp_path)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        process, url = start_tracker(data, "--port", port)
    _wait_for_progress(tmp_path)
    stop_file.touch()
    answers = [answer_of(client) for client in clients]
    entity = answers[0]["entity"]

    acknowledged = _acknowledged(tmp_path)
    reader = start_script(tmp_path / "reader", server, "verify_all", project="crash", collection="model", entity=entity)
    seen = dict(answer_of(reader)["versions"])
    assert {version: seen.get(version) for version in acknowledged} == acknowledged
    assert sorted(int(version[1:]) for version in seen) == list(range(len(seen)))
    assert not list((data / "blobs/tmp").iterdir())
    assert stop(process) == 0


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _acknowledged(folder: Path) -> dict[str, str]:
    lines = [line for ledger in folder.glob("ledger*") for line in ledger.read_text().splitlines()]
    return dict(json.loads(line) for line in lines)


def _wait_for_progress(folder: Path) -> None:
    """Until more was acknowledged than when it was called."""
    before, until = len(_acknowledged(folder)), time.monotonic() + 60
    while len(_acknowledged(folder)) <= before:
        assert time.monotonic() < until, "no client got anything logged for a minute"
        time.sleep(0.02)
