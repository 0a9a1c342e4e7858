"""The highest rate that holds an objective on a percentile, found by probes of one rate each. Pure: `search` asks for
probes and is sent what they saw.

Double the rate until it fails, halve the bracket until it is at most 1.3 wide, then 20 probes within 15 % of its
middle, in random order and recentred half-way. What is fitted is the share of requests slower than the limit: its
logarithm is a straight line of the rate (exactly so for M/M/1), and unlike a short probe's percentile it is not biased
when requests queue behind each other. Where the line crosses 1 % (for a p99) is the knee. A bisection alone claims
more than 5 % too much in every third search, because single probes near the knee pass or fail by chance.
"""

import itertools
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ekiben.loadtest.recorder import Recording
from ekiben.types import LoadPlan, RatePoint, Search

BUDGET_S = 600.0  # with another one all probes are as much longer or shorter
BRACKET_S = 8.0
BRACKET_RATIO = 1.3
SPREAD = 0.15
PROBES = 7  # of each stage of the fit
STAGES = 3  # and more as long as the knee lies outside what was probed
FEWEST = 7  # probes, without which no line is fitted
BEYOND = 1.1  # how far the line is trusted outside what was probed, as a factor
SHORTEST_S, LONGEST_S = 6.0, 20.0  # a probe of the fit
CONFIRM_S = 30.0  # or half as long, where the time is nearly over
MARGIN = 0.02  # of the budget, for a probe that takes longer than those before it
BELOW = 0.95  # where the long probe confirms, of the knee
NEAR = 2.0  # a probe whose share is e^2 times the wanted one, or less than its e^2th part, has 1/e of the weight

COVERAGE = "in simulated searches an interval made like this holds the knee nine times in ten"
WIDE = 1.3  # an interval whose ends differ by more than this factor
LIMITS = {
    "generator": "The generator could not offer more in time: the service may hold more than was tried.",
    "range": "The highest or lowest rate that may be tried was reached.",
    "time": "The time was over before the search was: what is said here is less sure; allow it longer.",
}

Stage = Literal["bracket", "fit", "confirm"]
LimitedBy = Literal["service", "generator", "range", "time"]


@dataclass(frozen=True)
class Wanted:
    """What is searched for. `share` of the requests may be slower than `limit_ms`: 0.01 for a p99. `samples` is how
    many requests a probe must have, `budget_s` how long all may take together."""

    objective: str
    limit_ms: float
    share: float
    samples: int
    start: float = 100.0  # requests/s
    lowest: float = 0.5
    highest: float = 20_000.0
    budget_s: float = BUDGET_S
    seed: int = 1

    def seconds(self, usual: float) -> float:
        """What takes `usual` seconds of a search of BUDGET_S."""
        return usual * self.budget_s / BUDGET_S


@dataclass(frozen=True)
class Ask:
    rate: float
    seconds: float
    stage: Stage


@dataclass(frozen=True)
class Seen:
    """What a probe saw: `point` is None where the generator did not keep its schedule. `took_s` from the asking."""

    point: RatePoint | None
    took_s: float


class Crossing(NamedTuple):
    rate: float
    lower: float
    upper: float


class _Out(Exception):
    """The search goes no further; `why` is what it is limited by."""

    def __init__(self, why: LimitedBy) -> None:
        self.why: LimitedBy = why


Probing = Generator[Ask, Seen, RatePoint]


