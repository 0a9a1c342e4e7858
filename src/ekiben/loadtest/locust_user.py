"""Open-loop load inside Locust. Import it from a locustfile only: it adds options and listeners to Locust.

Each Locust process has one `OpenLoopUser`, which walks its share of a schedule that is known before the run and starts
each request at its time, whether or not earlier ones were answered; latency counts from the scheduled time. So `-u` and
`-r` say nothing here, but for `--arrivals closed`. Locust's own statistics and web page show the same latencies.
"""

import os
import sys
import time
import traceback
from functools import partial
from typing import Any

import gevent
from locust import FastHttpUser, events, task
from locust.dispatch import UsersDispatcher
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from ekiben.errors import EkibenError
from ekiben.files import write_atomically
from ekiben.loadtest.compare import Blocks
from ekiben.loadtest.conductor import BEGIN_S, Conductor, Share
from ekiben.loadtest.generator import Generator, Outcome, Progress
from ekiben.loadtest.golden import GoldenExample
from ekiben.loadtest.http import Client
from ekiben.loadtest.job import ERROR, JOB, PARENT, PROGRESS, Job
from ekiben.loadtest.judging import judge
from ekiben.loadtest.options import add_options, job_of
from ekiben.loadtest.recorder import TIME_OUT
from ekiben.types import LoadReport

MASTER_SILENCE_S = 10.0  # a master answers each heartbeat, one a second

# Messages between the processes; in a single one Locust hands them to the same listeners.
SHARE, HALT, SEEN, BROKEN = "ekiben-share", "ekiben-halt", "ekiben-seen", "ekiben-broken"


class OpenLoopUser(FastHttpUser):  # type: ignore[misc]  # untyped to mypy
    """Posts golden examples by the schedule. Override `example` to choose which, `check` to judge answers otherwise,
    `ask` to send something else altogether."""

    abstract = True

    def example(self, number: int) -> GoldenExample:
        """What arrival `number` sends, and must get."""
        examples = self.share.golden.examples
        return examples[number % len(examples)]

    def check(self, example: GoldenExample, body: bytes) -> tuple[str, str]:
        """The kind of error that a 2xx answer is, and a phrase that says more; both '' when it is right."""
        return example.check(body)

    def ask(self, number: int, scheduled: float) -> Outcome:
        """Send arrival `number` and wait for its answer: one attempt. What this raises ends the run as INVALID."""
        began = time.monotonic()
        golden, connections, example, target = self.share.golden, self.connections, self.example(number), ""
        if self.turns is not None and self.share.other:
            own = number // self.share.job.plan.processes
            target = "AB"[self.turns[own]] + " "
            if not self.turns[own]:
                golden, connections = self.share.other, self.other_connections
                example = golden.examples[number % len(golden.examples)]
        route = golden.route_of(example)
        timeout_s = self.share.job.plan.timeout_s
        body, kind, detail, answered = b"", "", "", False
        try:
            status, body = connections.post(route, example.body, timeout_s)
        except gevent.Timeout:
            kind, detail = TIME_OUT, f"no complete answer within {timeout_s:g} s"
        except Exception as caught:
            kind, detail = f"transport: {type(caught).__name__}", str(caught) or type(caught).__name__
        else:
            answered = True
            if 200 <= status < 300:
                kind, detail = self.check(example, body)
            else:
                kind, detail = f"status {status}", body[:200].decode(errors="replace")
        now = time.monotonic()
        self.environment.events.request.fire(
            request_type="POST",
            name=route if self.share.job.plan.open_loop else f"{route} (closed loop)",
            response_time=(now - scheduled) * 1000.0,
            response_length=len(body),
            exception=RuntimeError(kind) if kind else None,
            context={"lag_ms": (began - scheduled) * 1000.0, "service_ms": (now - began) * 1000.0},
        )
        return Outcome(kind, detail, f"{target}POST {route}", answered)

    @task  # type: ignore[untyped-decorator]
    def offer(self) -> None:
        """This process's whole share of the run."""
        state: _State = self.environment.ekiben
        if state.share is None:
            raise RuntimeError("the master sent no share of the load; does it run the same locustfile?")
        if state.taken:  # Locust moves the users of a lost process here; its part of the schedule is lost all the same
            raise StopUser
        state.taken = True
        self.share = state.share
        self.connections, against = Client(self.host), self.share.job.against
        self.other_connections = Client(against.url if against else self.host)
        due = self.share.due()
        self.turns = Blocks.of(self.share.job.plan).target(due) if against else None
        self.generator = state.generator = Generator(
            self.share.job.plan,
            due,
            worker=self.share.worker,
            measured_s=self.share.measured_s,
            ask=self.ask,
            send=partial(_send, self.environment, self.share),
        )
        try:
            self.generator.run()
        finally:
            self.generator.close()
            self.connections.close()
            self.other_connections.close()
        raise StopUser


