"""The verdict over what was seen of a colour: what must never pass, what must fail at once, and that noise does not.

It stands on what Kubernetes and BentoML give: counters that a pod's restart sets back, histograms by upper bounds, and
pods that come, go and fall silent.
"""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ekiben.environments import Watch
from ekiben.platforms.kubernetes.look import Look, Tally
from ekiben.rollout.metrics import Counted
from ekiben.rollout.verdict import Window, judge
from ekiben.types import Check, Outcome, Verdict

BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, math.inf)
SETTINGS = Watch(min_requests=100, error_percent=1.0, p99_ms=500)


def counted(buckets: list[int], failed: int = 0, busy_s: float = 0.0) -> Counted:
    """So many requests in each bucket, not cumulated."""
    within = {bound: float(sum(buckets[: n + 1])) for n, bound in enumerate(BOUNDS)}
    return Counted(sum(buckets), min(failed, sum(buckets)), within, busy_s)


def good(n: int = 1000, failed: int = 0, in_progress: float = 1.0) -> Window:
    return Window(counted([n, 0, 0, 0, 0, 0], failed), in_progress)


def outcome(seen: Window, before: Window | None = None, settings: Watch = SETTINGS) -> Outcome:
    return judge(settings, seen, before, "").outcome


def check(verdict: Verdict, name: str) -> Check:
    return next(each for each in verdict.checks if each.name == name)


BUCKETS = st.lists(st.integers(0, 2000), min_size=6, max_size=6)
WINDOWS = st.builds(
    lambda buckets, failed, busy, progress, elapsed, restarts, ready: Window(
        counted(buckets, failed, busy), progress, elapsed, restarts, ready
    ),
    BUCKETS,
    st.integers(0, 300),
    st.floats(0, 100),
    st.floats(0, 50) | st.just(math.nan),
    st.floats(0, 1),
    st.integers(0, 1),
    st.integers(0, 3),
)
BEFORE = st.none() | WINDOWS.filter(lambda window: window.counted.requests >= SETTINGS.min_requests)
WATCHES = st.builds(
    Watch,
    min_requests=st.integers(1, 500),
    error_percent=st.floats(0.1, 100),
    p99_ms=st.floats(1, 2000),
    worse_than_before=st.floats(1, 10),
    close_enough=st.floats(0, 1),
)


@given(WATCHES, WINDOWS, BEFORE, st.integers(1, 1000))
def test_more_failures_never_make_it_better(settings: Watch, seen: Window, before: Window | None, more: int) -> None:
    failed = min(seen.counted.requests, seen.counted.failed + more)
    worse = replace(seen, counted=replace(seen.counted, failed=failed))
    assert rank(outcome(worse, before, settings)) >= rank(outcome(seen, before, settings))


@given(WATCHES, WINDOWS, BEFORE, st.integers(0, 4), st.integers(1, 2000))
def test_slower_answers_never_make_it_better(
    settings: Watch, seen: Window, before: Window | None, bucket: int, more: int
) -> None:
    low = seen.counted.within[BOUNDS[bucket - 1]] if bucket else 0.0
    moved = max(low, seen.counted.within[BOUNDS[bucket]] - more)
    worse = replace(seen, counted=replace(seen.counted, within={**seen.counted.within, BOUNDS[bucket]: moved}))
    assert rank(outcome(worse, before, settings)) >= rank(outcome(seen, before, settings))


@given(WATCHES, WINDOWS, BEFORE, st.floats(0, 100))
def test_more_in_progress_never_makes_it_better(
    settings: Watch, seen: Window, before: Window | None, more: float
) -> None:
    worse = replace(seen, in_progress=seen.in_progress + more)
    assert rank(outcome(worse, before, settings)) >= rank(outcome(seen, before, settings))


@given(WATCHES, WINDOWS, BEFORE)
def test_what_is_missing_never_passes(settings: Watch, seen: Window, before: Window | None) -> None:
    assert outcome(replace(seen, silent={"pod": "no answer"}), before, settings) is not Outcome.PASS
    assert outcome(replace(seen, counted=Counted()), before, settings) is not Outcome.PASS
    for unknown in (math.nan, math.inf):
        for name in ("requests", "failed"):
            assert outcome(replace(seen, counted=replace(seen.counted, **{name: unknown})), before, settings) is not (
                Outcome.PASS
            )
    assert outcome(replace(seen, counted=replace(seen.counted, within={})), before, settings) is not Outcome.PASS
    if seen.counted.requests < settings.min_requests:
        assert outcome(seen, before, settings) is not Outcome.PASS
    if before and math.isfinite(before.in_progress):
        assert outcome(replace(seen, in_progress=math.nan), before, settings) is not Outcome.PASS


@given(WATCHES, WINDOWS, BEFORE)
def test_a_comparison_only_ever_adds_what_is_wanted(settings: Watch, seen: Window, before: Window | None) -> None:
    assert rank(outcome(seen, before, settings)) >= rank(outcome(seen, None, settings))
    assert outcome(replace(seen, probes=1, wrong="wanted 1, got 2"), before, settings) is Outcome.FAIL


