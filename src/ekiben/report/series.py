"""A run's seconds, put together into as many stretches as a chart can show. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ekiben.types import Second


@dataclass(frozen=True)
class Stretch:
    """`seconds` of a run from `at_s`: rates in 1/s, the worst of its seconds' p99 and in-flight counts, the median of
    their p50. `warm_up` where it has a second of it. `failed_share` is None where nothing was offered."""

    at_s: int
    seconds: int
    warm_up: bool
    offered: float
    answered: float
    failed: float
    in_flight: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def middle_s(self) -> float:
        return self.at_s + self.seconds / 2

    @property
    def failed_share(self) -> float | None:
        return self.failed / self.offered if self.offered else None


def stretches(series: Sequence[Second], most: int) -> list[Stretch]:
    """At most `most` stretches, all but the last equally long; a peak stays visible however long the run was."""
    size = math.ceil(len(series) / most) or 1
    return [_stretch(series[i : i + size]) for i in range(0, len(series), size)]


def _stretch(part: Sequence[Second]) -> Stretch:
    p50 = [s.p50_ms for s in part if s.p50_ms is not None]
    p99 = [s.p99_ms for s in part if s.p99_ms is not None]
    return Stretch(
        at_s=part[0].at_s,
        seconds=len(part),
        warm_up=any(s.warm_up for s in part),
        offered=sum(s.offered for s in part) / len(part),
        answered=sum(s.completed for s in part) / len(part),
        failed=sum(s.errors for s in part) / len(part),
        in_flight=max(s.in_flight for s in part),
        p50_ms=statistics.median(p50) if p50 else None,
        p99_ms=max(p99, default=None),
    )
