"""Leads one run over all its processes: gives each its share, collects what they saw, decides when it ends, reports.

Whatever goes wrong on the way ends in an INVALID report with the reason. Needs gevent; knows nothing of Locust.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import gevent
import numpy as np
from numpy.typing import NDArray

from ekiben.loadtest.arrivals import read_trace, shard
from ekiben.loadtest.compare import compare
from ekiben.loadtest.decision import checkpoints, hopeless, settled
from ekiben.loadtest.golden import Golden
from ekiben.loadtest.job import Job
from ekiben.loadtest.phrases import ms
from ekiben.loadtest.recorder import RECORD, UNFINISHED, Chunk, Collector
from ekiben.loadtest.resources import machine
from ekiben.loadtest.search import slower
from ekiben.loadtest.summary import summarise
from ekiben.types import LoadReport, Value

SILENCE_S = 5.0  # without a word from a process, which speaks each second, it is lost
BEGIN_S = 30.0  # for its first word it has longer: on_start may log in somewhere
LOOK_S = 0.1


class Share(Value):
    """What a process has to do: all it needs, for it may run on another machine. `trace`: arrival times, float64."""

    run: str
    worker: int
    job: Job
    golden: Golden
    measured_s: float
    other: Golden | None = None
    trace: bytes = b""

    def message(self) -> dict[str, Any]:
        return {**self.model_dump(mode="json", exclude={"trace"}), "trace": self.trace}

    def due(self) -> NDArray[np.float64]:
        trace = np.frombuffer(self.trace) if self.trace else None
        return shard(self.job.plan, self.worker, trace=trace, measured_s=self.measured_s)


class Conductor:
    """`shares` go to the processes, their messages to `take`; `lead` returns when the run is over, after `finish`.

    `say` gets a line of progress each second; `halt` must stop the offering in all processes.
    """

    def __init__(
        self,
        job: Job,
        *,
        url: str,
        workers: int,
        finish: Callable[[LoadReport], None],
        say: Callable[[str], None],
        halt: Callable[[], None],
    ) -> None:
        self.plan = job.plan.model_copy(update={"processes": workers})
        self._job, self._url, self._slo = job.model_copy(update={"plan": self.plan}), url, job.slo
        self._golden = Golden.read(job.golden)
        self._other = Golden.read(job.against.golden) if job.against else None
        self._finish, self._say, self._halt = finish, say, halt
        self._trace = read_trace(Path(self.plan.trace)) if self.plan.trace else None
        self._longest = self.plan.longest_s if job.slo else self.plan.measure_s
        self._looks = [at for at in checkpoints(self.plan) if at < self._longest]
        self._run = uuid4().hex
        shards = [shard(self.plan, k, trace=self._trace, measured_s=self._longest) for k in range(workers)]
        self._collector = Collector(shards if self.plan.open_loop else None, workers)
        self._started = datetime.now(UTC)
        self._heard = [time.monotonic() + BEGIN_S - SILENCE_S] * workers
        self._offered = [0.0] * workers
        self._in_flight = [0] * workers
        self._done = [False] * workers
        self._lost = ""
        self._stopped = ""
        self._reason = ""
        self._over = False
        self._fresh: list[NDArray[np.void]] = []
        self._failed = 0

    def shares(self) -> list[Share]:
        trace = b"" if self._trace is None else self._trace.tobytes()
        return [
            Share(
                run=self._run,
                worker=worker,
                job=self._job,
                golden=self._golden,
                other=self._other,
                measured_s=self._longest,
                trace=trace,
            )
            for worker in range(self.plan.processes)
        ]

    def take(self, message: Mapping[str, Any]) -> None:
        """A message of a process: a Progress, of this run or of an earlier one that is passed over."""
        if message["run"] != self._run or self._over:
            return
        worker = int(message["worker"])
        chunk = Chunk(message["records"], [(k, e) for k, e in message["kinds"]], message["endpoints"])
        records = self._collector.take(chunk, worker)
        self._fresh.append(records)
        self._failed += int(np.count_nonzero(records["kind"]))
        self._heard[worker] = time.monotonic()
        self._offered[worker] = max(self._offered[worker], float(message["offered_s"]))
        self._in_flight[worker] = int(message["in_flight"])
        self._done[worker] = self._done[worker] or bool(message["done"])
        self._lost = self._lost or str(message["lost"])

    def fail(self, reason: str) -> None:
        """End the run at once with an INVALID report."""
        self._reason = self._reason or reason

    def end(self, reason: str) -> None:
        """As `fail`, with the report written before this returns, as nobody leads any more; nothing if it is over."""
        self.fail(reason)
        if not self._over:
            self._conclude(self._measured(), background=False)

    def lead(self) -> None:
        second = time.monotonic()
        while not self._over:
            gevent.sleep(LOOK_S)
            now = time.monotonic()
            silent = [k for k, heard in enumerate(self._heard) if now - heard > SILENCE_S and not self._done[k]]
            if silent and not self._reason:
                self._reason = f"process {silent[0] + 1} of {len(self._heard)} was lost: silent for {SILENCE_S:g} s"
            if self._reason or all(self._done):
                self._conclude(self._measured())
                return
            if now - second >= 1.0:
                second += 1.0
                self._each_second()

    def _each_second(self) -> None:
        at = min(self._offered)
        if not self._lost:
            self._say(self._progress(at))
        if self._slo is None or self._stopped or at <= self.plan.warm_up_s:
            return
        if self._looks and at >= self.plan.warm_up_s + self._looks[0]:
            # Requests go on being offered: only if the run is to be extended is that part of what counts.
            seen = self._collector.recording().until(self.plan.warm_up_s + self._looks[0])
            if not seen.is_kind(UNFINISHED).any():
                look = self._looks.pop(0)
                if phrase := _aside(settled, seen, self.plan, self._slo, look):
                    self._stopped = "" if look == self.plan.measure_s else phrase
                    self._conclude(look)
                    return
        seen = self._collector.recording().until(at)
        if phrase := _aside(hopeless, seen, self.plan, self._slo, at):
            self._stopped = phrase
            self._halt()

    def _measured(self) -> float:
        """Seconds of measured time in which every process has offered its load."""
        measured = min(self._offered) - self.plan.warm_up_s
        return self._longest if measured > self._longest - 0.001 else round(measured, 3)

    def _conclude(self, measured_s: float, *, background: bool = True) -> None:
        if self._over:
            return
        self._over = True
        if measured_s > self.plan.measure_s and not self._stopped:
            self._stopped = f"extended to {measured_s:g} s without a verdict"
        self._finish(_aside(self._report, measured_s) if background else self._report(measured_s))

    def _report(self, measured_s: float) -> LoadReport:
        reason = self._reason or self._lost
        settings: dict[str, Any] = {
            "url": self._url,
            "endpoint": ", ".join(self._golden.endpoints),
            "started": self._started,
            "subject": self._job.subject,
        }
        if measured_s <= 0:
            reason = reason or "the run ended before the warm-up did"
            return LoadReport(validity="INVALID", reason=reason, settings=self.plan, **settings)
        recording = self._collector.recording().until(self.plan.warm_up_s + measured_s)
        report = summarise(recording, self.plan, measured_s=measured_s, stopped=self._stopped, **settings)
        update: dict[str, Any] = {"workers": self.plan.processes, "target_lost": bool(self._lost), "machine": machine()}
        if self._job.limit_ms:
            update["slower"] = slower(recording, self.plan, self._job.limit_ms)
        if against := self._job.against:
            update["comparison"] = compare(recording, self.plan, against.a, against.b, against.settings_hash)
        if reason:
            update |= {"validity": "INVALID", "reason": reason}
        return report.model_copy(update=update)

    def _progress(self, at_s: float) -> str:
        fresh = np.concatenate(self._fresh) if self._fresh else np.empty(0, RECORD)
        self._fresh = []
        total = self.plan.warm_up_s + self.plan.measure_s
        phase = "warm-up" if at_s < self.plan.warm_up_s else "measuring" if at_s < total else "extended"
        if at_s >= self.plan.warm_up_s + self._longest or self._stopped:
            phase = "waiting for answers"
        answers = fresh["latency_ms"][fresh["kind"] == 0]
        p99 = ms(float(np.percentile(answers, 99))) if len(answers) else "–"
        lag = ms(float(np.percentile(fresh["lag_ms"], 99))) if len(fresh) else "–"
        loop = "" if self.plan.open_loop else "closed loop, "
        return (
            f"{phase} {at_s:.0f}/{max(total, min(at_s, self.plan.warm_up_s + self._longest)):.0f} s, {loop}"
            f"{len(answers)} answers/s, p99 {p99} ms, {self._failed} failed, {sum(self._in_flight)} in flight, "
            f"started {lag} ms late"
        )


def _aside(function: Callable[..., Any], *args: Any) -> Any:
    """Call it in a thread: where this process also sends requests, none of them must wait for statistics."""
    return gevent.get_hub().threadpool.apply(function, args)
