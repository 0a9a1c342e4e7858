"""The figures of any part of a run: all of it, one endpoint, a stretch of time. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekiben.loadtest.statistics import inflation, percentiles, shrunk

BLOCK = 1_000_000


def right_answers(latency_ms: NDArray[np.float32], kind: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Latencies in ms, infinite where there was no right answer; a copy, (n,)."""
    latencies = latency_ms.copy()
    latencies[kind != 0] = np.inf
    return latencies


def measure(
    scheduled_s: NDArray[np.float64],
    latencies: NDArray[np.float32],
    end_s: float,
    seconds: float,
    levels: Sequence[float],
) -> dict[str, Any]:
    """Requests, failed, error rate, achieved rate and percentiles of n > 0 requests, as an EndpointReport names them.

    `scheduled_s` ascending and `end_s` from the start of the run; the part lasted for `seconds`. Right answers up to
    `end_s` are achieved. A share of achieved requests is as much less sure than a binomial one as failures came in
    bursts; what is late at the very end is late together, which batches cannot show, and counts as independent.
    """
    n = len(latencies)
    wrong = np.isinf(latencies)
    failed, alike = int(np.count_nonzero(wrong)), inflation(wrong)
    in_time = _in_time(scheduled_s, latencies, end_s)
    return {
        "requests": n,
        "failed": failed,
        "error_rate": shrunk(failed, n, alike),
        "achieved_rate": in_time / seconds,
        "achieved": shrunk(in_time, n, alike),
        "percentiles": percentiles(latencies, levels),
    }


def _in_time(scheduled_s: NDArray[np.float64], latencies: NDArray[np.float32], end_s: float) -> int:
    count = 0
    for start in range(0, len(latencies), BLOCK):
        block = slice(start, start + BLOCK)
        count += int(np.count_nonzero(scheduled_s[block] + latencies[block] / 1000.0 <= end_s))
    return count
