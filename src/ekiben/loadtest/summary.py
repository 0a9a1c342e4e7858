"""From what happened to each arrival to the load report. Pure."""

from datetime import UTC, datetime

import numpy as np

from ekiben.loadtest.recorder import DROPPED, UNFINISHED, Recording
from ekiben.loadtest.statistics import clopper_pearson, percentile, proportion
from ekiben.types import BentoRef, ErrorKind, LoadPlan, LoadReport, Percentile, Second

LEVELS = (10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99)
MAX_LAG_P99_MS = 50.0
"""A generator that starts requests later than this offers another load than was asked for. Latency counts from the
scheduled time, so lag below it can only make the service look worse, never better."""
MAX_KINDS = 50


def summarise(
    recording: Recording,
    plan: LoadPlan,
    *,
    url: str,
    endpoint: str,
    started: datetime,
    subject: BentoRef | None,
    measured_s: float | None = None,
    stopped: str = "",
) -> LoadReport:
    """The whole report of a run that was measured for `measured_s` (None: as planned), extended or aborted.

    What was due later is left out. What was due until then and has no end makes the run INVALID.
    """
    lasted = plan.measure_s if measured_s is None else measured_s
    report = figures(recording, plan, lasted)
    return report.model_copy(
        update={
            "subject": subject,
            "url": url,
            "endpoint": endpoint,
            "started": started,
            "stopped": stopped,
            "series": _series(recording, plan, lasted),
        }
    )


def figures(recording: Recording, plan: LoadPlan, measured_s: float) -> LoadReport:
    """What judges a run, without its course: no series, no windows, and nothing about where it ran."""
    due = recording.scheduled_s < plan.warm_up_s + measured_s
    counted = due & (recording.scheduled_s >= plan.warm_up_s)
    requests = int(counted.sum())
    base = LoadReport(
        validity="INVALID",
        reason="no request was due in the measured time",
        url="",
        started=datetime.fromtimestamp(0, UTC),
        settings=plan,
        measured_s=measured_s,
    )
    if not requests:
        return base
    ok = recording.ok[counted]
    latencies = np.where(ok, recording.latency_ms[counted], np.float32(np.inf))
    in_time = recording.scheduled_s[counted] + latencies / 1000.0 <= plan.warm_up_s + measured_s
    lag = recording.lag_ms[counted]
    dropped = int((recording.is_kind(DROPPED) & due).sum())
    unfinished = int((recording.is_kind(UNFINISHED) & due).sum())
    lag_p99 = float(np.percentile(lag, 99))
    reason = _invalid(dropped, unfinished, lag_p99, plan)
    # The bounds of the achieved share are the plain binomial ones: what is late at the very end is late together.
    on_time = int(in_time.sum())
    return base.model_copy(
        update={
            "validity": "INVALID" if reason else "VALID",
            "reason": reason,
            "requests": requests,
            "failed": int((~ok).sum()),
            "dropped": dropped,
            "offered_rate": requests / measured_s,
            "achieved_rate": on_time / measured_s,
            "achieved": clopper_pearson(on_time, requests),
            "error_rate": proportion(~ok),
            "percentiles": _percentiles(latencies),
            "lag_p99_ms": round(lag_p99, 3),
            "lag_max_ms": round(float(lag.max()), 3),
            "errors": _errors(recording, counted),
        }
    )


def _invalid(dropped: int, unfinished: int, lag_p99: float, plan: LoadPlan) -> str:
    """Why the run judges nothing; '' when it is valid."""
    if unfinished:
        return f"the run ended early: {unfinished:,} requests were not sent or not waited for"
    if dropped:
        return f"{dropped:,} requests were not sent: more than {plan.max_in_flight:,} were in flight"
    if lag_p99 > MAX_LAG_P99_MS:
        return (
            f"the generator could not keep its schedule: 1 % of the requests started more than {lag_p99:.0f} ms late, "
            f"at most {MAX_LAG_P99_MS:.0f} ms are allowed; free the machine or lower the rate"
        )
    return ""


def _percentiles(latencies: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> tuple[Percentile, ...]:
    found = (percentile(latencies, level) for level in LEVELS)
    return tuple(p for p in found if p is not None)


def _errors(recording: Recording, counted: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> tuple[ErrorKind, ...]:
    counts = np.bincount(recording.kind[counted], minlength=len(recording.kinds))
    found = [
        ErrorKind(kind=kind, count=int(counts[i]), example=recording.examples[i])
        for i, kind in enumerate(recording.kinds)
        if i and counts[i]
    ]
    return tuple(sorted(found, key=lambda error: -error.count)[:MAX_KINDS])


def _series(recording: Recording, plan: LoadPlan, measured_s: float) -> tuple[Second, ...]:
    """Second by second. An arrival belongs to the second in which it was due; `completed` to that in which it ended."""
    edges = np.arange(int(np.ceil(plan.warm_up_s + measured_s)) + 1)
    ended = recording.scheduled_s + recording.latency_ms / 1000.0
    due_before = np.searchsorted(recording.scheduled_s, edges)
    ended_before = np.searchsorted(np.sort(ended), edges)
    answered_before = np.searchsorted(np.sort(ended[recording.ok]), edges)
    seconds = []
    for at in edges[:-1]:
        mine = slice(due_before[at], due_before[at + 1])
        ok = recording.ok[mine]
        answers = recording.latency_ms[mine][ok]
        p50, p99 = np.percentile(answers, [50, 99]) if len(answers) else (None, None)
        seconds.append(
            Second(
                at_s=int(at),
                warm_up=bool(at + 1 <= plan.warm_up_s),
                offered=len(ok),
                completed=int(answered_before[at + 1] - answered_before[at]),
                errors=int(np.count_nonzero(~ok)),
                in_flight=int(due_before[at + 1] - ended_before[at + 1]),
                p50_ms=None if p50 is None else round(float(p50), 3),
                p99_ms=None if p99 is None else round(float(p99), 3),
            )
        )
    return tuple(seconds)
