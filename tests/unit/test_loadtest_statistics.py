import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ekiben.loadtest.statistics import (
    clopper_pearson,
    inflation,
    min_samples_percentile,
    min_samples_proportion,
    percentile,
    proportion,
)

latencies = st.lists(st.one_of(st.floats(0, 5000, width=32), st.just(float("inf"))), min_size=80, max_size=600).map(
    lambda values: np.array(values, np.float32)
)


@given(latencies)
def test_bounds_enclose_the_percentile_and_percentiles_ascend(sample: NDArray[np.float32]) -> None:
    before = -1.0
    for level in (10.0, 25.0, 50.0, 75.0, 90.0, 95.0):
        found = percentile(sample, level)
        if found is None:
            continue
        value, low, high = (float("inf") if v is None else v for v in (found.ms, found.lower_ms, found.upper_ms))
        assert 0 <= low <= value <= high
        assert value >= before
        assert 1 <= found.effective_samples <= len(sample)
        before = value


@given(st.lists(st.booleans(), min_size=1, max_size=500))
def test_the_bounds_of_a_share_enclose_it(flags: list[bool]) -> None:
    found = proportion(np.array(flags))
    assert 0 <= found.lower <= found.value + 1e-12 and found.value <= found.upper + 1e-12 <= 1 + 1e-12


@given(st.floats(0, 1), st.integers(1, 5000))
def test_more_of_the_same_narrows_the_bounds(share: float, n: int) -> None:
    few, many = clopper_pearson(share * n, n), clopper_pearson(share * n * 4, n * 4)
    assert many.upper - many.lower <= few.upper - few.lower + 1e-9


def test_known_values() -> None:
    # R: binom.test(5, 100)$conf.int; and the rule that 0 of n proves 1 - 0.025^(1/n)
    found = clopper_pearson(5, 100)
    assert (round(found.lower, 5), round(found.upper, 5)) == (0.01643, 0.11283)
    assert clopper_pearson(0, 2000).upper == pytest.approx(1 - 0.025 ** (1 / 2000))


def test_errors_never_make_a_percentile_better() -> None:
    rng = np.random.default_rng(0)
    sample = rng.exponential(10, 2000).astype(np.float32)
    before = percentile(sample, 99.0)
    sample[rng.choice(2000, 15, replace=False)] = np.inf  # 0.75 %
    after = percentile(sample, 99.0)
    assert before and after and before.ms and after.ms and after.ms > before.ms
    sample[:30] = np.inf
    ruined = percentile(sample, 99.0)
    assert ruined is not None and ruined.ms is None and ruined.upper_ms is None


def test_too_few_samples_give_no_percentile() -> None:
    fewest = min_samples_percentile(99.0)
    sample = np.arange(fewest, dtype=np.float32)
    assert percentile(sample[:-1], 99.0) is None
    assert percentile(sample, 99.0) is not None
    assert min_samples_proportion(0.001) == 3688


def test_inflation_sees_neighbours_that_are_alike() -> None:
    rng = np.random.default_rng(1)
    independent = rng.random(4000) < 0.05
    in_bursts = np.repeat(rng.random(200) < 0.05, 20)
    assert inflation(independent) < 2
    assert inflation(in_bursts) > 8
    assert inflation(np.zeros(100, np.bool_)) == 1


def test_a_lone_stall_below_the_limit_still_has_an_upper_bound() -> None:
    sample = np.full(2000, 5, np.float32)
    sample[1000:1020] = np.linspace(100, 5, 20)  # one stall of 100 ms: neighbours all alike
    found = percentile(sample, 99.0)
    assert found is not None and found.by_margin and found.upper_ms is not None and 150 < found.upper_ms < 250


def drifting(n: int = 6000) -> NDArray[np.float32]:
    """A machine on which every request takes 2.5 ms for a while and then 5.5, and that stalls once, for 130 ms."""
    pace = 4 + 1.5 * np.sin(np.arange(n) / n * 9)
    sample = pace * (1 + np.random.default_rng(1).exponential(0.15, n))
    sample[n // 2 : n // 2 + 13] = np.linspace(130, 20, 13)
    return sample.astype(np.float32)


def test_what_goes_up_and_down_far_below_a_limit_says_nothing_of_it() -> None:
    found = percentile(drifting(), 99.0)
    assert found is not None and found.upper_ms is not None and 130 < found.upper_ms < 200
    assert found.effective_samples > 100


def test_what_goes_up_and_down_near_a_limit_counts() -> None:
    sample = drifting()
    sample[sample > 10] = 5
    found = percentile(sample, 99.0)
    assert found is not None and found.ms is not None and found.upper_ms is not None
    assert found.by_margin and found.effective_samples < 20 and found.upper_ms > 5 * found.ms
