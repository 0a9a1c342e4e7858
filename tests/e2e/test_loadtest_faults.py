"""Whatever dies or breaks in a load test: a report that is INVALID with its reason, no hang, and no process left."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ekiben.errors import UnavailableError
from ekiben.loadtest import runner
from ekiben.loadtest.judging import judge
from ekiben.loadtest.slo import Slo
from ekiben.processes import free_port
from ekiben.types import LoadPlan, LoadReport, Outcome
from tests.e2e.loading import LOCUSTFILE, family, gone, load, offering, until, write_golden
from tests.fakes.http_target import process, serving
from tests.fakes.proxy import proxy

PLAN = LoadPlan(rate=50, warm_up_s=0.2, measure_s=8, timeout_s=1)
SLO = Slo(objectives={"error_rate": 0.9})
ONE = pytest.param(1, marks=pytest.mark.soak)  # what holds for two processes is seldom wrong for one


class Run:
    def __init__(self) -> None:
        self.reports: list[LoadReport] = []
        self.locust: list[psutil.Process] = []

    @property
    def report(self) -> LoadReport:
        return self.reports[0]


@contextmanager
def running(url: str, out: Path, plan: LoadPlan) -> Iterator[Run]:
    """A run half-way: harm is done in the block, after which it has 30 s to come to its end."""
    run = Run()
    thread = threading.Thread(target=lambda: run.reports.append(load(url, out, plan)), daemon=True)
    thread.start()
    until(lambda: offering(out / "locust.log"), 60, "Locust offers load")
    # Other tests of this process may have children too: ours has its job in the environment.
    job = str(out / "job.json")
    run.locust = [child for child in family(psutil.Process()) if child.environ().get("EKIBEN_LOADTEST") == job]
    assert len(run.locust) == (1 if plan.processes == 1 else 1 + plan.processes)
    time.sleep(0.5)
    yield run
    thread.join(30)
    assert run.reports, "the run hangs"
    assert not run.report.valid and run.report.reason
    verdict = judge(run.report, SLO)
    assert verdict.outcome is Outcome.ERROR and verdict.outcome.exit_code != 0
    assert all(gone(child) for child in run.locust), "a process was left"


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"processes": 2, "measure_s": 30.0})
    with serving() as url, running(url, tmp_path, plan) as run:
        began = time.monotonic()
        run.locust[1].kill()
    assert re.search(r"process \d of 2 was lost", run.report.reason)
    assert time.monotonic() - began < 20 and run.report.requests > 10


@pytest.mark.parametrize("processes", [ONE, 2])
def test_a_master_that_is_killed(tmp_path: Path, processes: int) -> None:
    with serving() as url, running(url, tmp_path, PLAN.model_copy(update={"processes": processes})) as run:
        run.locust[0].kill()
    assert "exit code -9" in run.report.reason


@pytest.mark.parametrize("processes", [ONE, 2])
def test_a_server_that_is_killed(tmp_path: Path, processes: int) -> None:
    plan = PLAN.model_copy(update={"processes": processes, "measure_s": 5.0})
    with process() as (url, server), running(url, tmp_path, plan) as run:
        server.kill()
    assert run.report.target_lost and "nothing answered after second" in run.report.reason
    assert run.report.requests == sum(s.offered for s in run.report.series) - _warm_up(run.report)
    assert 0 < run.report.failed < run.report.requests
    assert "ConnectionRefusedError" in {error.kind.removeprefix("transport: ") for error in run.report.errors}


def _warm_up(report: LoadReport) -> int:
    return sum(s.offered for s in report.series) - report.requests


def test_a_network_that_is_cut(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"measure_s": 4.0})
    with (
        serving() as url,
        proxy(int(url.rpartition(":")[2])) as (port, cut),
        running(f"http://127.0.0.1:{port}", tmp_path, plan) as run,
    ):
        cut()
    assert run.report.target_lost and "nothing answered after second" in run.report.reason
    assert [error.kind for error in run.report.errors] == ["time-out"]


def test_a_server_that_is_only_overloaded_is_not_lost(tmp_path: Path) -> None:
    """Its queue grows until every request times out; when the load is over it answers again: that is a FAIL."""
    plan = LoadPlan(rate=200, warm_up_s=0.2, measure_s=4, timeout_s=0.5)
    with serving(service_ms=10) as url:
        report = load(url, tmp_path, plan)
    assert report.failed > report.requests / 2
    assert report.valid and not report.target_lost, report.reason


def test_a_run_that_is_asked_to_end_half_way(tmp_path: Path) -> None:
    with serving() as url, running(url, tmp_path, PLAN) as run:
        run.locust[0].send_signal(signal.SIGTERM)
    assert "stopped before its end" in run.report.reason


BROKEN = {
    "on_start": ("def on_start(self): raise ValueError('no such thing')", "ValueError: no such thing"),
    "example": ("def example(self, number): return {}['no such thing']", "KeyError: 'no such thing'"),
    "import": ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
    "exit": ("def on_start(self): import os; os._exit(0)", "exit code 0 and without a report"),
    "two": ("pass\nclass Another(OpenLoopUser): pass", "2 kinds of OpenLoopUser"),
}


@pytest.mark.parametrize(("how", "processes"), [*((how, 1) for how in BROKEN), ("on_start", 2)])
def test_a_locustfile_that_breaks(tmp_path: Path, how: str, processes: int) -> None:
    code, reason = BROKEN[how]
    locustfile = tmp_path / "locustfile.py"
    base = "from ekiben.loadtest.locust_user import OpenLoopUser\nclass Predict(OpenLoopUser):\n    "
    locustfile.write_text(base + code + "\n")
    (tmp_path / "result.json").write_text("a report of an earlier run")
    plan = PLAN.model_copy(update={"processes": processes})
    report = load("http://127.0.0.1:9", tmp_path, plan, locustfile=locustfile)
    assert not report.valid and reason in report.reason
    assert judge(report, SLO).outcome is Outcome.ERROR


def test_a_locust_that_hangs_is_ended_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekiben.loadtest.runner.START_S", 4.0)
    monkeypatch.setattr("ekiben.loadtest.runner.END_S", 0.5)
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text("import os, time\nos.fork()\ntime.sleep(60)\n")
    began = time.monotonic()
    plan = LoadPlan(warm_up_s=0, measure_s=0.5, timeout_s=0.5)
    report = load("http://127.0.0.1:9", tmp_path, plan, locustfile=locustfile)
    assert not report.valid and "not done after" in report.reason
    assert time.monotonic() - began < 20
    job = str(tmp_path / "job.json")
    left = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("EKIBEN_LOADTEST") == job]
    assert all(gone(p) for p in left), "a process was left"


@pytest.mark.parametrize("processes", [ONE, 2])
def test_locust_ends_when_whoever_started_it_is_killed(tmp_path: Path, processes: int) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from ekiben.loadtest.runner import run\n"
        "from ekiben.types import LoadPlan\n"
        "url, locustfile, golden, out, processes = sys.argv[1:]\n"
        "run(locustfile=Path(locustfile), url=url, golden=Path(golden), subject=None, out=Path(out), "
        "plan=LoadPlan(rate=20, warm_up_s=0, measure_s=60, processes=processes))"
    )
    arguments = [str(LOCUSTFILE), str(write_golden(tmp_path)), str(tmp_path), str(processes)]
    with serving() as url:
        with subprocess.Popen([sys.executable, "-c", code, url, *arguments]) as parent:
            until(lambda: offering(tmp_path / "locust.log"), 60, "Locust offers load")
            children = family(psutil.Process(parent.pid))
            assert len(children) == (1 if processes == 1 else 3)
            os.kill(parent.pid, signal.SIGKILL)
        until(lambda: all(gone(child) for child in children), 20, "Locust ends")


def test_workers_that_do_not_come_are_waited_for_and_then_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WORKERS_S", 4.0)
    crew = runner.Crew(2, "127.0.0.1", free_port())
    with serving() as url:
        report = runner.run(
            locustfile=LOCUSTFILE, url=url, golden=write_golden(tmp_path), plan=PLAN, subject=None,
            out=tmp_path / "out", crew=crew,
        )  # fmt: skip
    assert not report.valid
    assert "0 of 2 workers came within 4 s" in report.reason
    with pytest.raises(UnavailableError, match="no master at"):
        runner.work(LOCUSTFILE, crew.host, crew.port, tmp_path / "log", lambda _: None)