class _State:
    """What a Locust process knows of the run; on a master or a lone process also who leads it."""

    def __init__(self) -> None:
        self.share: Share | None = None
        self.taken = False
        self.generator: Generator | None = None
        self.conductor: Conductor | None = None


class _OneEach(UsersDispatcher):  # type: ignore[misc]
    """One OpenLoopUser in each process, at once, whatever number of users is asked for; further users come after."""

    def new_dispatch(self, target_user_count: int, spawn_rate: float, user_classes: Any = None) -> None:
        processes = len(self._worker_nodes)
        for user in self._user_classes:
            if issubclass(user, OpenLoopUser):
                user.fixed_count = processes
        super().new_dispatch(max(target_user_count, processes), max(spawn_rate, processes), user_classes)


events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _begin(environment: Environment, runner: Any, **_: Any) -> None:
    environment.ekiben = _State()
    if isinstance(runner, WorkerRunner):
        environment.process_exit_code = 0  # what its requests met is told by the master
        if environment.parsed_options.processes:
            gevent.spawn(_die_with, os.getppid())
        if PARENT in os.environ:
            gevent.spawn(_die_with, int(os.environ[PARENT]))
        gevent.spawn(_die_with_master, runner)
    else:
        # Locust's own code is 0 when a test is cut short or never starts; only a VALID report clears this one.
        environment.process_exit_code = 1
        mine = [user for user in environment.user_classes if issubclass(user, OpenLoopUser)]
        if len(mine) != 1:
            sys.exit(f"{ERROR}the locustfile has {len(mine)} kinds of OpenLoopUser, wanted one: it is the whole load")
        environment.dispatcher_class = _OneEach
        sys.setswitchinterval(0.0005)  # statistics are a thread beside requests that must start on time
        runner.register_message(SEEN, _on_seen)
        runner.register_message(BROKEN, _on_broken)
        environment.events.test_start.add_listener(_on_test_start)
        environment.events.test_stop.add_listener(_on_test_stop)
        limit = environment.parsed_options.expect_workers_max_wait
        if limit and isinstance(runner, MasterRunner):
            gevent.spawn(_count, runner, environment.parsed_options.expect_workers, limit)
        if JOB in os.environ and (parent := job_of(environment).parent):
            gevent.spawn(_die_with, parent)
    runner.register_message(SHARE, _on_share)
    runner.register_message(HALT, _on_halt)


def _on_test_start(environment: Environment, **_: Any) -> None:
    """On the master or in a lone process, before any user starts."""
    environment.process_exit_code = 1  # also for a second test from the web page
    runner, state = environment.runner, environment.ekiben
    try:
        job = job_of(environment)
        job.result.unlink(missing_ok=True)  # an older report must never stand for this run
        workers = _crew(runner, environment.parsed_options) if isinstance(runner, MasterRunner) else [None]
        state.conductor = Conductor(
            job,
            url=environment.host or next(user.host for user in environment.user_classes if user.host),
            workers=len(workers),
            finish=partial(_finish, environment, job),
            say=_say,
            halt=partial(runner.send_message, HALT),
        )
        for worker, share in zip(workers, state.conductor.shares(), strict=True):
            runner.send_message(SHARE, share.message(), worker)
    except Exception as error:
        state.conductor = None
        _complain(error)
        _quit(environment)
        return
    gevent.spawn(state.conductor.lead)


