"""Open-loop load inside Locust. Import it from a locustfile only: it adds options and listeners to Locust.

`OpenLoopUser` walks a schedule that is known before the run and starts each request at its time, whether or not
earlier ones were answered; latency counts from the scheduled time. One user is the whole load, so `-u` is ignored.
Locust's own statistics and web page show the same corrected latencies.
"""

import os
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner

from ekiben.files import write_atomically
from ekiben.loadtest.arrivals import schedule
from ekiben.loadtest.golden import Golden, GoldenExample, mismatch
from ekiben.loadtest.http import TIME_OUT, WRONG, OneAttemptPool, post
from ekiben.loadtest.job import ERROR, GOLDEN, JOB, PROGRESS, Job
from ekiben.loadtest.recorder import DROPPED, Recorder
from ekiben.loadtest.summary import summarise
from ekiben.types import LoadPlan, LoadReport

LEAD_S = 0.2  # between making the schedule and its first request


class OpenLoopUser(FastHttpUser):  # type: ignore[misc]  # untyped to mypy
    """Posts golden examples by the schedule. Override `example` to choose which, `wrong` to judge answers otherwise."""

    abstract = True
    fixed_count = 1
    client_pool = OneAttemptPool(concurrency=100_000, connection_timeout=600.0, network_timeout=600.0, insecure=True)

    def on_start(self) -> None:
        self.environment.process_exit_code = 1  # also for a second test from the web page
        self.job = job_of(self.environment)
        self.job.result.unlink(missing_ok=True)  # an older report must never stand for this run
        self.golden = Golden.read(self.job.golden)
        self.in_flight = Group()

    def on_stop(self) -> None:
        if hasattr(self, "in_flight"):
            self.in_flight.kill()

    def example(self, number: int) -> GoldenExample:
        """What arrival `number` sends, and must get."""
        return self.golden.examples[number % len(self.golden.examples)]

    def wrong(self, example: GoldenExample, body: bytes) -> str:
        """What is wrong with a 2xx answer; '' when it is right."""
        return mismatch(example.response, body)

    @task  # type: ignore[untyped-decorator]
    def walk(self) -> None:
        """The whole run: offer the schedule, wait for what is in flight, write the report, end Locust."""
        plan = self.job.plan
        due = schedule(plan)
        recorder = Recorder(due)
        started = datetime.now(UTC)
        origin = time.perf_counter() + LEAD_S
        progress = gevent.spawn(_progress, self, origin, plan)
        try:
            for number, at in enumerate(due):
                wait = origin + at - time.perf_counter()
                if wait > 0:
                    gevent.sleep(wait)
                if len(self.in_flight) >= plan.max_in_flight:
                    recorder.record(number, lag_ms=0.0, latency_ms=0.0, kind=DROPPED, example="not sent")
                else:
                    self.in_flight.spawn(self._arrival, recorder, number, origin + at)
            gevent.sleep(max(0.0, origin + plan.warm_up_s + plan.measure_s - time.perf_counter()))
            self.in_flight.join(plan.timeout_s + 1.0)
        finally:
            progress.kill()
        report = summarise(
            recorder.recording(),
            plan,
            url=self.host,
            endpoint=f"POST {self.golden.route}",
            started=started,
            subject=self.job.subject,
        )
        _finish(self.environment, self.job, report)
        raise StopUser

    def _arrival(self, recorder: Recorder, number: int, scheduled: float) -> None:
        lag_ms = (time.perf_counter() - scheduled) * 1000.0
        error: Exception | None = None
        kind = detail = ""
        body = b""
        try:
            example = self.example(number)
            status, body = post(
                self.client_pool.get_client(self.host), self.golden.route, example.body, self.job.plan.timeout_s
            )
            if not 200 <= status < 300:
                kind, detail = f"status {status}", body[:200].decode(errors="replace")
            else:
                detail = self.wrong(example, body)
                kind = WRONG if detail else ""
        except gevent.Timeout:
            kind, detail = TIME_OUT, f"no complete answer within {self.job.plan.timeout_s:g} s"
        except Exception as caught:
            kind, detail = f"transport: {type(caught).__name__}", str(caught) or type(caught).__name__
        latency_ms = (time.perf_counter() - scheduled) * 1000.0
        recorder.record(number, lag_ms=lag_ms, latency_ms=latency_ms, kind=kind, example=detail)
        if kind:
            error = RuntimeError(f"{kind}: {detail}" if kind == WRONG else kind)
        self.environment.events.request.fire(
            request_type="POST",
            name=self.golden.route,
            response_time=latency_ms,
            response_length=len(body),
            exception=error,
            context={"lag_ms": lag_ms, "service_ms": latency_ms - lag_ms},
        )


