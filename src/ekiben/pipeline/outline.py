"""What a load test would do, before it does it: `--dry-run`. Each function gives lines by name."""

import math

from ekiben.loadtest import compare, search, searching
from ekiben.loadtest.slo import Slo, describe, needed, offered
from ekiben.types import LoadPlan


def of_run(wanted: Slo, plan: LoadPlan) -> dict[str, str]:
    told = {"load": _load(plan), "time": _time(plan)}
    if plan.open_loop:
        told["requests"] = f"{offered(plan):,} to be judged, if measured for {plan.longest_s:g} s"
    told |= {f"to prove {describe(name, limit)}": _needed(name, limit) for name, limit in wanted.objectives.items()}
    if plan.open_loop:
        wanted.require(plan)
    return told


def of_search(wanted: Slo, plan: LoadPlan, budget_s: float, highest: float) -> dict[str, str]:
    sought = searching.wanted(wanted, plan, budget_s, highest)
    fewest = search.PROBES * search.STAGES
    seconds = max(sought.seconds(search.BRACKET_S), sought.samples / sought.start)
    return {
        "objective": sought.objective,
        "bracket": f"from {sought.start:g} requests/s, doubled or halved, at most {highest:g}; "
        f"{seconds:.0f} s a probe at the first rate",
        "fit": f"{fewest} probes or more within {search.SPREAD:.0%} of the bracket's middle, "
        f"{sought.seconds(search.SHORTEST_S):.3g} to {sought.seconds(search.LONGEST_S):.3g} s each",
        "confirm": f"{sought.seconds(search.CONFIRM_S):.3g} s just below the knee",
        "requests": f"at least {sought.samples:,} in each probe",
        "time": f"at most {budget_s:g} s",
    }


def of_comparison(wanted: Slo, plan: LoadPlan) -> dict[str, str]:
    pairs = compare.Blocks.of(plan).pairs
    each = math.floor(plan.rate * (compare.BLOCK_S - compare.HEAD_S))
    figures = [name for name, fewest in compare.FIGURES.items() if each >= fewest]
    return {
        "load": _load(plan),
        "time": _time(plan),
        "blocks": f"{pairs} pairs of {compare.BLOCK_S:g} s each to A and to B, in random order; "
        f"the first {compare.HEAD_S:g} s of each not judged",
        "requests": f"about {each:,} a block, {each * pairs:,} to each of A and B",
        "figures": ", ".join(figures) or "none: too few requests in a block",
        "judged by": "; ".join(
            f"{name} not slower by more than {allowed.share:.3g} of A's and {allowed.ms:g} ms"
            for name, allowed in wanted.relative.items()
        )
        or "B not slower than A in any figure",
    }


def _load(plan: LoadPlan) -> str:
    if not plan.open_loop:
        return f"closed loop, {plan.users} users, seed {plan.seed}"
    rate = (
        f"the times in {plan.trace}"
        if plan.trace
        else ", ".join(f"{rate:g}/s at {at:g} s" for at, rate in plan.profile)
        if plan.profile
        else f"{plan.rate:g} requests/s"
    )
    return f"{rate}, {plan.arrivals}, seed {plan.seed}"


def _time(plan: LoadPlan) -> str:
    more = f", up to {plan.extend_to_s:g} s while inconclusive" if plan.extend_to_s > plan.measure_s else ""
    return f"{plan.warm_up_s:g} s warm-up, {plan.measure_s:g} s measured{more}"


def _needed(name: str, limit: float) -> str:
    return f"at least {needed(name, limit):,} requests"
