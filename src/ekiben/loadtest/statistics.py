"""Percentiles and shares with 95 % bounds that allow for dependence between neighbouring requests. Pure.

Requests that queue behind each other are alike, so n of them say less than n independent ones. How much less is
estimated from the means of 20 batches in time order; the sample is then worth n / inflation, and the bounds are the
exact binomial ones for that size. Clusters of slow requests are few, and a run that happened to see too few of them
would think its requests independent; so the dependence at other latencies counts for each.

The upper bound is found by asking of each latency, from far beyond the slowest down, whether the percentile could be as
high; what counts then is how alike the requests are that took up to REACH times less, or longer. A machine on which
every request takes 4 ms for a while and then 6 says nothing of what takes 250.

In simulated queues at a utilisation of 0.3 / 0.6 / 0.8, bounds of a p99 that take requests for independent hold in
only 76 / 47 / 21 % of the runs; these in at least 93 % (tests/unit/test_loadtest_coverage.py). What verdicts they lead
to is measured by benchmarks/verdicts.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ekiben.types import Percentile, Proportion

ALPHA = 0.05
BATCHES = 20
# Batch means know the variance only from 20 values: this much more it may be, with 90 % confidence (19 degrees of
# freedom over the 10 % quantile of chi-square). With Student's t alone, 1.14, up to 3 % of false verdicts were left.
UNSURE = 19 / 11.651
# Batches that are like their neighbours are too short, and the inflation is that of longer ones; by at most so much.
MAX_CORRELATION = 0.8

FEWEST_EFFECTIVE = 8
"""A sample of n ≥ 8 is never taken for worth less, so that a service which is slow for a quarter of a run, in one piece
or in many, fails a p99. In simulated queues a p99 at 0.8 times its limit fails in at most 0.4 % of the runs all the
same."""

REFERENCES = (50.0, 75.0, 90.0, 95.0)

REACH = 16.0
"""How many times as long as some requests a percentile may be for their dependence to say something of it. A p99 of 16
times the slowest answer is refused by the fewest effective samples, too (`tail_factor`)."""
STEP = math.sqrt(2.0)

# Where the effective sample is too small for an upper bound without assumptions, that bound is the slowest right answer
# times a factor that grows as the sample shrinks: what an exponential tail, as queues have, would need with 99.5 %
# confidence, to the power of 1.5 for tails that are heavier. Without it a service that never came near its limit would
# be INCONCLUSIVE whenever two slow requests were neighbours.
TAIL_ALPHA = 0.005
TAIL_POWER = 1.5

Flags = NDArray[np.bool_]
Latencies = NDArray[np.float32]


def inflation(flags: Flags) -> float:
    """How many times larger the variance of the mean of `flags`, in time order, is than for independent ones; >= 1."""
    n, hits = len(flags), int(np.count_nonzero(flags))
    size = n // BATCHES
    if size == 0 or hits in (0, n):
        return 1.0
    batches = flags[: size * BATCHES].reshape(BATCHES, size)
    means = np.array([np.count_nonzero(batch) for batch in batches]) / size
    variance = float(means.var(ddof=1))
    if variance == 0.0:
        return 1.0
    off = means - means.mean()
    alike = float(off[1:] @ off[:-1]) / float(off @ off) + 1.0 / BATCHES  # the estimate is as much too low
    alike = min(max(alike, 0.0), MAX_CORRELATION)
    share = hits / n
    return max(1.0, variance * size / (share * (1.0 - share)) * UNSURE * (1.0 + alike) / (1.0 - alike))


def percentiles(latencies: Latencies, levels: Sequence[float]) -> tuple[Percentile, ...]:
    """The percentiles at `levels`, ascending, of latencies (n,): ms, in time order, inf where no right answer came.

    One is left out where the sample is too small for its upper bound even if all requests were independent. Where only
    the *effective* sample is too small, the upper bound is an extrapolation: `by_margin`.
    """
    possible = [level for level in levels if len(latencies) >= min_samples_percentile(level)]
    if not possible:
        return ()
    ordered = np.sort(latencies)
    values = {level: _value(ordered, level) for level in {*possible, *REFERENCES}}
    alike = {level: _inflation(latencies, value) for level, value in values.items()}
    everywhere = max(alike[level] for level in REFERENCES)
    marks = _marks(latencies, ordered, {level: (float(values[level]), alike[level]) for level in values})
    return tuple(_percentile(latencies, ordered, level, max(everywhere, alike[level]), marks) for level in possible)


def percentile(latencies: Latencies, level: float) -> Percentile | None:
    """One of `percentiles`; None where the sample is too small."""
    return next(iter(percentiles(latencies, (level,))), None)


def proportion(flags: Flags) -> Proportion:
    """The share of true `flags` (n > 0), in time order, with Clopper-Pearson bounds for the effective sample size."""
    return shrunk(int(np.count_nonzero(flags)), len(flags), inflation(flags))


def shrunk(hits: int, n: int, alike: float) -> Proportion:
    """`hits` of `n` > 0 as a share, with bounds for the effective sample size under the inflation `alike`."""
    scale = n / _effective(n, alike)
    return clopper_pearson(hits / scale, n / scale)


def clopper_pearson(hits: float, n: float) -> Proportion:
    """Exact binomial bounds for `hits` of `n` > 0; both may be fractions, as effective sizes are."""
    from scipy.special import betaincinv

    lower = float(betaincinv(hits, n - hits + 1, ALPHA / 2)) if hits > 0 else 0.0
    upper = float(betaincinv(hits + 1, n - hits, 1 - ALPHA / 2)) if hits < n else 1.0
    return Proportion(value=hits / n, lower=lower, upper=upper)


def min_samples_percentile(level: float) -> int:
    """Fewest requests with which the percentile can have an upper bound: two-sided, independent, all below it."""
    return _zero_event_samples(1.0 - level / 100.0)


def min_samples_proportion(limit: float) -> int:
    """Fewest requests that, all good, prove a share of failures of at most `limit` (between 0 and 1)."""
    return _zero_event_samples(limit)


@lru_cache
def surely_below(level: float) -> float:
    """A share w of the sample whose largest value is at most the percentile's lower bound, whatever the dependence:
    where at most w of the requests were as fast as a limit, the lower bound is beyond it. 0 to level / 100."""
    share = level / 100.0
    # From some size on more samples only narrow the bounds; at 400 that is far behind.
    return min(max(0, _ranks(n, share)[0] - 1) / n for n in range(FEWEST_EFFECTIVE, 400))


def _zero_event_samples(share: float) -> int:
    return math.ceil(math.log(ALPHA / 2) / math.log1p(-share))


def _effective(n: int, alike: float) -> float:
    return max(n / alike, min(n, FEWEST_EFFECTIVE))


def _inflation(latencies: Latencies, value: np.float32) -> float:
    # Both, for where many latencies equal the value exactly, or are infinite.
    return max(inflation(latencies >= value), inflation(latencies > value))


@dataclass(frozen=True)
class _Mark:
    """How alike requests are that took some time or longer; it counts for percentiles of `start` to `reach` ms."""

    start: float
    reach: float
    inflation: float


def _marks(latencies: Latencies, ordered: Latencies, known: Mapping[float, tuple[float, float]]) -> list[_Mark]:
    """Those at the levels that are `known`, by time and inflation, and in steps from there to the slowest answer."""
    finite = {level: found for level, found in known.items() if math.isfinite(found[0])}
    marks = [_Mark(0 if level in REFERENCES else ms, ms * REACH, alike) for level, (ms, alike) in finite.items()]
    answers = int(np.count_nonzero(np.isfinite(ordered)))
    slowest = float(ordered[answers - 1]) if answers else 0.0
    at = max((ms for ms, _ in finite.values()), default=slowest) * STEP
    while 0.0 < at < slowest:
        marks.append(_Mark(at, at * REACH, inflation(latencies >= np.float32(at))))
        at *= STEP
    # Requests without a right answer took longer than any latency.
    return [*marks, _Mark(slowest, math.inf, inflation(~np.isfinite(latencies)))]


def _value(ordered: Latencies, level: float) -> np.float32:
    n = len(ordered)
    value: np.float32 = ordered[min(n - 1, math.ceil(level / 100.0 * n) - 1)]
    return value


def _percentile(
    latencies: Latencies, ordered: Latencies, level: float, alike: float, marks: Sequence[_Mark]
) -> Percentile:
    n, share, value = len(ordered), level / 100.0, _value(ordered, level)
    effective = int(_effective(n, alike))
    low, _ = _ranks(effective, share)
    lower = ordered[(low - 1) * n // effective] if low >= 1 else np.float32(0.0)
    upper, worth, by_margin = _upper(latencies, ordered, level, marks)
    return Percentile(
        level=level,
        ms=_finite(value),
        lower_ms=_finite(min(lower, value)),
        upper_ms=_finite(max(upper, value)),
        effective_samples=worth,
        by_margin=by_margin,
    )


def _upper(
    latencies: Latencies, ordered: Latencies, level: float, marks: Sequence[_Mark]
) -> tuple[np.float32, int, bool]:
    """The upper bound, the effective sample size there, and whether it is an extrapolation: the lowest latency from
    which on the sample refuses that the percentile is as high."""
    value = float(_value(ordered, level))
    # Between two neighbouring ends the same marks count.
    ends = sorted({0.0, *(end for mark in marks for end in (mark.start, mark.reach) if end < math.inf)}, reverse=True)
    found, above = None, math.inf
    for end in ends:
        alike = max((mark.inflation for mark in marks if mark.start <= end < mark.reach), default=1.0)
        effective = int(_effective(len(ordered), alike))
        bound, by_margin = _bound(latencies, ordered, level / 100.0, effective)
        if found and bound >= above:
            break
        found, above = (np.float32(max(float(bound), end)), effective, by_margin), end
        if bound > end or end <= value:
            break
    assert found
    return found


def _bound(latencies: Latencies, ordered: Latencies, share: float, effective: int) -> tuple[np.float32, bool]:
    n, (_, high) = len(ordered), _ranks(effective, share)
    if high > effective:
        return _beyond(latencies, ordered, share, effective), True
    rank: np.float32 = ordered[-(-high * n // effective) - 1]
    return rank, False


@lru_cache(maxsize=10_000)
def _ranks(n: int, share: float) -> tuple[int, int]:
    """1-based ranks whose values enclose the quantile in 95 % of samples; 0 or n + 1 where there is no such rank."""
    from scipy.special import bdtr

    # All but one in 10^15 of the probability is within eight standard deviations.
    middle, reach = n * share, 8 * math.sqrt(n * share * (1 - share)) + 8
    first = max(0, math.floor(middle - reach))
    cumulative = bdtr(np.arange(first, min(n, math.ceil(middle + reach)) + 1, dtype=np.float64), n, share)
    low = first + int(np.searchsorted(cumulative, ALPHA / 2))  # P(at most k of n lie below the quantile)
    high = first + int(np.searchsorted(cumulative, 1 - ALPHA / 2)) + 1
    return low, high


def _beyond(latencies: Latencies, ordered: Latencies, share: float, effective: int) -> np.float32:
    """The upper bound by extrapolation; infinite where failures alone may be as many as the percentile's tail."""
    right = np.isfinite(latencies)
    answers = int(np.count_nonzero(right))
    if answers < len(latencies) and proportion(~right).upper >= 1.0 - share:
        return np.float32(np.inf)
    return np.float32(ordered[answers - 1] * tail_factor(effective, share))


def tail_factor(effective: int, share: float) -> float:
    """How far beyond the largest of `effective` samples the `share` quantile may lie, as a factor >= 1."""
    reached = -math.log1p(-(TAIL_ALPHA ** (1.0 / effective)))  # what the largest surely exceeds, in means of the tail
    return math.pow(max(1.0, math.log(1.0 / (1.0 - share)) / reached), TAIL_POWER)


def _finite(value: np.float32) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
