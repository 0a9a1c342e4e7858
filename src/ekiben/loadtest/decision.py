"""While a load test runs: when to look at it, whether it may end, and whether it can no longer pass. Pure.

A run is looked at when its planned time is over, and where that is not enough for a verdict, again each time as much
as there was has come on top, until its budget (`extend_to_s`) is spent. What several looks do to the rate of false
verdicts is in the figures of benchmarks/verdicts.py.
"""

import numpy as np

from ekiben.loadtest.judging import judge
from ekiben.loadtest.phrases import percent
from ekiben.loadtest.recorder import DROPPED, UNFINISHED, Recording
from ekiben.loadtest.slo import PERCENTILES, Slo, describe, offered
from ekiben.loadtest.statistics import FEWEST_EFFECTIVE, clopper_pearson, min_samples_percentile, surely_below
from ekiben.loadtest.summary import figures
from ekiben.types import LoadPlan, LoadReport, Outcome


def checkpoints(plan: LoadPlan) -> tuple[float, ...]:
    """The measured seconds, ascending, after which to look; the first is `measure_s`, the last the budget."""
    looks = [plan.measure_s]
    while looks[-1] < plan.longest_s:
        looks.append(min(2 * looks[-1], plan.longest_s))
    return tuple(looks)


def settled(recording: Recording, plan: LoadPlan, slo: Slo, measured_s: float) -> str:
    """Why a run may end that was measured for `measured_s`, one of its checkpoints: its verdict; '' to go on.

    While a request that was due until then has no end yet this is not known, and ''; ask again when it has.
    What is due later is not looked at.
    """
    if recording.until(plan.warm_up_s + measured_s).is_kind(UNFINISHED).any():
        return ""
    outcome = conclusion(figures(recording, plan, measured_s), slo)
    if outcome is Outcome.INCONCLUSIVE:
        return ""
    extended = "" if measured_s <= plan.measure_s else f": {plan.measure_s:g} s were too few to tell"
    return f"{outcome} after {measured_s:g} s{extended}"


def conclusion(report: LoadReport, slo: Slo) -> Outcome:
    """PASS or FAIL where the run has come to a verdict, else INCONCLUSIVE. What is compared with the live release is
    left out: measuring on says nothing about it."""
    outcome = judge(report, slo.model_copy(update={"relative": {}})).outcome
    return outcome if outcome in (Outcome.PASS, Outcome.FAIL) else Outcome.INCONCLUSIVE


def hopeless(recording: Recording, plan: LoadPlan, slo: Slo, at_s: float) -> str:
    """Why the verdict can only be FAIL, whatever still comes until the budget is spent; '' while it can be another.

    `at_s` in s from the start of the run; what is due later, or has no end yet, may still turn out well. It only
    counts, and allows for every dependence that the bounds allow for. Never of a closed loop, whose requests to come
    are not known, nor of a run that is INVALID already.
    """
    seen = recording.until(at_s)
    first = int(np.searchsorted(seen.scheduled_s, plan.warm_up_s))
    if not plan.open_loop or first == len(seen.kind) or seen.is_kind(DROPPED).any():
        return ""
    ended = ~seen.is_kind(UNFINISHED)[first:]
    latencies = np.where(seen.ok[first:], seen.latency_ms[first:], np.float32(np.inf))[ended]
    total = offered(plan)
    for endpoint, objectives in {"": slo.objectives, **slo.endpoints}.items():
        mine = _of(seen, endpoint, first)[ended]
        most = total - int(np.count_nonzero(~mine))  # requests of this endpoint there can be in the end
        for name, limit in objectives.items():
            # Reports round to a microsecond; so much too slow is too slow there too.
            bad = latencies[mine] > np.float64(limit + 0.001) if name in PERCENTILES else np.isinf(latencies[mine])
            if _certain(name, limit, int(np.count_nonzero(bad)), len(bad), most):
                where = f" on {endpoint}" if endpoint else ""
                what = f"took longer than {limit:g} ms or failed" if name in PERCENTILES else "failed"
                return (
                    f"FAIL is certain after {at_s - plan.warm_up_s:.0f} s: {np.count_nonzero(bad):,} of at most "
                    f"{most:,} requests {what}, {percent(np.count_nonzero(bad) / most)}, wanted "
                    f"{describe(name, limit)}{where}"
                )
    return ""


def _of(seen: Recording, endpoint: str, first: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the requests after the warm-up went to the endpoint; all if it is ''."""
    if not endpoint:
        return np.ones(len(seen.kind) - first, np.bool_)
    number = seen.endpoints.index(endpoint) if endpoint in seen.endpoints else len(seen.endpoints)
    return np.equal(seen.endpoint[first:], number)


def _certain(name: str, limit: float, bad: int, ended: int, most: int) -> bool:
    """Whether `bad` of at most `most` requests fail the objective, however the others turn out and lie in time."""
    if name in PERCENTILES:
        level = PERCENTILES[name]
        # One on top, for ranks are whole numbers.
        return ended >= min_samples_percentile(level) and bad > (1.0 - surely_below(level)) * most + 1
    if ended < FEWEST_EFFECTIVE:
        return False
    share = clopper_pearson(FEWEST_EFFECTIVE * bad / most, FEWEST_EFFECTIVE)
    return share.lower > limit if name == "error_rate" else 1.0 - share.lower < limit
