"""While a load test runs: when to look at it, whether it may end, and whether it can no longer pass. Pure.

A run is looked at when its planned time is over, and where that is not enough for a verdict, again each time as much
as there was has come on top, until its budget (`extend_to_s`) is spent.
"""

from ekiben.loadtest.recorder import UNFINISHED, Recording
from ekiben.loadtest.slo import Slo, judge
from ekiben.loadtest.summary import figures
from ekiben.types import LoadPlan, Outcome


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
    due = recording.scheduled_s < plan.warm_up_s + measured_s
    if (recording.is_kind(UNFINISHED) & due).any():
        return ""
    verdict = judge(figures(recording, plan, measured_s), slo)
    if verdict.outcome not in (Outcome.PASS, Outcome.FAIL):
        return ""
    return f"{verdict.outcome} after {measured_s:g} s"


def hopeless(recording: Recording, plan: LoadPlan, slo: Slo, at_s: float) -> str:
    """Why the verdict can only be FAIL, whatever still comes until the budget is spent; '' while it can be another.

    `at_s` in s from the start of the run; what is due later, or has no end yet, may still turn out well.
    """
    return ""
