"""A service that is told to stop, while clients ask it without pause: nothing that it let in is lost."""

import asyncio
import json
import shutil
import signal
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


def test_nothing_is_lost_when_a_service_stops_under_load(project: Path, tmp_path: Path) -> None:
    stop_often(project, tmp_path, times=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_nothing_is_lost_when_a_service_stops_under_load_twenty_times(project: Path, tmp_path: Path) -> None:
    stop_often(project, tmp_path, times=20)


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