def _crew(runner: MasterRunner, options: Any) -> list[str]:
    """The workers that the load is shared out to. On a busy machine one that Locust counted a moment ago may have been
    silent for the 3 s after which Locust takes it for lost; it is heard of again."""
    deadline = time.monotonic() + BEGIN_S
    while len(runner.clients.ready) < options.expect_workers:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(runner.clients.ready)} of {options.expect_workers} workers are left at the start")
        gevent.sleep(0.1)
    return [node.id for node in runner.clients.ready]


def _on_test_stop(environment: Environment, **_: Any) -> None:
    if environment.ekiben.conductor:
        environment.ekiben.conductor.end("the run was stopped before its end")


def _on_share(environment: Environment, msg: Any, **_: Any) -> None:
    environment.ekiben.share, environment.ekiben.taken = Share.model_validate(msg.data), False


def _on_halt(environment: Environment, **_: Any) -> None:
    if environment.ekiben.generator:
        environment.ekiben.generator.halt()


def _on_seen(environment: Environment, msg: Any, **_: Any) -> None:
    if environment.ekiben.conductor:
        environment.ekiben.conductor.take(msg.data)


def _on_broken(environment: Environment, msg: Any, **_: Any) -> None:
    if environment.ekiben.conductor:
        environment.ekiben.conductor.fail(msg.data)


@events.user_error.add_listener  # type: ignore[untyped-decorator]
def _on_user_error(user_instance: Any, exception: BaseException, **_: Any) -> None:
    """Locust would wait for ever for a user that failed in on_start, or run its task again."""
    user = getattr(user_instance, "user", user_instance)  # it may be the set of tasks that Locust made of a user
    if isinstance(user, OpenLoopUser):
        user.environment.runner.send_message(BROKEN, _complain(exception))


def _send(environment: Environment, share: Share, progress: Progress) -> None:
    message = {
        "run": share.run,
        "worker": share.worker,
        "records": progress.chunk.records,
        "kinds": progress.chunk.kinds,
        "endpoints": progress.chunk.endpoints,
        "offered_s": progress.offered_s,
        "in_flight": progress.in_flight,
        "done": progress.done,
        "lost": progress.lost,
    }
    environment.runner.send_message(SEEN, message)


def _finish(environment: Environment, job: Job, report: LoadReport) -> None:
    write_atomically(job.result, report.model_dump_json())
    environment.process_exit_code = 0 if report.valid else 1
    _say(f"{report.validity}{report.reason and ': '}{report.reason}")
    if job.slo and job.parent is None:  # nobody else judges
        verdict = judge(report, job.slo)
        environment.process_exit_code = verdict.outcome.exit_code
        _say(str(verdict))
    _quit(environment)


def _quit(environment: Environment) -> None:
    # Not from this greenlet: to quit is to kill every user, this one too. The web page stays, for another test.
    gevent.spawn(environment.runner.stop if environment.web_ui else environment.runner.quit)


def _say(line: str) -> None:
    print(f"{PROGRESS}{line}", flush=True)  # noqa: T201


def _complain(error: BaseException) -> str:
    """Say what is broken, in one line: a user's mistake as it says itself, else the last line of the traceback."""
    text = str(error) if isinstance(error, EkibenError) else traceback.format_exception_only(error)[-1]
    reason = "; ".join(text.strip().splitlines())
    print(f"{ERROR}{reason}", file=sys.stderr, flush=True)  # noqa: T201
    return reason


def _count(runner: Any, expected: int, limit: int) -> None:
    """Say how many workers have come. Locust gives up after `limit` seconds without saying for how many it waited."""
    began, said = time.monotonic(), -1
    while (there := len(runner.clients.ready)) < expected:
        if there != said:
            _say(f"{there} of {expected} workers are here")
            said = there
        if time.monotonic() - began > limit - 1:
            print(f"{ERROR}{there} of {expected} workers came within {limit} s", flush=True)  # noqa: T201
            return
        gevent.sleep(0.5)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        gevent.sleep(0.5)
    os._exit(1)


def _die_with_master(runner: Any) -> None:
    """Locust itself waits a minute for a master that is gone, and goes on sending requests meanwhile."""
    while time.time() - (runner.last_heartbeat_timestamp or time.time()) < MASTER_SILENCE_S:
        gevent.sleep(1.0)
    print(f"{ERROR}the master has been silent for {MASTER_SILENCE_S:g} s", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)
