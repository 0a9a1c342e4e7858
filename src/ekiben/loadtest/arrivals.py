"""When requests are due: the same plan gives the same schedule, to the bit, and a longer run begins as a shorter one.

The rate over time is piecewise linear; its integral, the expected number of arrivals so far, maps time to a scale on
which a Poisson process has rate 1 and even arrivals have distance 1. Arrivals are drawn there and mapped back, so both
are exact for every profile. Of N processes, process k offers a Poisson process of its own at 1/N of the rate (their
union is the whole), or every N-th of the even or recorded arrivals. Pure but for the reading of a trace.
"""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ekiben.errors import NotFoundError, UsageError
from ekiben.types import LoadPlan

Times = NDArray[np.float64]
BLOCK = 1_000_000  # arrivals that are mapped at once: bounds the memory for what is in between


def schedule(plan: LoadPlan, measured_s: float | None = None) -> Times:
    """Arrival times of warm-up and measured time, of all processes together, in seconds from the start, ascending.

    `measured_s`: measured time instead of the plan's. Empty for a closed loop, which has no schedule. (n,)
    """
    parts = [shard(plan, worker, measured_s=measured_s) for worker in range(plan.processes)]
    return parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))


def shard(plan: LoadPlan, worker: int, *, trace: Times | None = None, measured_s: float | None = None) -> Times:
    """The arrivals of process `worker`, from 0, of `plan.processes`; (m,). `trace`: what the plan's trace holds, for
    where its file is not."""
    end = plan.warm_up_s + (plan.measure_s if measured_s is None else measured_s)
    if not plan.open_loop:
        return np.empty(0)
    if plan.trace:
        times = read_trace(Path(plan.trace)) if trace is None else trace
        return _before(times, end)[worker :: plan.processes]
    scale = _Scale(plan, end)
    if plan.arrivals == "constant":
        points = np.arange(worker, np.ceil(scale.total), plan.processes, dtype=np.float64)
    else:
        points = _poisson(np.random.default_rng([plan.seed, worker]), scale.total / plan.processes)
        points *= plan.processes
    for start in range(0, len(points), BLOCK):
        points[start : start + BLOCK] = scale.time(points[start : start + BLOCK])
    return _before(points, end)


def measured(plan: LoadPlan, times: Times) -> NDArray[np.bool_]:
    """Which arrivals count, that is, come after the warm-up; (n,)."""
    return times >= plan.warm_up_s


def read_trace(path: Path) -> Times:
    """Recorded arrival times in seconds, one a line, ascending; they count from the first. UsageError otherwise."""
    try:
        with warnings.catch_warnings():  # of an empty file: said below
            warnings.simplefilter("ignore")
            times: Times = np.loadtxt(path, dtype=np.float64, ndmin=1)
    except OSError:
        raise NotFoundError(f"no trace at {path}", wanted="a text file with one number of seconds a line") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a trace: {error}", wanted="one number of seconds a line") from None
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise UsageError(f"{path} is not a trace", wanted="one finite number of seconds a line, at least one")
    if (back := np.flatnonzero(np.diff(times) < 0)).size:
        raise UsageError(f"{path}: the time of arrival {back[0] + 2} is before that of the one before", wanted="order")
    times -= times[0]
    return times


def _poisson(random: np.random.Generator, total: float) -> Times:
    """The points in [0, total) of a Poisson process of rate 1. A larger `total` only adds points."""
    parts = []
    last = 0.0
    while last < total:
        gaps = random.exponential(size=int((total - last) + 4 * np.sqrt(total - last) + 16))
        gaps[0] += last
        parts.append(np.cumsum(gaps, out=gaps))
        last = float(gaps[-1])
    points = np.concatenate(parts) if parts else np.empty(0)
    return _before(points, total)


def _before(ascending: Times, end: float) -> Times:
    n = int(np.searchsorted(ascending, end))
    return ascending[:n]


class _Scale:
    """The expected number of arrivals up to each moment, from 0 to `total` at `end`, and back."""

    def __init__(self, plan: LoadPlan, end: float) -> None:
        knots = [(plan.warm_up_s + at, rate) for at, rate in plan.profile] or [(end, plan.rate)]
        knots = [(0.0, knots[0][1]), *knots, (max(end, knots[-1][0]), knots[-1][1])]
        self.at, self.rate = np.array(knots).T
        areas = np.diff(self.at) * (self.rate[1:] + self.rate[:-1]) / 2
        self.expected = np.concatenate(([0.0], np.cumsum(areas)))
        self.total = self._expected(end)

    def _expected(self, at: float) -> float:
        i = min(int(np.searchsorted(self.at, at, side="right")), len(self.at) - 1) - 1
        rate = np.interp(at, self.at[i : i + 2], self.rate[i : i + 2]) if self.at[i] < self.at[i + 1] else self.rate[i]
        return float(self.expected[i] + (at - self.at[i]) * (self.rate[i] + rate) / 2)

    def time(self, expected: Times) -> Times:
        """When so many arrivals are expected: the root of rate·x + slope·x²/2, in the form that never cancels."""
        i = np.clip(np.searchsorted(self.expected, expected, side="right") - 1, 0, len(self.at) - 2)
        length, start = self.at[i + 1] - self.at[i], self.rate[i]
        slope = np.divide(self.rate[i + 1] - start, length, out=np.zeros_like(length), where=length > 0)
        rest = expected - self.expected[i]
        root = start + np.sqrt(np.maximum(start * start + 2 * slope * rest, 0.0))
        after: Times = np.divide(2 * rest, root, out=np.zeros_like(rest), where=root > 0)
        after += self.at[i]
        return after
