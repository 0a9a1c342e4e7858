"""The search against simulated servers whose knee is known. `make soak` runs many; a sample always runs."""

from collections.abc import Callable

import numpy as np
import pytest

from ekiben.loadtest.search import Ask, Seen, Wanted, search
from ekiben.loadtest.statistics import min_samples_percentile
from ekiben.types import RatePoint, Search
from tests.fakes.queues import KINDS, run, true_p99_ms

WARM_UP_S, START_S = 3.0, 2.0  # of each probe, beyond what it measures
SAMPLES = min_samples_percentile(99)


def play(wanted: Wanted, latencies: Callable[[Ask], "np.ndarray | None"]) -> Search:
    """The search's result when probe by probe `latencies` is what the service does; None: the generator was late."""
    searching = search(wanted)
    ask = next(searching)
    while True:
        seen = latencies(ask)
        point = None if seen is None else _point(ask, seen, wanted)
        try:
            ask = searching.send(Seen(point, ask.seconds + WARM_UP_S + START_S))
        except StopIteration as stop:
            return stop.value


def _point(ask: Ask, seen: np.ndarray, wanted: Wanted) -> RatePoint:
    p99 = float(np.quantile(seen, 0.99))
    return RatePoint(
        rate=ask.rate, seconds=ask.seconds, requests=len(seen), ms=p99, lower_ms=None, upper_ms=None,
        slower=float((seen > wanted.limit_ms).mean()), achieved_rate=ask.rate, error_rate=0.0,
        held=p99 <= wanted.limit_ms, stage=ask.stage,
    )  # fmt: skip


def simulate(kind: str, capacity: float, utilisation: float, seed: int) -> Search:
    random = np.random.default_rng(seed)
    limit = true_p99_ms(kind, capacity, utilisation)
    wanted = Wanted("p99", limit, 0.01, SAMPLES, seed=seed)
    return play(wanted, lambda ask: run(kind, capacity, ask.rate, ask.seconds, WARM_UP_S, random))


def figures(kinds: tuple[str, ...], capacities: tuple[float, ...], utilisations: tuple[float, ...], seeds: int) -> dict:
    """Shares of the searches: knee found within 5 %, interval that holds it, rate confirmed, and above it; seconds."""
    close, inside, over, confirmed, seconds = [], [], [], [], []
    for kind in kinds:
        for capacity in capacities:
            for utilisation in utilisations:
                knee = capacity * utilisation
                for seed in range(seeds):
                    found = simulate(kind, capacity, utilisation, seed)
                    close.append(found.knee is not None and abs(found.knee / knee - 1) <= 0.05)
                    inside.append(found.lower is not None and found.lower <= knee <= (found.upper or 0))
                    over.append(found.rate is not None and found.rate > knee)
                    confirmed.append(found.rate is not None)
                    seconds.append(found.seconds)
    shares = {"close": close, "inside": inside, "over": over, "confirmed": confirmed}
    return {**{name: float(np.mean(seen)) for name, seen in shares.items()}, "seconds": max(seconds)}


def test_a_known_knee_is_found_a_sample() -> None:
    seen = figures(("exponential", "fixed"), (300.0, 1000.0), (0.75,), seeds=10)
    assert seen["close"] >= 0.85 and seen["inside"] >= 0.8 and seen["over"] <= 0.05 and seen["seconds"] <= 600


@pytest.mark.soak
def test_a_known_knee_is_found_over_many_servers() -> None:
    seen = figures(KINDS, (250.0, 1000.0), (0.6, 0.75, 0.9), seeds=100)
    print(seen)  # noqa: T201
    assert seen["close"] >= 0.85 and seen["inside"] >= 0.88 and seen["over"] <= 0.02 and seen["seconds"] <= 600
    assert seen["confirmed"] >= 0.95


def test_a_fast_service_is_limited_by_the_highest_rate() -> None:
    wanted = Wanted("p99", 100.0, 0.01, SAMPLES, highest=1000.0)
    found = play(wanted, lambda ask: np.full(int(ask.rate * ask.seconds), 1.0))
    assert found.limited_by == "range" and found.knee is None and found.lowest_fail is None
    assert found.highest_pass == found.rate == 800.0
    assert "highest or lowest rate" in found.sure


def test_a_service_that_never_holds_it_has_no_rate() -> None:
    wanted = Wanted("p99", 100.0, 0.01, SAMPLES, start=4000)
    found = play(wanted, lambda ask: np.full(int(ask.rate * ask.seconds), 999.0))
    assert found.rate is None and found.highest_pass is None and found.knee is None
    assert found.seconds <= 600


def test_a_generator_that_cannot_offer_more_is_told_from_a_slow_service() -> None:
    asked: list[float] = []

    def late_above_300(ask: Ask) -> np.ndarray | None:
        asked.append(ask.rate)
        return None if ask.rate > 300 else np.full(int(ask.rate * ask.seconds), 1.0)

    found = play(Wanted("p99", 100.0, 0.01, SAMPLES), late_above_300)
    assert found.limited_by == "generator" and found.rate == 200.0 and "generator" in found.sure
    assert asked.count(400.0) == 2, "an invalid probe is repeated once"


def test_every_probe_has_enough_requests_and_none_outlasts_the_budget() -> None:
    asked: list[Ask] = []
    random = np.random.default_rng(1)

    def slow(ask: Ask) -> np.ndarray:
        asked.append(ask)
        return run("exponential", 20.0, ask.rate, ask.seconds, WARM_UP_S, random)

    found = play(Wanted("p99", 500.0, 0.01, SAMPLES, start=10.0, budget_s=300.0), slow)
    assert asked and all(ask.rate * ask.seconds >= SAMPLES for ask in asked)
    assert found.seconds <= 300 and found.limited_by == "time" and "time was over" in found.sure
