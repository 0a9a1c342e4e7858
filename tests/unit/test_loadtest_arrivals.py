from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.arrivals import measured, read_trace, schedule, shard
from ekiben.types import LoadPlan

profiles = st.lists(st.tuples(st.floats(0, 12), st.floats(0, 400)), max_size=5).map(
    lambda knots: tuple(sorted(knots, key=lambda knot: knot[0])) if any(rate > 0.1 for _, rate in knots) else ()
)
plans = st.builds(
    LoadPlan,
    rate=st.floats(0.5, 500),
    arrivals=st.sampled_from(["poisson", "constant"]),
    profile=profiles,
    warm_up_s=st.floats(0, 5),
    measure_s=st.floats(0.1, 20),
    seed=st.integers(0, 2**32),
    processes=st.integers(1, 5),
)


def expected(plan: LoadPlan, until: float) -> float:
    """How many arrivals are expected until then, by summing small steps."""
    knots = [(plan.warm_up_s + at, rate) for at, rate in plan.profile] or [(0.0, plan.rate)]
    edges = np.unique([0.0, until, *(min(at, until) for at, _ in knots), *np.linspace(0, until, 2001)])
    middles = (edges[1:] + edges[:-1]) / 2  # no knot is in the middle of a step, so each is a trapezoid
    times, rates = (np.array(values) for values in zip(*knots, strict=True))
    return float(np.sum(np.interp(middles, times, rates) * np.diff(edges)))


@given(plans)
def test_a_schedule_is_ascending_within_the_run_and_the_same_each_time(plan: LoadPlan) -> None:
    times = schedule(plan)
    assert np.all(np.diff(times) >= 0)
    assert not len(times) or (times[0] >= 0 and times[-1] < plan.warm_up_s + plan.measure_s)
    assert np.array_equal(times, schedule(plan))


@given(plans, st.floats(1, 4))
def test_a_longer_run_begins_as_a_shorter_one(plan: LoadPlan, factor: float) -> None:
    times, longer = schedule(plan), schedule(plan, plan.measure_s * factor)
    assert np.array_equal(times, longer[longer < plan.warm_up_s + plan.measure_s])


@given(plans)
def test_the_shards_of_all_processes_are_the_whole(plan: LoadPlan) -> None:
    parts = [shard(plan, worker) for worker in range(plan.processes)]
    assert np.array_equal(np.sort(np.concatenate(parts)), schedule(plan))
    if plan.arrivals == "constant":  # the very same arrivals, dealt out in turn
        alone = schedule(plan.model_copy(update={"processes": 1}))
        assert np.array_equal(schedule(plan), alone)
        assert all(np.array_equal(part, alone[k :: plan.processes]) for k, part in enumerate(parts))


@settings(deadline=None)
@given(plans)
def test_the_rate_is_that_of_the_profile_at_any_time(plan: LoadPlan) -> None:
    times, end = schedule(plan), plan.warm_up_s + plan.measure_s
    for until in (plan.warm_up_s, end / 3, end):
        if until == 0:
            continue
        wanted, count = expected(plan, until), int(np.searchsorted(times, until))
        if plan.arrivals == "constant":
            assert abs(count - wanted) <= 1.001 + 0.001 * wanted
        else:  # six standard deviations
            assert abs(count - wanted) <= 6 * np.sqrt(wanted) + 6


def test_constant_arrivals_are_even() -> None:
    times = schedule(LoadPlan(rate=50, arrivals="constant", warm_up_s=1, measure_s=3))
    assert len(times) == 200
    assert np.allclose(np.diff(times), 0.02)


def test_a_ramp_and_a_step() -> None:
    ramp = LoadPlan(arrivals="constant", profile=((0, 0), (10, 100)), warm_up_s=0, measure_s=20)
    times = schedule(ramp)
    assert np.allclose(times[:500], np.sqrt(np.arange(500) / 5))  # 100/s after 10 s: 5 t² so far
    assert np.allclose(np.diff(times[501:]), 0.01)
    step = LoadPlan(arrivals="constant", profile=((0, 10), (2, 10), (2, 100)), warm_up_s=1, measure_s=4)
    counts = np.bincount(schedule(step).astype(int))
    assert counts.tolist() == [10, 10, 10, 100, 100]


@pytest.mark.parametrize("processes", [1, 4])
def test_poisson_gaps_are_exponential(processes: int) -> None:
    gaps = np.diff(schedule(LoadPlan(rate=200, measure_s=200, warm_up_s=0, seed=3, processes=processes)))
    assert abs(gaps.mean() - 0.005) < 0.0001
    assert abs(gaps.std() / gaps.mean() - 1) < 0.03  # an even schedule has 0, a bursty one more
    assert abs(np.mean(gaps > 0.010) - np.exp(-2)) < 0.01


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_processes_and_seeds_are_independent(seed: int) -> None:
    plan = LoadPlan(rate=200, processes=2, seed=seed)
    one, two, other = shard(plan, 0), shard(plan, 1), shard(plan.model_copy(update={"seed": seed + 1}), 0)
    assert len(np.intersect1d(one, two)) == 0 and len(np.intersect1d(one, other)) == 0


def test_the_warm_up_is_not_measured() -> None:
    plan = LoadPlan(rate=10, arrivals="constant", warm_up_s=2, measure_s=3)
    assert int(measured(plan, schedule(plan)).sum()) == 30


def test_a_closed_loop_has_no_schedule() -> None:
    assert len(schedule(LoadPlan(arrivals="closed", users=5, processes=2))) == 0


@given(st.lists(st.floats(0, 50), min_size=1, max_size=60), st.integers(1, 4))
def test_a_trace_is_offered_as_recorded(tmp_path_factory: pytest.TempPathFactory, at: list[float], n: int) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.txt"
    recorded = np.sort(at) + 1_700_000_000  # seconds since the epoch are as good as any
    path.write_text("".join(f"{time:.3f}\n" for time in recorded))
    plan = LoadPlan(trace=str(path), warm_up_s=5, measure_s=20, processes=n)
    wanted = np.round(recorded, 3) - round(recorded[0], 3)
    assert np.allclose(schedule(plan), wanted[wanted < 25], atol=1e-6)
    parts = [shard(plan, k, trace=read_trace(path)) for k in range(n)]
    assert np.array_equal(np.sort(np.concatenate(parts)), schedule(plan))


@pytest.mark.parametrize("text", ["", "a\n", "1\n0.5\n", "1 2\n3 4\n", "nan\n", "1\ninf\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"trace\.txt"):
        read_trace(path)
    with pytest.raises(NotFoundError):
        read_trace(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    "fields",
    [
        {"profile": ((0, 10),), "trace": "x"},
        {"profile": ((0, 10),), "arrivals": "closed"},
        {"profile": ((5, 10), (0, 20))},
        {"profile": ((0, 0), (5, 0))},
        {"profile": ((0, -1),)},
        {"profile": ((0, float("nan")),)},
        {"profile": ((float("nan"), 1),)},
    ],
)
def test_what_is_no_plan_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoadPlan.model_validate(fields)
