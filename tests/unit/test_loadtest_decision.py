"""When a run may end, and when it is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.verdicts import BAD, NEAR, PLAINLY, Case, queue
from ekiben.loadtest.arrivals import schedule
from ekiben.loadtest.decision import checkpoints, conclusion, hopeless, settled
from ekiben.loadtest.judging import judge
from ekiben.loadtest.recorder import Recording
from ekiben.loadtest.slo import Slo
from ekiben.loadtest.summary import figures
from ekiben.types import LoadPlan, Outcome

PLAN = LoadPlan(rate=100, warm_up_s=1, measure_s=8, extend_to_s=12, seed=3)
due_s = schedule(PLAN, PLAN.longest_s)
KINDS = ("", "unfinished", "status 503", "dropped")
UNFINISHED, FAILED, DROPPED = 1, 2, 3
ENDPOINTS = ("POST /predict", "POST /other")


def recording(
    latency_ms: NDArray[np.float64] | float, kind: NDArray[np.int64] | int = 0, endpoint: NDArray[np.int64] | int = 0
) -> Recording:
    n = len(due_s)
    return Recording(
        scheduled_s=due_s,
        lag_ms=np.zeros(n, np.float32),
        latency_ms=np.broadcast_to(latency_ms, n).astype(np.float32),
        kind=np.broadcast_to(kind, n).astype(np.uint16),
        kinds=KINDS,
        examples=("",) * len(KINDS),
        endpoint=np.broadcast_to(endpoint, n).astype(np.uint16),
        endpoints=ENDPOINTS,
    )


@given(st.floats(0.1, 80_000), st.floats(0, 86_400))
def test_looks_ascend_from_the_planned_time_to_the_budget_and_are_few(measure_s: float, extend_to_s: float) -> None:
    plan = LoadPlan(measure_s=measure_s, extend_to_s=extend_to_s)
    looks = checkpoints(plan)
    assert looks[0] == measure_s and looks[-1] == plan.longest_s == max(measure_s, extend_to_s)
    assert list(looks) == sorted(set(looks)) and len(looks) <= 2 + np.log2(plan.longest_s / measure_s)


def test_a_run_settles_when_all_that_was_due_has_ended() -> None:
    slo = Slo.of(["p95=50ms"])
    kind = np.where(due_s >= PLAN.warm_up_s + PLAN.measure_s, UNFINISHED, 0)
    assert settled(recording(5.0, kind), PLAN, slo, 8) == "PASS after 8 s"
    assert settled(recording(500.0, kind), PLAN, slo, 8) == "FAIL after 8 s"
    kind[np.searchsorted(due_s, 8.9)] = UNFINISHED
    assert settled(recording(5.0, kind), PLAN, slo, 8) == ""
    assert settled(recording(5.0), PLAN, slo, 12) == "PASS after 12 s: 8 s were too few to tell"


def test_what_is_not_known_or_not_valid_does_not_settle() -> None:
    random = np.random.default_rng(1)
    near = recording(random.exponential(50 / np.log(20), len(due_s)))  # a p95 of 50 ms
    assert settled(near, PLAN, Slo.of(["p95=50ms"]), 8) == ""
    kind = np.zeros(len(due_s), np.int64)
    kind[400] = DROPPED
    assert settled(recording(5.0, kind), PLAN, Slo.of(["p95=50ms"]), 8) == ""


def test_a_comparison_with_live_is_not_waited_for() -> None:
    slo = Slo.of(["p95=50ms", "p95_vs_live=10% and 5ms"])
    assert judge(figures(recording(5.0), PLAN, 8), slo).outcome is Outcome.INCONCLUSIVE
    assert settled(recording(5.0), PLAN, slo, 8) == "PASS after 8 s"


@pytest.mark.parametrize("objective", ["p95=100ms", "p99=100ms", "error_rate=0.5%", "achieved_rate=95%"])
def test_a_service_that_is_dead_is_hopeless_before_its_time_is_over(objective: str) -> None:
    slo = Slo.of([objective])
    dead = recording(5.0, FAILED)
    lost = next(at for at in range(1, 14) if hopeless(dead, PLAN, slo, at))
    assert lost < PLAN.warm_up_s + 0.75 * PLAN.measure_s
    phrase = hopeless(dead, PLAN, slo, lost)
    assert phrase.startswith(f"FAIL is certain after {lost - 1} s") and f"of at most {(due_s >= 1).sum():,}" in phrase
    assert hopeless(recording(5.0), PLAN, slo, 12) == ""


def test_it_gives_up_neither_an_invalid_run_nor_a_closed_loop() -> None:
    slo = Slo.of(["p99=100ms"])
    kind = np.full(len(due_s), FAILED)
    assert hopeless(recording(5.0, kind), PLAN, slo, 9)
    kind[5] = DROPPED
    assert not hopeless(recording(5.0, kind), PLAN, slo, 9)
    assert not hopeless(recording(5.0, FAILED), PLAN.model_copy(update={"arrivals": "closed"}), slo, 9)


stretches = st.lists(
    st.tuples(st.integers(1, 400), st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0])), min_size=1, max_size=12
)
objectives = st.sampled_from(
    [("p95", 100.0), ("p99", 100.0), ("error_rate", 0.005), ("error_rate", 0.1), ("achieved_rate", 0.6)]
)


def _bad(pattern: list[tuple[int, float]], random: np.random.Generator) -> NDArray[np.bool_]:
    """Which arrivals fail: stretches of them, each with its share, over and over."""
    shares = np.concatenate([np.full(length, share) for length, share in pattern])
    return random.random(len(due_s)) < np.resize(shares, len(due_s))


@settings(max_examples=300, deadline=None)
@given(stretches, stretches, objectives, st.integers(2, 12), st.booleans(), st.integers(0, 2**32 - 1))
def test_it_is_never_hopeless_when_some_end_would_not_fail(
    before: list[tuple[int, float]],
    after: list[tuple[int, float]],
    objective: tuple[str, float],
    at_s: int,
    one_endpoint: bool,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    slow, wrong = np.where(random.random(len(due_s)) < 0.5, 150.0, 5.0), _bad(before, random)
    endpoint = random.integers(0, 2, len(due_s))
    slo = Slo(objectives=dict([objective]))
    if one_endpoint:
        slo = Slo(endpoints={ENDPOINTS[0]: slo.objectives})
    ended = (due_s < at_s) & ((due_s < at_s - 1) | (random.random(len(due_s)) < 0.5))
    so_far = recording(slow, np.where(ended, wrong * FAILED, UNFINISHED), np.where(ended, endpoint, 0))
    if not hopeless(so_far, PLAN, slo, at_s):
        return
    wrong = np.where(ended, wrong, _bad(after, random))
    slow = np.where(ended, slow, np.where(random.random(len(due_s)) < 0.5, 5.0, 0.5))
    endpoint = np.where(ended, endpoint, random.random(len(due_s)) < 0.2)
    whole = recording(slow, wrong * FAILED, endpoint)
    # At whichever look it would have ended, and as it is reported when it is given up now.
    for measured_s in {*checkpoints(PLAN), at_s - PLAN.warm_up_s}:
        if measured_s + PLAN.warm_up_s >= at_s:
            assert conclusion(figures(whole, PLAN, measured_s), slo) is Outcome.FAIL


def test_an_endpoint_may_still_get_all_requests_to_come() -> None:
    slo = Slo(endpoints={ENDPOINTS[0]: {"p95": 100.0}})
    ended = due_s < 6
    endpoint = np.where(ended, np.arange(len(due_s)) % 2, 0)
    kind = np.where(ended & (endpoint == 0), FAILED, 0)
    so_far = recording(5.0, np.where(ended, kind, UNFINISHED), endpoint)
    assert hopeless(so_far, PLAN, slo, 6) == ""
    assert conclusion(figures(recording(5.0, kind, endpoint), PLAN, 12), slo) is not Outcome.FAIL
    assert hopeless(recording(5.0, np.where(endpoint == 0, FAILED, 0), np.arange(len(due_s)) % 2), PLAN, slo, 10)


def test_a_queue_at_its_limit_is_seldom_judged_wrong_a_sample() -> None:
    """The table of benchmarks/verdicts.py is the real thing."""
    tallies, closed = queue("exponential", 0.8, runs=60)
    bad, near, plainly = (tallies[Case("p99", factor)] for factor in (BAD, NEAR, PLAINLY))
    assert bad.share("ours", Outcome.PASS) <= 0.05 and near.share("ours", Outcome.FAIL) <= 0.05
    assert plainly.share("ours", Outcome.PASS) >= 0.75
    assert bad.share("naive", Outcome.PASS) > 0.2 and closed[Case("p99", BAD)] > 0.9
