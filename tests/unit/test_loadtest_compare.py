"""Comparisons of two targets, simulated: equal ones under drift must not alarm. `make soak` runs many."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.loadtest.compare import BLOCK_S, FIGURES, Blocks, compare, settings_hash
from ekiben.types import Comparison, LoadPlan
from tests.fakes.queues import latencies, service_times
from tests.fakes.recording import Recorder

Drift = Callable[[np.ndarray, np.random.Generator], np.ndarray]

DRIFTS: dict[str, Drift] = {  # logarithm of how much slower everything is, over time
    "none": lambda t, random: np.zeros_like(t),
    "linear": lambda t, random: np.log(2) * t / t[-1],
    "slow wave": lambda t, random: 0.3 * np.sin(2 * np.pi * (t / random.uniform(7, 40) + random.random())),
    "fast wave": lambda t, random: 0.3 * np.sin(2 * np.pi * (t / random.uniform(3, 12) + random.random())),
    "walk": lambda t, random: np.interp(t, np.arange(400), np.cumsum(random.normal(0, 0.06, 400))),
    "steps": lambda t, random: random.normal(0, 0.25, 400)[(t / 8).astype(int)],
}


def simulate(
    drift: str, seed: int, slower: float = 1.0, kind: str = "exponential", pairs: int = 12, fail_b: float = 0.0
) -> Comparison:
    """A comparison at 100/s of two servers that serve 250/s, B's service times being `slower` times A's."""
    random = np.random.default_rng(seed)
    plan = LoadPlan(rate=100, warm_up_s=5, measure_s=2 * BLOCK_S * pairs, seed=seed)
    end = plan.warm_up_s + plan.measure_s
    due = np.sort(random.uniform(0, end, random.poisson(plan.rate * end)))
    service = service_times(kind, len(due), random) / 250 * np.exp(DRIFTS[drift](due, random))
    target = Blocks.of(plan).target(due)
    recorder = Recorder(due)
    for which, factor in ((0, 1.0), (1, slower)):
        mine = np.flatnonzero(target == which)
        for number, ms in zip(mine, latencies(due[mine], service[mine] * factor) * 1000, strict=True):
            failed = which == 1 and random.random() < fail_b
            recorder.record(int(number), lag_ms=0, latency_ms=float(ms), kind="status 503" if failed else "")
    return compare(recorder.recording(), plan, "a", "b", "0")


def alarms(drifts: list[str], kinds: list[str], seeds: int) -> dict[str, float]:
    """Share of alarms among comparisons of equals, and of intervals that hold the truth, over all drifts and kinds."""
    found = [simulate(d, seed, kind=kind) for d in drifts for kind in kinds for seed in range(seeds)]
    held = [d.ratio_lower <= 1 <= d.ratio_upper for each in found for d in each.differences]
    return {"alarms": float(np.mean([each.outcome != "no difference shown" for each in found])),
            "held": float(np.mean(held))}  # fmt: skip


def test_equals_seldom_alarm_a_sample() -> None:
    seen = alarms(["linear", "fast wave"], ["exponential"], seeds=60)
    assert seen["alarms"] <= 0.1 and seen["held"] >= 0.9


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("drift", DRIFTS)
def test_equals_alarm_in_at_most_5_percent(drift: str) -> None:
    seen = alarms([drift], ["exponential", "log-normal"], seeds=600)
    print(drift, seen)  # noqa: T201
    assert seen["alarms"] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1200) and seen["held"] >= 0.93


def test_a_slower_and_a_faster_one_are_told() -> None:
    slower, faster = simulate("linear", 1, slower=1.5), simulate("linear", 1, slower=0.6)
    assert slower.outcome == "slower" and "B is slower than A: mean +" in slower.seen
    assert faster.outcome == "faster"
    p95 = slower.difference("p95")
    assert p95 and p95.significant and p95.ratio > 1.3 and 0 < p95.ms_lower < p95.ms < p95.ms_upper
    assert [d.name for d in slower.differences] == list(FIGURES)


def test_failures_count_as_slow_and_are_counted() -> None:
    found = simulate("none", 3, fail_b=0.2)
    assert found.failed_a == 0 and 0.15 < found.failed_b / found.requests_b < 0.25
    assert found.outcome == "slower"


def test_too_few_pairs_say_so() -> None:
    found = simulate("none", 1, pairs=5)
    assert found.outcome == "too little data" and not found.differences and "at least 6 pairs" in found.seen


@given(st.integers(0, 2**32), st.integers(1, 60), st.floats(0, 10))
def test_each_pair_has_one_block_of_either_target(seed: int, pairs: int, warm_up: float) -> None:
    blocks = Blocks(warm_up, pairs, seed)
    middles = warm_up + (np.arange(2 * pairs) + 0.5) * BLOCK_S
    assert (blocks.target(middles).reshape(pairs, 2).sum(axis=1) == 1).all()
    one_by_one = [int(blocks.target(np.array([at]))[0]) for at in middles]
    assert one_by_one == blocks.target(middles).tolist(), "each generator process must come to the same"


def test_what_must_be_equal_is_in_the_hash() -> None:
    plan = LoadPlan()
    base = settings_hash(plan, "p", "m")
    assert base == settings_hash(plan.model_copy(update={"processes": 4}), "p", "m")
    others = [(plan.model_copy(update={"rate": 7.0}), "p", "m"), (plan, "q", "m"), (plan, "p", "n")]
    assert base not in {settings_hash(*other) for other in others}
