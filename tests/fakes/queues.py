"""Services as queueing theory knows them, simulated: one server, Poisson arrivals, first come first served."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

KINDS = ("exponential", "fixed", "two speeds", "log-normal")


def service_times(kind: str, n: int, random: np.random.Generator) -> Times:
    """`n` service times with a mean of 1."""
    if kind == "exponential":
        return random.exponential(1.0, n)
    if kind == "fixed":
        return np.ones(n)
    if kind == "two speeds":  # one request in ten takes five times as long
        return np.where(random.random(n) < 0.1, 5.0, 1.0) / 1.4
    variation = {"log-normal": 1.5, "heavy log-normal": 2.0}[kind]
    variance = math.log(1 + variation**2)
    return random.lognormal(-variance / 2, math.sqrt(variance), n)


def latencies(arrivals: Times, service: Times) -> Times:
    """From each arrival, ascending, to the end of its service."""
    work = np.cumsum(service)
    return work + np.maximum.accumulate(arrivals - (work - service)) - arrivals


def run(kind: str, capacity: float, rate: float, seconds: float, warm_up: float, random: np.random.Generator) -> Times:
    """Latencies in ms of what arrives in `seconds` after the warm-up at a server that serves `capacity` requests/s."""
    due = np.sort(random.uniform(0.0, warm_up + seconds, random.poisson(rate * (warm_up + seconds))))
    found = latencies(due, service_times(kind, len(due), random) / capacity)
    return found[due >= warm_up] * 1000


@cache
def true_p99_ms(kind: str, capacity: float, utilisation: float) -> float:
    random = np.random.default_rng(12345)
    due = np.cumsum(random.exponential(1 / utilisation, 3_000_000))
    return float(np.quantile(latencies(due, service_times(kind, len(due), random))[20_000:], 0.99)) / capacity * 1000


@cache
def true_quantile(kind: str, utilisation: float, level: float) -> float:
    """The latency that `level` percent of the requests keep in the long run, in mean service times."""
    if kind == "exponential":
        return math.log(1 / (1 - level / 100)) / (1 - utilisation)
    return float(np.percentile(_long_run(kind, utilisation), level))


@cache
def _long_run(kind: str, utilisation: float) -> Times:
    random = np.random.default_rng(54321)
    due = np.cumsum(random.exponential(1 / utilisation, 6_000_000))
    return latencies(due, service_times(kind, len(due), random))[20_000:]
