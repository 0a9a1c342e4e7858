"""Run Locust as a child process and bring home its report. Whatever goes wrong is an INVALID report, never a pass."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from ekiben.errors import UnavailableError
from ekiben.files import write_atomically
from ekiben.loadtest.job import ERROR, JOB, PARENT, PROGRESS, Against, Job
from ekiben.loadtest.slo import Slo
from ekiben.processes import free_port
from ekiben.types import BentoRef, ImageRef, LoadPlan, LoadReport

START_S = 30.0  # for Locust to start, on a busy machine
WORKERS_S = 300.0  # for workers on other machines to come: images are pulled there, machines started
LOOK_S = 1.0
END_S = 30.0  # to notice what was lost, compute, write and end


@dataclass(frozen=True)
class Crew:
    """So many workers on other machines, which come to `host`:`port`, an address of this one."""

    workers: int
    host: str
    port: int


def run(
    *,
    locustfile: Path,
    url: str,
    golden: Path,
    plan: LoadPlan,
    subject: BentoRef | ImageRef | None,
    out: Path,
    slo: Slo | None = None,
    against: Against | None = None,
    limit_ms: float | None = None,
    crew: Crew | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> LoadReport:
    """Offer the plan's load to `url` and return what was measured; blocks for warm-up + measured time + a few seconds.

    With `slo` the run ends early when it can only FAIL, and is extended up to `plan.extend_to_s` while it is undecided.
    With `against` that target is asked in turn with `url`, and the report has the comparison; with `limit_ms` it has
    the share of slower requests. With `crew` this process only leads, and its workers send the requests: all must be
    there before the first. Leaves job.json, result.json and locust.log in `out`. All processes of Locust are one
    process group: they end when the caller does, and none is left when this returns. A Locust that fails, ends without
    a report or outlasts its deadline gives an INVALID report.
    """
    out.mkdir(parents=True, exist_ok=True)
    result = (out / "result.json").absolute()
    result.unlink(missing_ok=True)  # an older run's report must never stand for this one
    job = Job(
        plan=plan,
        golden=golden.absolute(),
        result=result,
        subject=subject,
        slo=slo,
        against=against,
        limit_ms=limit_ms,
        parent=os.getpid(),
    )
    job_file = (out / "job.json").absolute()
    write_atomically(job_file, job.model_dump_json(indent=2))
    started = datetime.now(UTC)
    measured = plan.longest_s if slo else plan.measure_s
    # Three time-outs: for the last request, and twice as much to see whether a silent service comes back.
    budget = START_S + plan.warm_up_s + measured + 3 * plan.timeout_s + END_S + (WORKERS_S if crew else 0)
    command = [*_locust(locustfile), "--host", url, "--headless", "--only-summary", *_together(plan, crew)]
    code, last = _watched(command, {JOB: str(job_file)}, out / "locust.log", budget, on_progress or (lambda _: None))
    reason = f"Locust ended with exit code {code}" if code is not None else f"Locust was not done after {budget:.0f} s"
    try:
        report = LoadReport.model_validate_json(result.read_bytes())
    except FileNotFoundError:
        reason = f"{reason} and without a report: {last or 'it said nothing'}"
    except ValidationError as error:
        reason = f"{reason}; its report cannot be read: {error.errors()[0]['msg']}"
    else:
        if code == 0 or not report.valid:
            return report
        return report.model_copy(update={"validity": "INVALID", "reason": reason})
    return LoadReport(validity="INVALID", reason=reason, subject=subject, url=url, started=started, settings=plan)


def _locust(locustfile: Path) -> list[str]:
    return [sys.executable, "-m", "locust", "-f", str(locustfile), "--skip-log-setup"]


def _together(plan: LoadPlan, crew: Crew | None) -> list[str]:
    """How Locust's processes meet: a master and its workers."""
    if crew is not None:
        host = f"[{crew.host}]" if ":" in crew.host else crew.host
        expected = ["--expect-workers", str(crew.workers), "--expect-workers-max-wait", f"{WORKERS_S:.0f}"]
        return ["--master", "--master-bind-host", host, "--master-bind-port", str(crew.port), *expected]
    if plan.processes == 1:
        return []
    port = str(free_port())
    meeting = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    return ["--processes", str(plan.processes), *meeting]


def work(locustfile: Path, host: str, port: int, log: Path, on_progress: Callable[[str], None]) -> str:
    """Send what the master at `host`:`port` asks for. Returns '' when it says that the test is over; else why the
    worker ended, as it does where the master falls silent. UnavailableError where none listens there in time."""
    _await(host, port)
    on_progress(f"the master is at {host}:{port}")
    command = [*_locust(locustfile), "--worker", "--master-host", host, "--master-port", str(port)]
    code, last = _watched(command, {PARENT: str(os.getpid())}, log, None, on_progress)
    return f"the worker ended with exit code {code}: {last or 'it said nothing'}" if code else ""


def _await(host: str, port: int) -> None:
    deadline, why = time.monotonic() + WORKERS_S, ""
    while True:
        try:
            socket.create_connection((host, port), timeout=LOOK_S).close()
            return
        except OSError as error:  # also a name that nobody knows yet
            why = str(error)
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"no master at {host}:{port} within {WORKERS_S:.0f} s: {why}",
                wanted="a master that waits for its workers",
                next_step="see why the master's step ended, or did not start",
            )
        time.sleep(LOOK_S)


def _watched(
    command: list[str], env: Mapping[str, str], log: Path, budget: float | None, on_progress: Callable[[str], None]
) -> tuple[int | None, str]:
    """Exit code (None: killed at the deadline) and why it failed: its error, or the last line that it said."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
        process_group=0,
    )
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    deadline = None if budget is None else time.monotonic() + budget

    def left(least: float) -> float | None:
        return None if deadline is None else max(least, deadline - time.monotonic())

    last = ""
    try:
        with log.open("w", buffering=1, encoding="utf-8") as file:  # by lines: a person may be watching
            # The pipe ends with the last process that holds it: workers that lost their master need a moment to end.
            while (line := lines.get(timeout=left(0.0))) is not None:
                file.write(line)
                if line.startswith(PROGRESS) and not line.startswith(ERROR):
                    on_progress(line.removeprefix(PROGRESS).strip())
                if not last.startswith(ERROR):
                    last = line.strip() or last
        return process.wait(timeout=left(1.0)), last.removeprefix(ERROR)
    except (queue.Empty, subprocess.TimeoutExpired):
        return None, last.removeprefix(ERROR)
    finally:
        if process.returncode is None:  # not reaped, so no other group can have its number
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _pump(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
