from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.loadtest.arrivals import schedule
from ekiben.loadtest.recorder import DROPPED, OTHER, UNFINISHED, Collector, Recording, Writer
from ekiben.loadtest.summary import summarise
from ekiben.types import LoadPlan, LoadReport
from tests.fakes.recording import Recorder

PLAN = LoadPlan(rate=50, warm_up_s=1, measure_s=4, seed=5)
DUE = schedule(PLAN)
KINDS = ["", "", "", "", "status 503", "time-out", "wrong answer"]


def _report(recording: Recording, plan: LoadPlan = PLAN) -> LoadReport:
    started = datetime(2026, 1, 2, tzinfo=UTC)
    return summarise(recording, plan, url="http://x", endpoint="POST /predict", started=started, subject=None)


def _run(worker: list[int], chunk_of: list[int], seed: int, *, closed: bool = False) -> Recording:
    """What is recorded when each arrival is offered by that worker, and told in that one of its chunks; what happens
    to each depends on the seed alone."""
    rng = np.random.default_rng(seed)
    latency, kind = rng.exponential(20, len(DUE)), rng.integers(0, len(KINDS), len(DUE))
    mine = [[n for n, w in enumerate(worker) if w == k] for k in range(max(worker) + 1)]
    collector = Collector(None if closed else [DUE[numbers] for numbers in mine], workers=len(mine))
    for k, numbers in enumerate(mine):
        writer = Writer()
        for chunk in range(3):
            for place, number in reversed([*enumerate(numbers)]):  # answers come in any order
                if chunk_of[number] == chunk:
                    name = KINDS[kind[number]]
                    writer.record(
                        place,
                        float(DUE[number]),
                        lag_ms=1.0,
                        latency_ms=float(latency[number]),
                        kind=name,
                        example=name and "an example",
                        endpoint=f"POST /{number % 3}",
                    )
            collector.take(writer.chunk(), k)
    return collector.recording()


def _facts(recording: Recording) -> list[tuple[float, float, float, str, str]]:
    return [
        (float(at), float(lag), float(latency), recording.kinds[kind], recording.endpoints[endpoint])
        for at, lag, latency, kind, endpoint in zip(
            recording.scheduled_s,
            recording.lag_ms,
            recording.latency_ms,
            recording.kind,
            recording.endpoint,
            strict=True,
        )
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1000),
    st.lists(st.integers(0, 3), min_size=len(DUE), max_size=len(DUE)),
    st.lists(st.integers(0, 2), min_size=len(DUE), max_size=len(DUE)),
)
def test_it_makes_no_difference_which_worker_did_what_and_when_it_told(
    seed: int, worker: list[int], chunk_of: list[int]
) -> None:
    whole = _run([0] * len(DUE), [0] * len(DUE), seed)
    for closed in (False, True):
        parts = _run(worker, chunk_of, seed, closed=closed)
        assert _facts(parts) == _facts(whole)
        assert parts.until(2.0).scheduled_s.tolist() == DUE[DUE < 2.0].tolist()
    assert sorted(error.count for error in _report(parts).errors) == sorted(e.count for e in _report(whole).errors)
    assert _report(parts).percentiles == _report(whole).percentiles


def test_what_a_lost_worker_did_not_tell_is_unfinished() -> None:
    collector = Collector([DUE[::2], DUE[1::2]])
    writer = Writer()
    for place, at in enumerate(DUE[::2]):
        writer.record(place, float(at), lag_ms=0, latency_ms=1, kind="", example="", endpoint="POST /predict")
    collector.take(writer.chunk(), 0)
    recording = collector.recording()
    assert recording.is_kind(UNFINISHED).tolist() == [number % 2 == 1 for number in range(len(DUE))]
    assert not _report(recording).valid


def test_kinds_without_end_become_one() -> None:
    writer, collector = Writer(), Collector([np.arange(3000.0)])
    for number in range(3000):
        kind = f"kind {number}"
        writer.record(number, float(number), lag_ms=0, latency_ms=1, kind=kind, example="x" * 10**6, endpoint="")
    collector.take(writer.chunk())
    recording = collector.recording()
    assert len(recording.kinds) <= 1003 and not recording.ok.any() and recording.kinds[-1] == OTHER
    assert int(recording.is_kind(OTHER).sum()) == 3000 - 999 and max(map(len, recording.examples)) <= 300


def _all(kind: str = "", latency_ms: float = 5.0, lag_ms: float = 0.5) -> Recorder:
    recorder = Recorder(DUE)
    for number in range(len(DUE)):
        recorder.record(number, lag_ms=lag_ms, latency_ms=latency_ms, kind=kind, example="as seen")
    return recorder


def test_the_warm_up_is_left_out_of_all_figures_but_the_series() -> None:
    recorder = _all()
    for number in np.flatnonzero(DUE < 1):
        recorder.record(int(number), lag_ms=400.0, latency_ms=4000.0, kind="status 500", example="cold")
    report = _report(recorder.recording())
    assert report.valid and report.failed == 0 and not report.errors and report.lag_max_ms == 0.5
    assert report.requests == int((DUE >= 1).sum())
    assert report.series[0].warm_up and report.series[0].errors == report.series[0].offered
    assert [second.warm_up for second in report.series] == [True, False, False, False, False]


def test_what_was_dropped_or_not_finished_makes_a_run_invalid() -> None:
    recorder = _all()
    recorder.record(100, lag_ms=0, latency_ms=0, kind=DROPPED)
    report = _report(recorder.recording())
    assert not report.valid and "1 requests were not sent" in report.reason
    unfinished = _report(Recorder(DUE).recording())
    assert not unfinished.valid and "ended early" in unfinished.reason


def test_a_generator_that_is_late_makes_a_run_invalid() -> None:
    report = _report(_all(lag_ms=80.0, latency_ms=90.0).recording())
    assert not report.valid and "could not keep its schedule" in report.reason


def test_an_empty_window_is_invalid() -> None:
    plan = LoadPlan(rate=0.5, warm_up_s=1, measure_s=0.1, arrivals="constant")
    assert not _report(Recorder(schedule(plan)).recording(), plan).valid


def test_achieved_counts_what_came_before_the_end() -> None:
    report = _report(_all(latency_ms=1000.0).recording())
    in_time = int(((DUE >= 1) & (DUE <= 4)).sum())
    assert report.achieved_rate == in_time / 4 and report.failed == 0
    assert report.achieved is not None and report.achieved.value == in_time / report.requests
    middle = report.series[2]
    assert middle.in_flight == int(((DUE >= 2) & (DUE < 3)).sum()) and middle.p50_ms == 1000


def test_errors_by_kind_keep_one_example() -> None:
    recorder = _all()
    numbers = [int(n) for n in np.flatnonzero(DUE >= 1)]
    for number in numbers[:3]:
        recorder.record(number, lag_ms=0, latency_ms=1, kind="status 503", example=f"answer {number} " + "x" * 1000)
    recorder.record(numbers[9], lag_ms=0, latency_ms=1, kind="time-out", example="late")
    report = _report(recorder.recording())
    assert [(e.kind, e.count) for e in report.errors] == [("status 503", 3), ("time-out", 1)]
    assert report.errors[0].example.startswith(f"answer {numbers[0]}") and len(report.errors[0].example) <= 300
    assert LoadReport.model_validate_json(report.model_dump_json()) == report