class _Searcher:
    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.points: list[RatePoint] = []
        self.spent = 0.0
        self.overhead = 5.0  # seconds of a probe beyond its measured time: start, warm-up, end; then as seen
        self.crossing: Crossing | None = None
        self.random = np.random.default_rng(wanted.seed)

    def enough(self, rate: float) -> float:
        """Seconds in which Poisson arrivals of that rate are as many as a probe needs."""
        return (self.wanted.samples + 4 * math.sqrt(self.wanted.samples)) / rate

    @property
    def confirming(self) -> float:
        """Seconds to keep for the confirming probe, and for a second one, half as long, should the first not hold."""
        middle = self.points[-1].rate if self.points else self.wanted.start
        return max(1.5 * self.wanted.seconds(CONFIRM_S), 2 * self.enough(middle)) + 2 * self.overhead

    @property
    def left(self) -> float:
        return self.wanted.budget_s * (1 - MARGIN) - self.spent

    @property
    def passed(self) -> list[float]:
        return [point.rate for point in self.points if point.held]

    @property
    def failed(self) -> list[float]:
        return [point.rate for point in self.points if not point.held]

    def probe(self, rate: float, seconds: float, stage: Stage, reserve: float = 0.0) -> Probing:
        """One probe; one whose generator did not keep its schedule is repeated once."""
        if not self.wanted.lowest <= rate <= self.wanted.highest:
            raise _Out("range")
        for _ in range(2):
            if seconds + self.overhead + reserve > self.left:
                raise _Out("time")
            seen = yield Ask(rate, seconds, stage)
            self.spent += seen.took_s
            self.overhead = (self.overhead + max(0.0, seen.took_s - seconds)) / 2
            if seen.point is not None:
                self.points.append(seen.point)
                return seen.point
        raise _Out("generator")

    def bracket(self) -> Generator[Ask, Seen, float]:
        """The middle of a pass and a fail that are at most BRACKET_RATIO apart."""
        low = high = 0.0
        rate = self.wanted.start
        while not (low and high and high / low <= BRACKET_RATIO):
            seconds = max(self.wanted.seconds(BRACKET_S), self.enough(rate))
            point = yield from self.probe(rate, seconds, "bracket", self.confirming)
            if point.held:
                low = rate
            else:
                high = rate
            rate = math.sqrt(low * high) if low and high else rate * 2 if low else rate / 2
        return rate

    def fit(self, middle: float) -> Generator[Ask, Seen, None]:
        """Sets `crossing`. Raises when the time is over before the line crosses within what was probed."""
        for stage in itertools.count():
            to_come = PROBES * max(1, STAGES - stage)
            each = (self.left - self.confirming) / to_come - self.overhead
            shortest, longest = self.wanted.seconds(SHORTEST_S), self.wanted.seconds(LONGEST_S)
            seconds = min(longest, max(shortest, self.enough(middle), each))
            for offset in self.random.permutation(np.linspace(-SPREAD, SPREAD, PROBES)):
                rate = middle * (1 + float(offset))
                try:
                    yield from self.probe(rate, max(seconds, self.enough(rate)), "fit", self.confirming)
                except _Out:
                    self.crossing = self._crossing()
                    raise
            self.crossing = self._crossing()
            at = self.crossing.rate if self.crossing else middle
            if self.crossing and stage >= STAGES - 1:
                return
            middle = min(max(at, middle / BRACKET_RATIO), middle * BRACKET_RATIO)

    def _crossing(self) -> Crossing | None:
        fitted = [point for point in self.points if point.stage == "fit"]
        if len(fitted) < FEWEST:
            return None
        found = crossing(fitted, self.wanted.share)
        low, high = min(p.rate for p in fitted) / BEYOND, max(p.rate for p in fitted) * BEYOND
        inside = found and low <= found.rate <= high
        return found if inside else None

    def confirm(self) -> Generator[Ask, Seen, float | None]:
        """The highest rate that a long probe held."""
        known = min(self.failed, default=math.inf)
        below_fail = max((rate for rate in self.passed if rate < known), default=min(self.passed, default=None))
        rate = min(BELOW * self.crossing.rate, self.crossing.lower) if self.crossing else below_fail
        while rate is not None and rate >= self.wanted.lowest:
            usual = self.wanted.seconds(CONFIRM_S)
            seconds = max(self.enough(rate), usual / 2, min(usual, self.left - self.overhead))
            try:
                point = yield from self.probe(rate, seconds, "confirm")
            except _Out:
                return None
            if point.held:
                return rate
            rate *= BELOW**2
        return None


