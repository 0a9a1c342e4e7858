"""A service that is told to stop, while clients ask it without pause: nothing that it let in is lost."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import ROOT, Server, serving, wait_ready

SERVICE = """
import asyncio
import bentoml
from service.checks import CheckedService
from service.contracts import DigitsAnswer, DigitsRequest


@bentoml.service(name="slow", service_class=CheckedService, workers=1)
class Slow:
    @bentoml.api(route="/predict", input_spec=DigitsRequest, output_spec=DigitsAnswer)
    async def predict(self, rows: list[list[float]]) -> DigitsAnswer:
        await asyncio.sleep(rows[0][0])
        return DigitsAnswer(classes=[0] * len(rows), probabilities=[[1.0]] * len(rows))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service that takes as many seconds as the first number of a request says."""
    folder = tmp_path_factory.mktemp("draining")
    shutil.copytree(ROOT / "service", folder / "service", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "slow.py").write_text(SERVICE)
    return folder


@pytest.fixture(scope="module")
def unprivileged(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same service where the kernel refuses it the socket filter, as newer ones do to who is not root."""
    folder = Path(shutil.copytree(project, tmp_path_factory.mktemp("unprivileged") / "project"))
    draining = folder / "service" / "draining.py"
    refused = draining.read_text().replace("_SO_ATTACH_FILTER = 26\n", "_SO_ATTACH_FILTER = 32_000  # unknown\n")
    assert refused != draining.read_text()
    draining.write_text(refused)
    return folder


NEW_ONES = """
import os, socket, sys
from encodings import idna  # while the files can be read
from service.draining import refuse_new
if sys.argv[1] != "root":
    os.setuid(int(sys.argv[1]))
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    listener = socket.socket(family)
    try:
        listener.bind((host, 0))
    except OSError:
        continue  # a machine without IPv6
    listener.listen()
    address = listener.getsockname()
    held, waiting, late = (socket.socket(family) for _ in range(3))
    held.connect(address)
    holds, _ = listener.accept()
    waiting.connect(address)
    refuse_new(listener.fileno())
    late.settimeout(0.5)
    try:
        late.connect(address)
        sys.exit(f"{host}: a new connection was let in")
    except TimeoutError:
        pass
    waited, _ = listener.accept()
    for client, server in ((held, holds), (waiting, waited)):
        client.sendall(b"?")
        server.settimeout(5)
        assert server.recv(1) == b"?"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing can keep new connections out")
@pytest.mark.parametrize("user", ["root", "10001"])
def test_new_connections_are_kept_out_and_those_that_are_there_are_served(user: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to see it done by root and by another user")
    done = subprocess.run([sys.executable, "-c", NEW_ONES, user], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


class Client:
    """Asks over one connection for as long as the server keeps it, then over the next; until nobody can connect."""

    def __init__(self, port: int, seconds: float, pause: float, keep: bool) -> None:
        self.port = port
        self.pause = pause
        body = json.dumps({"rows": [[seconds] + [0] * 63]})
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: {'keep-alive' if keep else 'close'}\r\n"
        self.request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        self.outcomes = Counter[str]()

    async def run(self) -> Counter[str]:
        while True:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 5)
            except OSError:
                return self.outcomes
            try:
                while await self._ask(reader, writer):
                    await asyncio.sleep(self.pause)
            except (OSError, EOFError, TimeoutError) as error:
                self.outcomes[f"lost: {error!r}"] += 1
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(self.request)
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        self.outcomes[head[9:12].decode()] += 1
        return b"connection: close" not in head


@contextmanager
def started(project: Path, home: Path) -> Iterator[Server]:
    with serving(home, "slow:Slow", cwd=project) as server:
        wait_ready(server)
        yield server


async def stop_under_load(server: Server, seconds: float) -> Counter[str]:
    """What became of all requests, while the server is told to stop amid them and until it is gone."""
    kinds = [(0.0, True), (0.0, True), (0.003, True), (0.02, True), (0.05, True), (0.01, False)]
    clients = [Client(server.port, seconds, pause, keep) for pause, keep in kinds * 2]
    running = [asyncio.create_task(client.run()) for client in clients]
    await asyncio.sleep(0.3)
    server.process.send_signal(signal.SIGTERM)
    return sum(await asyncio.gather(*running), Counter())


def stop_often(project: Path, home: Path, times: int) -> None:
    for number in range(times):
        with started(project, home) as server:
            outcomes = asyncio.run(stop_under_load(server, seconds=(0, 0.02, 0.3)[number % 3]))
            assert server.process.wait(10) is not None
            assert set(outcomes) == {"200"}, outcomes
            assert outcomes["200"] > 20
            assert "Traceback" not in server.log.read_text()


TIMES = [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("allowed", ["project", "unprivileged"])
def test_nothing_is_lost_when_a_service_stops_under_load(
    request: pytest.FixtureRequest, tmp_path: Path, allowed: str, times: int
) -> None:
    stop_often(request.getfixturevalue(allowed), tmp_path, times)


def test_a_service_that_stops_says_so_first_and_still_answers(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EKIBEN_DRAIN_SECONDS", "1.5")
    with started(project, tmp_path) as server:
        body = json.dumps({"rows": [[0] * 64]})
        assert "connection" not in server.request("POST", "/predict", body).headers
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 1
        while (readiness := server.request("GET", "/readyz")).status == 200:
            assert time.monotonic() < until
        assert (readiness.status, readiness.json) == (503, {"error": "shutting down"})
        answer = server.request("POST", "/predict", body)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.request("GET", "/livez").status == 200
        server.process.wait(10)


def test_a_second_signal_cuts_the_drain_short(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_DRAIN_SECONDS", "60")
    with started(project, tmp_path) as server:
        worker = psutil.Process(server.process.pid).children()[0]
        server.process.send_signal(signal.SIGTERM)
        while server.request("GET", "/readyz").status == 200:
            time.sleep(0.01)
        worker.send_signal(signal.SIGTERM)
        server.process.wait(10)