@given(WATCHES, WINDOWS, BEFORE, st.integers(0, 500))
def test_an_early_refusal_for_errors_stands_whatever_follows_up_to_min_requests(
    settings: Watch, seen: Window, before: Window | None, good_ones: int
) -> None:
    if check(judge(settings, seen, before, ""), "errors").outcome is Outcome.FAIL:
        n = max(seen.counted.requests, min(seen.counted.requests + good_ones, settings.min_requests))
        later = replace(seen, counted=replace(seen.counted, requests=n))
        assert check(judge(settings, later, before, ""), "errors").outcome is Outcome.FAIL


def rank(seen: Outcome) -> int:
    return [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL].index(seen)


def test_worse_than_before_fails_though_within_the_limits() -> None:
    loose = Watch(min_requests=100, error_percent=20.0, p99_ms=1000)
    before = good(10_000, 10)
    failing = judge(loose, good(10_000, 800), before, "watch of green")
    assert failing.outcome is Outcome.FAIL
    assert "surely ≥ 7.15% failed, wanted ≤ 4.00%: 0.10% of 10,000 failed before" in str(failing)
    slow = Window(counted([0, 0, 0, 1000, 0, 0]), 1.0)
    told = str(judge(loose, slow, before, "watch of green"))
    assert "surely ≥ 98.9% took longer than 500 ms" not in told, "the bound is that of the bucket"
    assert "surely ≥ 98.9% took longer than 100 ms, wanted ≤ 1 %: p99 was 10 ms" in str(
        judge(loose.model_copy(update={"close_enough": 0.1}), slow, before, "")
    )
    stuck = judge(loose, good(in_progress=9.0), before, "")
    assert "9.0 requests in progress a pod, wanted ≤ 4.0: 1.0 before" in str(stuck)
    assert outcome(good(in_progress=9.0), good(in_progress=5.0), loose) is Outcome.PASS


def test_noise_is_not_taken_for_worse() -> None:
    """Two colours that fail alike, 3 % each: at none of the 60 looks of a watch may one be refused beside the other."""
    settings = Watch(min_requests=100, error_percent=5.0, worse_than_before=1.0, close_enough=0.0)
    random, refused = Random(7), 0
    for _ in range(200):
        failed = sum(random.random() < 0.03 for _ in range(2_000))
        before, n, bad = good(2_000, failed), 0, 0
        for _ in range(60):
            n, bad = n + 50, bad + sum(random.random() < 0.03 for _ in range(50))
            beside = check(judge(settings, good(n, bad), before, ""), "errors beside before")
            if beside.outcome is Outcome.FAIL:
                refused += 1
                break
    assert refused == 0


def test_what_got_stuck_fails_before_the_window_is_over_only_if_it_must() -> None:
    before, stuck = good(in_progress=1.0), good(in_progress=10.0)
    assert outcome(replace(stuck, elapsed=0.3), before) is Outcome.PASS
    assert outcome(replace(stuck, elapsed=0.5), before) is Outcome.FAIL


AT = datetime(2026, 1, 1, tzinfo=UTC)


def seen_at(seconds: float, silent: tuple[str, ...] = (), **requests: float) -> Look:
    counts = {pod: Counted(n, 0, {}, n * 0.1) for pod, n in requests.items()}
    known = [*requests, *silent]
    return Look(AT + timedelta(seconds=seconds), counts, dict.fromkeys(silent, ""), dict.fromkeys(known, 0), len(known))


def test_pods_that_come_go_and_fall_silent_are_counted_once() -> None:
    tally = Tally(seen_at(0, ("c",), a=100, b=50))
    tally.add(seen_at(5, c=1000, a=110, b=60))  # c was there before: what it counted until now may be old
    assert tally.window().counted.requests == 20
    tally.add(seen_at(10, ("b",), a=120, c=1005, new=7))
    assert tally.window().counted.requests == 20 + 10 + 5 + 7
    assert tally.window().silent == {"b": ""}
    tally.add(seen_at(15, a=5, b=75, c=1005))  # a was restarted, b is back, new has gone
    assert tally.window().counted.requests == 42 + 5 + 15
    assert tally.window().silent == {}


def test_what_was_in_progress_before_follows_from_how_long_requests_took() -> None:
    tally = Tally(seen_at(0, a=100, b=100))
    tally.add(seen_at(10, a=300, b=500))  # 600 requests of 0.1 s in 10 s by two pods
    assert math.isclose(tally.past().in_progress, 3.0)


def test_of_a_pods_text_probes_are_left_out_and_an_idle_pod_is_known_to_be_idle() -> None:
    line = 'bentoml_service_request_in_progress{{endpoint="{}",service_name="S"}} {}\n'
    assert Counted.parse(line.format("/readyz", 1.0)).in_progress == 0.0
    assert Counted.parse(line.format("/readyz", 1.0) + line.format("/predict", 3.0)).in_progress == 3.0
    assert math.isnan(Counted.parse("").in_progress)
