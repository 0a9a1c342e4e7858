"""Offers the load of one process: starts each request when it is due, and hands on what happened to each.

What a request is, is not known here: `ask` sends it and tells its outcome. Needs gevent, monkey-patched or not.
"""

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

import gevent
import numpy as np
from gevent.pool import Group
from numpy.typing import NDArray

from ekiben.loadtest.recorder import DROPPED, TIME_OUT, Chunk, Writer
from ekiben.loadtest.timer import Timer
from ekiben.types import LoadPlan

LEAD_S = 0.2  # between the order to begin and the first request
CHUNK_S = 1.0
BREATH = 16  # late starts, after which those that were spawned get their turn

SILENT_S = 1.0
SILENT = 10
"""A service or network that has answered before, but none of the last SILENT requests or more of the last SILENT_S or
longer, may be lost: then it is asked again after the load."""
PATIENCE = 2.0
PATIENCE_S = 10.0
"""A service that got up to PATIENCE times what it can do goes on working for so many times as long as it was silent,
off requests that nobody waits for any more; it is waited for PATIENCE_S at most."""


class Outcome(NamedTuple):
    """How a request ended. `kind` and `detail` are those of its error, '' for none; `answered` says that there was
    an answer at all, right or not."""

    kind: str
    detail: str
    endpoint: str
    answered: bool


class Progress(NamedTuple):
    """What a process hands on about each second. `offered_s`: up to when it has offered its load, from the start.
    `lost` says, after the load, since when the service has not answered any more."""

    chunk: Chunk
    offered_s: float
    in_flight: int
    done: bool
    lost: str


Ask = Callable[[int, float], Outcome]
"""(number of the arrival, its scheduled time on time.monotonic()) -> how it ended; raises only what is broken."""


class Generator:
    """`run` offers everything and returns when all is answered or timed out; `halt` ends the offering before its time,
    `close` breaks off what is in flight too. Arrival i of process k of N is number i·N + k to `ask`."""

    def __init__(
        self,
        plan: LoadPlan,
        due: NDArray[np.float64],
        *,
        worker: int,
        measured_s: float,
        ask: Ask,
        send: Callable[[Progress], None],
    ) -> None:
        self._plan, self._due, self._worker = plan, due, worker
        self._ask, self._send = ask, send
        self._origin = time.monotonic() + LEAD_S
        self._end = self._origin + plan.warm_up_s + measured_s
        self._writer = Writer()
        self._in_flight = Group()
        self._offering: gevent.Greenlet | None = None
        self._broken: BaseException | None = None
        self._answered_at: float | None = None  # scheduled time of the last request that got an answer
        self._silent = 0  # requests without an answer since
        self._closed = False

    def run(self) -> None:
        """Raises what `ask` raised, after which nothing more is offered."""
        gc.collect()
        gc.freeze()  # else the collector goes through all that was imported again and again, 50 ms at a time
        ticker = gevent.spawn(self._tick)
        try:
            self._offering = gevent.spawn(self._open if self._plan.open_loop else self._closed_loop)
            self._offering.join()
            self._in_flight.join(self._plan.timeout_s + 1.0)
            lost = "" if self._broken else self._lost()
        finally:
            ticker.kill()
            gc.unfreeze()
        if self._broken:
            raise self._broken
        self._hand_on(done=True, lost=lost)

    def halt(self) -> None:
        self._end = min(self._end, time.monotonic())
        if self._offering and self._plan.open_loop:
            self._offering.kill(block=False)

    def close(self) -> None:
        """Hands on what has been recorded so far. Once is enough."""
        if not self._closed:
            self._closed = True
            self.halt()
            self._in_flight.kill()
            self._hand_on(done=False)

    def _open(self) -> None:
        timer = Timer()
        late = 0
        try:
            for number, at_s in enumerate(self._due):
                at = self._origin + float(at_s)
                if at > time.monotonic():
                    timer.wait(at)
                    late = 0
                else:
                    late += 1
                    if late % BREATH == 0:
                        gevent.sleep(0)
                if len(self._in_flight) >= self._plan.max_in_flight:
                    self._note(number, at, time.monotonic(), Outcome(DROPPED, "not sent", "", True))
                else:
                    self._in_flight.spawn(self._one, number, at)
            timer.wait(self._end)
        finally:
            timer.close()

    def _closed_loop(self) -> None:
        """This process's share of the users; what is under way at the end is waited for."""
        plan, numbers = self._plan, iter(range(2**32))
        gevent.sleep(max(0.0, self._origin - time.monotonic()))

        def user() -> None:
            while time.monotonic() < self._end:
                self._one(next(numbers), time.monotonic())
                gevent.sleep(0)  # also where each request fails at once

        for _ in range(plan.users // plan.processes + (self._worker < plan.users % plan.processes)):
            self._in_flight.spawn(user)
        gevent.sleep(max(0.0, self._end - time.monotonic()))

    def _one(self, number: int, at: float) -> None:
        began = time.monotonic()
        try:
            outcome = self._ask(number * self._plan.processes + self._worker, at)
        except Exception as error:  # of the locustfile, not of the service
            self._broken = error
            self.halt()
            return
        self._note(number, at, began, outcome)

    def _note(self, number: int, at: float, began: float, outcome: Outcome) -> None:
        now = time.monotonic()
        self._writer.record(
            number,
            at - self._origin,
            lag_ms=(began - at) * 1000.0,
            latency_ms=(now - at) * 1000.0,
            kind=outcome.kind,
            example=outcome.detail,
            endpoint=outcome.endpoint,
        )
        if outcome.answered:
            self._silent, self._answered_at = 0, max(self._answered_at or at, at)
        else:
            self._silent += 1

    def _lost(self) -> str:
        """Since when nothing has answered, nor does now; '' where something does, or never did."""
        last = self._answered_at
        if last is None or self._silent < SILENT or self._end - last < SILENT_S:
            return ""
        deadline = time.monotonic() + min(PATIENCE_S, PATIENCE * (self._end - last))
        while not (outcome := self._ask(0, time.monotonic())).answered:
            if time.monotonic() >= deadline or outcome.kind != TIME_OUT:
                since = last - self._origin
                return f"nothing answered after second {since:.1f}, nor when the load was over: {outcome.kind}"
        return ""

    def _tick(self) -> None:
        for number in range(1, 2**32):
            gevent.sleep(max(0.0, self._origin + number * CHUNK_S - time.monotonic()))
            self._hand_on(done=False)

    def _hand_on(self, *, done: bool, lost: str = "") -> None:
        offered = max(0.0, min(time.monotonic(), self._end) - self._origin)
        self._send(Progress(self._writer.chunk(), offered, len(self._in_flight), done, lost))