def search(wanted: Wanted) -> Generator[Ask, Seen, Search]:
    """Asks for one probe after the other and returns what came of them."""
    searcher = _Searcher(wanted)
    limited_by: LimitedBy = "service"
    try:
        middle = yield from searcher.bracket()
        yield from searcher.fit(middle)
    except _Out as out:
        limited_by = out.why
    rate = yield from searcher.confirm()
    found = searcher.crossing
    return Search(
        objective=wanted.objective,
        limit_ms=wanted.limit_ms,
        rate=rate,
        knee=found and found.rate,
        lower=found and found.lower,
        upper=found and found.upper,
        highest_pass=max(searcher.passed, default=None),
        lowest_fail=min(searcher.failed, default=None),
        limited_by=limited_by,
        sure=_sure(searcher, limited_by, rate),
        seconds=searcher.spent,
        points=tuple(searcher.points),
    )


def slower(recording: Recording, plan: LoadPlan, limit_ms: float) -> float:
    """Share of the measured requests that took longer than `limit_ms` or got no right answer; 1 where there is none."""
    counted = recording.scheduled_s >= plan.warm_up_s
    slow = counted & ((recording.latency_ms > limit_ms) | ~recording.ok)
    return float(slow.sum() / counted.sum()) if counted.any() else 1.0


def _sure(searcher: _Searcher, limited_by: LimitedBy, rate: float | None) -> str:
    objective, found = searcher.wanted.objective, searcher.crossing
    told = [f"No long probe confirmed a rate that holds {objective}."]
    if rate is not None:
        seconds = searcher.points[-1].seconds
        told = [f"A probe of {seconds:.0f} s at {rate:.4g} requests/s held {objective}, as measured."]
    if found:
        told.append(
            f"The knee: about {found.rate:.4g} requests/s, between {found.lower:.4g} and {found.upper:.4g}; {COVERAGE}."
        )
        if found.upper / found.lower > WIDE:
            told.append("Too few requests, or a latency that hardly rises with the rate, leave it open: search longer.")
    elif searcher.points:
        held, failed = max(searcher.passed, default=None), min(searcher.failed, default=None)
        seen = [f"{held:.4g} requests/s held"] if held else []
        seen += [f"{failed:.4g} requests/s did not"] if failed else []
        told.append(f"Of single probes {' and '.join(seen)}; that is no more than a hint.")
    told += [LIMITS[limited_by]] if limited_by in LIMITS else []
    return " ".join(told)


def crossing(points: Sequence[RatePoint], share: float) -> Crossing | None:
    """Where the fitted share of slow requests crosses `share`, with an interval from leaving out each probe in turn.

    None where the share does not rise with the rate.
    """
    from scipy.stats import t

    rates = np.array([point.rate for point in points])
    sizes = np.array([float(point.requests) for point in points])
    slow = np.array([point.slower for point in points]) * sizes
    at = _cross(rates, slow, sizes, share)
    if at is None:
        return None
    n = len(points)
    others = [_cross(np.delete(rates, i), np.delete(slow, i), np.delete(sizes, i), share) for i in range(n)]
    known = np.log([other or at for other in others])
    error = math.sqrt((n - 1) / n * float(((known - known.mean()) ** 2).sum())) * float(t.ppf(0.975, n - 2))
    return Crossing(at, at * math.exp(-error), at * math.exp(error))


def _cross(
    rates: NDArray[np.float64], slow: NDArray[np.float64], sizes: NDArray[np.float64], share: float
) -> float | None:
    """By Poisson regression with a log link: log(share of slow requests) = a + b · rate, probes near `share` first."""
    middle, scale = rates.mean(), rates.std()
    x = np.stack([np.ones_like(rates), (rates - middle) / scale], axis=1)
    near = np.exp(-np.abs(np.log((slow + 0.5) / (sizes + 1.0) / share)) / NEAR)
    line = np.array([math.log(share), 1.0])
    for _ in range(50):
        expected = np.exp(np.clip(x @ line, -25.0, 0.0))
        weight = near * sizes * expected
        target = x @ line + (slow / sizes - expected) / expected
        fresh = np.linalg.solve(x.T @ (weight[:, None] * x) + 1e-6 * np.eye(2), x.T @ (weight * target))
        step = np.clip(fresh - line, -2.0, 2.0)
        line = line + step
        if np.abs(step).max() < 1e-7:
            break
    at = float(middle + scale * (math.log(share) - line[0]) / line[1]) if line[1] > 0 else -1.0
    return at if at > 0 else None