def job_of(environment: Environment) -> Job:
    """The runner's job, or one made of Locust's own options when there is no runner."""
    if path := os.environ.get(JOB):
        return Job.model_validate_json(Path(path).read_bytes())
    given = environment.parsed_options
    if not given.golden:
        raise ValueError(f"no golden answers: set {GOLDEN} or --golden to the golden.json of the model under test")
    plan = LoadPlan(
        rate=given.rate, arrivals=given.arrivals, warm_up_s=given.warm_up, measure_s=given.duration, seed=given.seed
    )
    return Job(plan=plan, golden=Path(given.golden), result=Path(given.result))


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: ArgumentParser) -> None:
    default = LoadPlan()
    group: Any = parser.add_argument_group("open-loop load")
    group.add_argument("--rate", type=float, default=default.rate, help="requests/s to offer")
    group.add_argument("--arrivals", choices=["poisson", "constant"], default=default.arrivals, help="how they come")
    group.add_argument("--warm-up", type=float, default=default.warm_up_s, help="seconds that are not judged")
    group.add_argument("--duration", type=float, default=default.measure_s, help="seconds that are judged")
    group.add_argument("--seed", type=int, default=default.seed, help="of the arrival times")
    group.add_argument("--golden", default="", env_var=GOLDEN, help="golden answers of the model under test")
    group.add_argument("--result", default=".ekiben/load-report.json", help="where the report is written")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _begin(environment: Environment, runner: Any, **_: Any) -> None:
    # Locust's own code is 0 when a test is cut short or never starts; only a VALID report clears this one.
    environment.process_exit_code = 1
    if not isinstance(runner, LocalRunner):
        sys.exit("open-loop load runs in one process for now: leave out --master, --worker and --processes")
    if JOB in os.environ and (parent := job_of(environment).parent):
        gevent.spawn(_die_with, parent)


@events.user_error.add_listener  # type: ignore[untyped-decorator]
def _give_up(user_instance: Any, exception: BaseException, **_: Any) -> None:
    """Locust would wait for ever for a user that failed in on_start, or run its task again."""
    print(f"{ERROR}{type(exception).__name__}: {exception}", file=sys.stderr, flush=True)  # noqa: T201
    _quit(user_instance.environment)


def _finish(environment: Environment, job: Job, report: LoadReport) -> None:
    write_atomically(job.result, report.model_dump_json())
    environment.process_exit_code = 0 if report.valid else 1
    print(f"{PROGRESS}{report.validity}{report.reason and ': '}{report.reason}", flush=True)  # noqa: T201
    _quit(environment)


def _quit(environment: Environment) -> None:
    runner = environment.runner
    assert runner is not None
    # Not from this greenlet: to quit is to kill every user, this one too. The web page stays, for another test.
    gevent.spawn(runner.stop if environment.web_ui else runner.quit)


def _progress(user: OpenLoopUser, origin: float, plan: LoadPlan) -> None:
    total, stats, answered = plan.warm_up_s + plan.measure_s, user.environment.stats.total, 0
    while True:
        gevent.sleep(1.0)
        at = time.perf_counter() - origin
        phase = "warm-up" if at < plan.warm_up_s else "measuring" if at < total else "waiting for answers"
        rate, answered = stats.num_requests - answered, stats.num_requests
        p99 = stats.get_current_response_time_percentile(0.99)  # of the last ten seconds
        print(  # noqa: T201
            f"{PROGRESS}{phase} {min(at, total):.0f}/{total:.0f} s, {rate} answers/s, "
            f"p99 {'–' if p99 is None else f'{p99:.0f}'} ms, {stats.num_failures} failed, "
            f"{len(user.in_flight)} in flight",
            flush=True,
        )


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        gevent.sleep(0.5)
    os._exit(1)
