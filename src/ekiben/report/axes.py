"""Axes of charts: where a value lies, and which round values are named. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

DURATIONS = [(1, "s"), (60, "min"), (3600, "h")]
DURATION_STEPS = [n * size for size, ns in ((1, (1, 2, 5, 10, 15, 30)), (60, (1, 2, 5, 10, 15, 30))) for n in ns]
DURATION_STEPS += [n * 3600 for n in (1, 2, 3, 6, 12, 24)]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with named ticks; logarithmic where both are above 0 and `log` says so."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def share(self, value: float) -> float:
        """Where `value` lies between the two ends, as a share; what is beyond an end lies on it."""
        if self.log:
            place = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / ((self.high - self.low) or 1.0)
        return min(1.0, max(0.0, place))


def linear(maximum: float) -> Axis:
    """From 0 to a round number at or above `maximum`."""
    values = ticks(maximum)
    return Axis(0.0, values[-1], [(v, number(v)) for v in values])


def around_zero(low: float, high: float, unit: str) -> Axis:
    """Both ways from 0, to at least `low` and `high`; each tick has its sign and the unit."""
    step = ticks(max(-low, high, 0.1))[1]  # what is smaller is no difference to look at
    first, last = min(-1, math.floor(low / step)), max(1, math.ceil(high / step))
    values = [round(step * i, 10) for i in range(first, last + 1)]
    return Axis(values[0], values[-1], [(v, f"{v:+,g}{unit}".replace("-", "−") if v else f"0{unit}") for v in values])


def logarithmic(low: float, high: float) -> Axis:
    """From a round number at or below `low` to one at or above `high`, both more than 0."""
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades < 2 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    values = [f * 10.0**e for e in range(first, last + 1) for f in factors]
    below = max(v for v in values if v <= low * (1 + 1e-9))
    above = min((v for v in values if v >= high * (1 - 1e-9)), default=values[-1])
    above = above if above > below else next(v for v in [*values, values[-1] * 10] if v > below)
    inner = [v for v in [*values, above] if below <= v <= above]
    every = math.ceil(len(inner) / 6)
    return Axis(below, above, [(v, number(v)) for v in dict.fromkeys(inner[::every])], log=True)


def time(end_s: float) -> Axis:
    """From 0 to `end_s`, with at most six round times."""
    whole_days = math.ceil(end_s / 5 / 86_400) * 86_400
    step = next((s for s in DURATION_STEPS if end_s / s <= 5), whole_days)
    size, unit = next((size, unit) for size, unit in reversed(DURATIONS) if step % size == 0)
    values = [step * i for i in range(int(end_s / step) + 1)]
    return Axis(0.0, end_s, [(float(v), f"{v // size} {unit}" if v else "0") for v in values])


def ticks(maximum: float) -> list[float]:
    """From 0 to a round number at or above `maximum`, in three to six even steps."""
    if maximum <= 0:
        return [0.0, 1.0]
    step = 10 ** math.floor(math.log10(maximum / 3))
    for factor in (1, 2, 5, 10):
        if maximum / (step * factor) <= 5:
            step *= factor
            break
    count = math.ceil(maximum / step - 1e-9)
    return [round(step * i, 10) for i in range(count + 1)]


def number(value: float) -> str:
    """In short: `0.05`, `250`, `5,000`, `20k`, `1.5M`."""
    for size, suffix in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if suffix == 'k' else size):,.4g}{suffix}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
