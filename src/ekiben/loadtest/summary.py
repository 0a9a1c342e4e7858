"""From what happened to each arrival to the load report. Pure.

Ten million requests take a few seconds and, beside the recording, 100 MB: a million are looked at at once.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekiben.loadtest.course import series, windows
from ekiben.loadtest.measures import measure, right_answers
from ekiben.loadtest.recorder import DROPPED, UNFINISHED, Recording
from ekiben.types import BentoRef, EndpointReport, ErrorKind, ImageRef, LoadPlan, LoadReport

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
    subject: BentoRef | ImageRef | None,
    measured_s: float | None = None,
    stopped: str = "",
) -> LoadReport:
    """The whole report of a run that was measured for `measured_s` (None: as planned), extended or aborted.

    What was due later is left out. What was due until then and has no end makes the run INVALID.
    """
    lasted = plan.measure_s if measured_s is None else measured_s
    due = recording.until(plan.warm_up_s + lasted)
    return figures(due, plan, lasted).model_copy(
        update={
            "subject": subject,
            "url": url,
            "endpoint": endpoint,
            "started": started,
            "stopped": stopped,
            "series": series(due, plan, lasted),
            "windows": windows(due, plan, lasted),
        }
    )


def figures(recording: Recording, plan: LoadPlan, measured_s: float) -> LoadReport:
    """What a run is judged by, without its course: no series, no windows, and nothing about where it ran."""
    due = recording.until(plan.warm_up_s + measured_s)
    counted = slice(int(np.searchsorted(due.scheduled_s, plan.warm_up_s)), None)
    report = LoadReport(
        validity="INVALID",
        reason="no request was due in the measured time",
        url="",
        endpoint=due.endpoints[0] if len(due.endpoints) == 1 else "",
        started=datetime.fromtimestamp(0, UTC),
        settings=plan,
        measured_s=measured_s,
    )
    lag = due.lag_ms[counted]
    if not len(lag):
        return report
    latencies = right_answers(due.latency_ms[counted], due.kind[counted])
    whole = measure(due.scheduled_s[counted], latencies, plan.warm_up_s + measured_s, measured_s, LEVELS)
    dropped, unfinished = (int(np.count_nonzero(due.is_kind(kind))) for kind in (DROPPED, UNFINISHED))
    lag_p99 = float(np.percentile(lag, 99))
    reason = _invalid(dropped, unfinished, lag_p99, plan)
    update: dict[str, Any] = {
        **whole,
        "validity": "INVALID" if reason else "VALID",
        "reason": reason,
        "dropped": dropped,
        "offered_rate": len(lag) / measured_s,
        "lag_p99_ms": round(lag_p99, 3),
        "lag_max_ms": round(float(lag.max()), 3),
        "errors": _errors(due, due.kind[counted]),
        "endpoints": _endpoints(due, counted, latencies, plan.warm_up_s + measured_s, measured_s),
    }
    return report.model_copy(update=update)


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


def _endpoints(
    due: Recording, counted: slice, latencies: NDArray[np.float32], end_s: float, seconds: float
) -> tuple[EndpointReport, ...]:
    if len(due.endpoints) < 2:
        return ()
    index, at = due.endpoint[counted], due.scheduled_s[counted]
    found = []
    for number, name in enumerate(due.endpoints):
        mine = np.equal(index, number)
        if mine.any():
            found.append(EndpointReport(endpoint=name, **measure(at[mine], latencies[mine], end_s, seconds, LEVELS)))
    return tuple(sorted(found, key=lambda report: report.endpoint))


def _errors(recording: Recording, kinds: NDArray[np.uint16]) -> tuple[ErrorKind, ...]:
    counts = np.bincount(kinds, minlength=len(recording.kinds))
    found = [
        ErrorKind(kind=kind, count=int(counts[i]), example=recording.examples[i])
        for i, kind in enumerate(recording.kinds)
        if i and counts[i]
    ]
    return tuple(sorted(found, key=lambda error: (-error.count, error.kind))[:MAX_KINDS])
