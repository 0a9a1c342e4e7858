"""When requests are due. Pure: the same plan gives the same schedule, to the bit."""

import numpy as np
from numpy.typing import NDArray

from ekiben.types import LoadPlan


def schedule(plan: LoadPlan) -> NDArray[np.float64]:
    """Arrival times of warm-up and measured time, in seconds from the start, ascending; (n,)."""
    end = plan.warm_up_s + plan.measure_s
    if plan.arrivals == "constant":
        return np.arange(int(np.ceil(end * plan.rate)), dtype=np.float64) / plan.rate
    # Given their number, the points of a Poisson process are uniform and independent: no loop over gaps is needed.
    random = np.random.default_rng(plan.seed)
    return np.sort(random.uniform(0.0, end, random.poisson(plan.rate * end)))


def measured(plan: LoadPlan, times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which arrivals count, that is, come after the warm-up; (n,)."""
    return times >= plan.warm_up_s
