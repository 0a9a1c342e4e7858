"""The locustfile under plain Locust: alone, with --processes, on shells of its own, and from the web page."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from ekiben.loadtest.options import profile
from ekiben.processes import free_port
from ekiben.types import LoadReport
from tests.e2e.loading import LOCUSTFILE, gone, too_busy, until, write_golden
from tests.fakes.http_target import serving, truth

FAST = ["--rate", "40", "--arrivals", "constant", "--warm-up", "0.5", "--duration", "2"]


@contextmanager
def locust(folder: Path, name: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A Locust whose output is in `<name>.log`; with its whole group it is gone after the block."""
    with (folder / f"{name}.log").open("w") as log:
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *options]
        env = {**os.environ, "EKIBEN_GOLDEN": str(write_golden(folder)), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, process_group=0
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def report(folder: Path) -> LoadReport:
    return LoadReport.model_validate_json((folder / "result.json").read_bytes())


def alone(folder: Path, *options: str, tries: int = 3) -> tuple[int, LoadReport, int]:
    """Exit code and report of a headless run, and how many requests the target saw."""
    result = folder / "result.json"
    with serving() as url:
        with locust(folder, "log", "--headless", "--host", url, *FAST, *options, "--result", str(result)) as running:
            code = running.wait(60)
        seen = len(truth(url).took_ms)
    found = report(folder)
    return alone(folder, *options, tries=tries - 1) if too_busy(found.reason) and tries > 1 else (code, found, seen)


@pytest.mark.parametrize("processes", [1, 2])
def test_alone_or_with_processes(tmp_path: Path, processes: int) -> None:
    port = str(free_port())
    several = ["--processes", "2", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    code, found, seen = alone(tmp_path, *(several if processes > 1 else []))
    assert code == 0 and found.valid, found.reason
    assert found.requests == 80 and found.workers == processes and found.failed == 0 and seen == 100
    assert "POST     /predict" in (tmp_path / "log.log").read_text()  # Locust's own table


@pytest.mark.parametrize(("slo", "code"), [("error_rate=10%,p95=10s", 0), ("p50=0.01ms", 10), ("error_rate=0.1%", 11)])
def test_the_exit_code_is_the_verdict_on_objectives(tmp_path: Path, slo: str, code: int) -> None:
    assert alone(tmp_path, "--slo", slo)[0] == code, (tmp_path / "log.log").read_text()


def test_shorter_than_its_schedule_is_invalid(tmp_path: Path) -> None:
    """Locust itself would end with 0."""
    options = [*FAST, "-t", "1s", "--result", str(tmp_path / "result.json")]
    with serving() as url, locust(tmp_path, "log", "--headless", "--host", url, *options) as running:
        assert running.wait(60) == 1
    assert not report(tmp_path).valid and "stopped before its end" in report(tmp_path).reason


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--rate-profile", "0:40"], "--golden"),
        (["--rate-profile", "fast", "--golden", "{golden}"], "not a profile: 'fast'"),
        (["--rate", "-1", "--golden", "{golden}"], "greater than 0"),
        (["--trace", "/nowhere", "--golden", "{golden}"], "no trace at /nowhere"),
        (["--golden", "/nowhere"], "no golden answers at /nowhere"),
    ],
)
def test_what_is_wrong_is_said_without_a_hang(tmp_path: Path, options: list[str], wanted: str) -> None:
    golden = str(write_golden(tmp_path))
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", "http://127.0.0.1:9"]
    ended = subprocess.run(
        [*command, *(option.format(golden=golden) for option in options)],
        env={key: value for key, value in os.environ.items() if key != "EKIBEN_GOLDEN"},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert wanted in next(line for line in ended.stderr.splitlines() if line.startswith("ekiben: error: "))


def test_master_and_workers_on_shells_of_their_own(tmp_path: Path) -> None:
    """Only the master is told what to do; and a plan with arrivals of every kind of option."""
    port, trace = str(free_port()), tmp_path / "trace.txt"
    trace.write_text("".join(f"{n / 50}\n" for n in range(1000)))
    options = ["--trace", str(trace), "--warm-up", "0.5", "--duration", "2", "--result", str(tmp_path / "result.json")]
    at = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2"]
    with (
        serving() as url,
        locust(tmp_path, "master", "--headless", "--master", *at, "--host", url, *options) as master,
        locust(tmp_path, "one", "--worker", "--master-port", port) as one,
        locust(tmp_path, "two", "--worker", "--master-port", port) as two,
    ):
        code = master.wait(60)
        assert one.wait(20) == 0 and two.wait(20) == 0
        assert len(truth(url).took_ms) == 125
    found = report(tmp_path)
    assert (code == 0 and found.valid) or too_busy(found.reason), (tmp_path / "master.log").read_text()
    assert found.requests == 100 and found.workers == 2


def test_workers_end_when_a_master_elsewhere_dies(tmp_path: Path) -> None:
    """They are no children of its, so that only its silence tells them."""
    port = str(free_port())
    at = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    with (
        serving() as url,
        locust(tmp_path, "master", "--headless", "--master", *at, "--host", url, "--duration", "60") as master,
        locust(tmp_path, "worker", "--worker", "--master-port", port) as worker,
    ):
        until(lambda: "measuring" in (tmp_path / "master.log").read_text(), 60, "load")
        master.kill()
        assert worker.wait(30) == 1
    assert "the master has been silent" in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_start_stop_and_start_again_from_the_web_page(tmp_path: Path, processes: int) -> None:
    web, port = free_port(), str(free_port())
    several = ["--processes", "2", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    options = [*FAST, "--web-host", "127.0.0.1", "--web-port", str(web), "--result", str(tmp_path / "result.json")]
    page = f"http://127.0.0.1:{web}"
    result = tmp_path / "result.json"
    with (
        serving() as url,
        locust(tmp_path, "log", *options, *(several if processes > 1 else [])) as running,
        httpx.Client(base_url=page, timeout=90) as browser,
    ):

        def stats() -> dict[str, object]:
            try:
                return dict(browser.get("/stats/requests").json())
            except httpx.TransportError:
                return {}

        def ready() -> bool:
            found = stats()
            return found.get("state") in ("ready", "stopped") and (
                processes == 1 or len(found["workers"]) == 2  # type: ignore[arg-type]
            )

        form = {"user_count": "1", "spawn_rate": "1", "host": url}
        until(ready, 60, "the web page")
        assert browser.post("/swarm", data={**form, "duration": "60"}).json()["success"]
        until(lambda: "measuring" in (tmp_path / "log.log").read_text(), 30, "load")
        assert browser.post("/stop").json()["success"]
        until(result.exists, 30, "a report")
        assert "stopped before its end" in report(tmp_path).reason
        until(ready, 30, "the end of the first test")
        assert browser.post("/swarm", data={**form, "rate": "60", "duration": "2"}).json()["success"]
        until(lambda: not result.exists(), 30, "the old report is away")
        until(result.exists, 30, "a new report")
        found = report(tmp_path)
        assert found.valid or too_busy(found.reason), found.reason
        assert found.requests == 120 and found.settings.rate == 60
        until(ready, 30, "the end of the second test")
        children = psutil.Process(running.pid).children(recursive=True)
        running.terminate()
        assert running.wait(30) == (0 if found.valid else 1)
        until(lambda: all(gone(child) for child in children), 20, "its workers end")


def test_a_profile_as_an_option() -> None:
    assert profile("0:50, 60:200.5") == ((0.0, 50.0), (60.0, 200.5))
    assert profile("") == ()
