"""How a run went over time: second by second as it was seen, and in stretches long enough for bounds. Pure."""

import numpy as np

from ekiben.loadtest.measures import measure, right_answers
from ekiben.loadtest.recorder import Recording
from ekiben.types import LoadPlan, Second, Window

WINDOWS = 60
WINDOW_REQUESTS = 400  # enough for a p99
WINDOW_LEVELS = (50.0, 95.0, 99.0)


def series(recording: Recording, plan: LoadPlan, measured_s: float) -> tuple[Second, ...]:
    """Each second of the run, warm-up included. An arrival belongs to the second in which it was due; `completed` to
    that in which it ended."""
    seconds = int(np.ceil(plan.warm_up_s + measured_s))
    due_before = np.searchsorted(recording.scheduled_s, np.arange(seconds + 1))
    slices = [slice(int(due_before[at]), int(due_before[at + 1])) for at in range(seconds)]
    ended, answered = np.zeros(seconds + 1, np.int64), np.zeros(seconds + 1, np.int64)
    for mine in slices:
        when = recording.scheduled_s[mine] + recording.latency_ms[mine] / 1000.0
        at = np.minimum(when, seconds).astype(np.int64)
        np.add.at(ended, at, 1)
        np.add.at(answered, at[recording.kind[mine] == 0], 1)
    in_flight = due_before[1:] - np.cumsum(ended[:seconds])
    found = []
    for at_s, mine in enumerate(slices):
        ok = recording.kind[mine] == 0
        answers = recording.latency_ms[mine][ok]
        p50, p99 = np.percentile(answers, [50, 99]) if len(answers) else (None, None)
        found.append(
            Second(
                at_s=at_s,
                warm_up=at_s + 1 <= plan.warm_up_s,
                offered=len(ok),
                completed=int(answered[at_s]),
                errors=int(np.count_nonzero(~ok)),
                in_flight=int(in_flight[at_s]),
                p50_ms=None if p50 is None else round(float(p50), 3),
                p99_ms=None if p99 is None else round(float(p99), 3),
            )
        )
    return tuple(found)


def windows(recording: Recording, plan: LoadPlan, measured_s: float) -> tuple[Window, ...]:
    """The measured time in at most 60 equal stretches of at least 1 s, each with about 400 requests or more."""
    start, end = np.searchsorted(recording.scheduled_s, [plan.warm_up_s, plan.warm_up_s + measured_s])
    number = max(1, min(WINDOWS, int(measured_s), int(end - start) // WINDOW_REQUESTS))
    seconds = measured_s / number
    edges = plan.warm_up_s + seconds * np.arange(number + 1)
    places = np.searchsorted(recording.scheduled_s, edges)
    found = []
    for at_s, until_s, first, last in zip(edges[:-1], edges[1:], places[:-1], places[1:], strict=True):
        mine = slice(int(first), int(last))
        latencies = right_answers(recording.latency_ms[mine], recording.kind[mine])
        measured = (
            measure(recording.scheduled_s[mine], latencies, float(until_s), seconds, WINDOW_LEVELS)
            if len(latencies)
            else {"requests": 0}
        )
        known = {name: value for name, value in measured.items() if name in Window.model_fields}
        found.append(Window(at_s=round(float(at_s), 3), seconds=round(seconds, 3), **known))
    return tuple(found)
