"""Load tests against servers with known behaviour: what the report says must be what happened."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from ekiben.loadtest.runner import run
from ekiben.loadtest.slo import Slo, judge
from ekiben.processes import free_port
from ekiben.types import BentoRef, LoadPlan, LoadReport, ModelVersion, Outcome
from tests.fakes.http_target import serving

LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"
MODEL = ModelVersion.parse("acme/vision/digits:v3", "0123456789abcdef" * 2)
BENTO = BentoRef(name="digits", version="abc123", digest="f" * 64, model=MODEL)
PLAN = LoadPlan(rate=150, arrivals="constant", warm_up_s=0.5, measure_s=4, timeout_s=2)
REQUESTS = 600

# On the first request the target's clock starts: the stall lies 1 s after it, within the measured time.
CASES: Mapping[str, dict[str, float]] = {
    "steady": {"delay_ms": 30},
    "stall": {"delay_ms": 2, "stall_at_s": 1.5, "stall_s": 1},
    "errors": {"delay_ms": 2, "error_every": 100, "wrong_every": 70},
    "transport": {"delay_ms": 2, "close_every": 100, "hang_every": 70},
}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    examples = [{"request": {"rows": [[x]]}, "response": {"classes": [x % 10]}} for x in range(20)]
    path.write_text(json.dumps({"version": 1, "route": "/predict", "examples": examples}))
    return path


def load(url: str, golden: Path, out: Path, plan: LoadPlan = PLAN, locustfile: Path = LOCUSTFILE) -> LoadReport:
    return run(locustfile=locustfile, url=url, golden=golden, plan=plan, subject=BENTO, out=out)


@pytest.fixture(scope="module")
def reports(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], LoadReport]]:
    """The report on each case. All run side by side: there are more of them than seconds to spend."""

    def one(case: str) -> tuple[LoadReport, int]:
        with serving(**CASES[case]) as url:
            report = load(url, golden, tmp_path_factory.mktemp(case))
            if "could not keep its schedule" in report.reason:  # the machine was too busy, as the report says
                return one(case)
            served = 0 if "hang_every" in CASES[case] else httpx.post(f"{url}/predict", json={"rows": [[0]]}).json()
            return report, served and served["requests"] - 1

    with ThreadPoolExecutor(2) as pool:
        running: dict[str, Future[tuple[LoadReport, int]]] = {case: pool.submit(one, case) for case in CASES}

        def result(case: str) -> LoadReport:
            report, served = running[case].result()
            assert report.valid, report.reason
            assert report.requests == REQUESTS
            assert not served or served == REQUESTS + 75, "a request was sent twice, or never"
            return report

        yield result


def test_a_fixed_delay_is_measured(reports: Callable[[str], LoadReport]) -> None:
    report = reports("steady")
    p50, p95 = report.percentile(50.0), report.percentile(95.0)
    assert p50 and p95 and p50.ms and p95.ms
    assert 30 <= p50.ms < 60 and p50.lower_ms and p50.lower_ms >= 30
    assert report.failed == 0 and report.offered_rate == 150 and report.achieved_rate > 140
    assert report.subject == BENTO and report.endpoint == "POST /predict"
    assert len(report.series) == 5 and all(s.offered in (75, 150) for s in report.series)
    verdict = judge(report, Slo(objectives={"p95": 1000.0, "error_rate": 0.01, "achieved_rate": 0.9}))
    assert verdict.outcome is Outcome.PASS and verdict.subject == "digits:abc123"
    assert judge(report, Slo(objectives={"p95": 1.0})).outcome is Outcome.FAIL
    assert judge(report, Slo(objectives={"p99.9": 1000.0})).outcome is Outcome.INCONCLUSIVE


def test_every_request_that_a_stall_delays_is_seen(reports: Callable[[str], LoadReport]) -> None:
    """150 of 600 requests meet a stall of 1 s and wait 0 to 1 s: p90 is 0.6 s. A closed loop would see a handful."""
    report = reports("stall")
    p50, p90, p99 = (report.percentile(level) for level in (50.0, 90.0, 99.0))
    assert p50 and p90 and p99 and p50.ms and p90.ms and p99.ms and p99.lower_ms
    assert p50.ms < 50
    assert 500 < p90.ms < 800
    assert 900 < p99.ms < 1300
    assert max(s.in_flight for s in report.series) > 30
    assert judge(report, Slo(objectives={"p99": 250.0})).outcome is not Outcome.PASS


def test_wrong_statuses_and_wrong_answers_are_told_apart(reports: Callable[[str], LoadReport]) -> None:
    report = reports("errors")
    counts = {error.kind: error.count for error in report.errors}
    assert set(counts) == {"status 503", "wrong answer"}
    assert 5 <= counts["status 503"] <= 7 and 7 <= counts["wrong answer"] <= 9
    assert report.error_rate and report.error_rate.lower < report.failed / REQUESTS < report.error_rate.upper
    examples = {error.kind: error.example for error in report.errors}
    assert "classes" in examples["status 503"] and "answer.classes[0]: wanted" in examples["wrong answer"]
    assert judge(report, Slo(objectives={"error_rate": 0.005})).outcome is Outcome.FAIL


def test_closed_connections_and_endless_waits_are_told_apart(reports: Callable[[str], LoadReport]) -> None:
    report = reports("transport")
    counts = {error.kind: error.count for error in report.errors}
    assert set(counts) == {"transport: ConnectionClosed", "time-out"}
    assert 5 <= counts["transport: ConnectionClosed"] <= 7 and 7 <= counts["time-out"] <= 9
    p99 = report.percentile(99.0)
    assert p99 and p99.ms is None, "more than 1 % failed, so no time holds for 99 %"


def test_a_server_that_is_not_there_fails_every_request(golden: Path, tmp_path: Path) -> None:
    plan = LoadPlan(rate=100, warm_up_s=0, measure_s=1, arrivals="constant")
    report = load(f"http://127.0.0.1:{free_port()}", golden, tmp_path, plan)
    assert report.valid and report.failed == report.requests == 100
    assert report.errors[0].kind == "transport: ConnectionRefusedError"
    assert judge(report, Slo(objectives={"error_rate": 0.5})).outcome is Outcome.FAIL


def test_more_in_flight_than_allowed_is_invalid(golden: Path, tmp_path: Path) -> None:
    plan = LoadPlan(rate=100, warm_up_s=0, measure_s=1, max_in_flight=20, timeout_s=1)
    with serving(hang_every=1) as url:
        report = load(url, golden, tmp_path, plan)
    assert not report.valid and report.dropped > 0
    assert judge(report, Slo(objectives={"error_rate": 0.5})).outcome is Outcome.ERROR


BROKEN = {
    "on_start": ("def on_start(self): raise ValueError('no such thing')", "ValueError: no such thing"),
    "import": ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
    "exit": ("def on_start(self): import os; os._exit(0)", "exit code 0 and without a report"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_locustfile_that_breaks_gives_an_error_with_its_reason(golden: Path, tmp_path: Path, how: str) -> None:
    code, reason = BROKEN[how]
    locustfile = tmp_path / "locustfile.py"
    base = "from ekiben.loadtest.locust_user import OpenLoopUser\nclass Predict(OpenLoopUser):\n    "
    locustfile.write_text(base + code + "\n")
    (tmp_path / "result.json").write_text("a report of an earlier run")
    report = load("http://127.0.0.1:9", golden, tmp_path, locustfile=locustfile)
    assert not report.valid and reason in report.reason
    assert judge(report, Slo(objectives={"p99": 1.0})).outcome is Outcome.ERROR


def test_a_locust_that_hangs_is_ended_at_its_deadline(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekiben.loadtest.runner.START_S", 1.0)
    monkeypatch.setattr("ekiben.loadtest.runner.END_S", 0.5)
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text("import time\ntime.sleep(60)\n")
    began = time.monotonic()
    plan = LoadPlan(warm_up_s=0, measure_s=0.5, timeout_s=0.5)
    report = load("http://127.0.0.1:9", golden, tmp_path, plan, locustfile)
    assert not report.valid and "not done after" in report.reason
    assert time.monotonic() - began < 10


def test_a_run_that_is_ended_half_way_is_invalid(golden: Path, tmp_path: Path) -> None:
    with serving() as url:
        found: list[LoadReport] = []
        thread = threading.Thread(target=lambda: found.append(load(url, golden, tmp_path)))
        thread.start()
        child = _locust_of(psutil.Process(), tmp_path)
        time.sleep(1.0)
        child.send_signal(signal.SIGTERM)
        thread.join(30)
    assert found and not found[0].valid and "stopped before its end" in found[0].reason


def _locust_of(parent: psutil.Process, out: Path) -> psutil.Process:
    """The Locust that writes to `out`, once it offers load."""
    deadline, log = time.monotonic() + 20, out / "locust.log"
    while time.monotonic() < deadline:
        for child in parent.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it may be ending
                if "locust" in child.cmdline() and log.exists() and "ekiben: " in log.read_text():
                    return child
        time.sleep(0.1)
    raise AssertionError("no Locust started")


def test_locust_ends_when_whoever_started_it_is_killed(golden: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from ekiben.loadtest.runner import run\n"
        "from ekiben.types import LoadPlan\n"
        "url, locustfile, golden, out = sys.argv[1:]\n"
        "run(locustfile=Path(locustfile), url=url, golden=Path(golden), plan=LoadPlan(rate=20, measure_s=60), "
        "subject=None, out=Path(out), on_progress=None)"
    )
    with serving() as url:
        with subprocess.Popen([sys.executable, "-c", code, url, str(LOCUSTFILE), str(golden), str(tmp_path)]) as parent:
            child = _locust_of(psutil.Process(parent.pid), tmp_path)
            parent.kill()
        deadline = time.monotonic() + 10
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "Locust outlived whoever started it"
            time.sleep(0.1)


@pytest.mark.parametrize("good", [True, False])
def test_plain_locust_works_and_tells_by_its_exit_code(golden: Path, tmp_path: Path, good: bool) -> None:
    result = tmp_path / "result.json"
    options = ["--rate", "40", "--arrivals", "constant", "--warm-up", "0.5", "--duration", "1", "--result", str(result)]
    if not good:
        options += ["-t", "1s"]  # shorter than the schedule: Locust itself would end with 0
    with serving() as url:
        ended = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", url, "--headless", *options],
            env={**os.environ, "EKIBEN_GOLDEN": str(golden)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (ended.returncode == 0) is good, ended.stderr
    if good:
        assert LoadReport.model_validate_json(result.read_bytes()).requests == 40
        assert "POST     /predict" in ended.stdout + ended.stderr  # Locust's own table
