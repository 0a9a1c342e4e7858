import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ekiben.loadtest.arrivals import measured, schedule
from ekiben.types import LoadPlan

plans = st.builds(
    LoadPlan,
    rate=st.floats(0.5, 500),
    arrivals=st.sampled_from(["poisson", "constant"]),
    warm_up_s=st.floats(0, 5),
    measure_s=st.floats(0.1, 20),
    seed=st.integers(0, 2**32),
)


@given(plans)
def test_a_schedule_is_ascending_within_the_run_and_the_same_each_time(plan: LoadPlan) -> None:
    times = schedule(plan)
    assert np.all(np.diff(times) >= 0)
    assert not len(times) or (times[0] >= 0 and times[-1] < plan.warm_up_s + plan.measure_s)
    assert np.array_equal(times, schedule(plan))


def test_constant_arrivals_are_even() -> None:
    times = schedule(LoadPlan(rate=50, arrivals="constant", warm_up_s=1, measure_s=3))
    assert len(times) == 200
    assert np.allclose(np.diff(times), 0.02)


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(schedule(LoadPlan(rate=200, measure_s=200, warm_up_s=0, seed=3)))
    assert abs(gaps.mean() - 0.005) < 0.0001
    assert abs(gaps.std() / gaps.mean() - 1) < 0.03  # an even schedule has 0, a bursty one more
    assert abs(np.mean(gaps > 0.010) - np.exp(-2)) < 0.01


def test_another_seed_offers_another_load() -> None:
    one, two = (schedule(LoadPlan(seed=seed)) for seed in (1, 2))
    assert not np.array_equal(one[:100], two[:100])


def test_the_warm_up_is_not_measured() -> None:
    plan = LoadPlan(rate=10, arrivals="constant", warm_up_s=2, measure_s=3)
    assert int(measured(plan, schedule(plan)).sum()) == 30
