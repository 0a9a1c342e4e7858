"""A search on a real service: from objectives to what is wanted of it, from load reports to what it has seen."""

import itertools
from collections.abc import Callable

from ekiben.errors import UsageError
from ekiben.loadtest.phrases import ms
from ekiben.loadtest.search import Ask, Seen, Wanted, search
from ekiben.loadtest.slo import PERCENTILES, Slo, describe
from ekiben.loadtest.statistics import min_samples_percentile
from ekiben.types import Check, LoadPlan, LoadReport, Outcome, RatePoint, Search, Verdict

Probe = Callable[[int, LoadPlan, float], LoadReport]
"""(number of the probe, its plan, limit in ms) -> its report, with the share of slower requests."""


def wanted(slo: Slo, plan: LoadPlan, budget_s: float, highest: float) -> Wanted:
    """By the objective on the highest percentile; the others must hold beside it. UsageError without any."""
    levels = {PERCENTILES[name]: name for name in slo.objectives if name in PERCENTILES}
    if not levels:
        raise UsageError("a search needs an objective on a percentile", next_step="--slo p99=300ms")
    if not plan.open_loop or plan.profile or plan.trace:
        raise UsageError("a search sets the rate itself", wanted="poisson or constant arrivals, no profile or trace")
    level = max(levels)
    name = levels[level]
    limit = slo.objectives[name]
    return Wanted(
        objective=describe(name, limit),
        limit_ms=limit,
        share=round(1 - level / 100, 6),
        samples=min_samples_percentile(level),
        start=min(plan.rate, highest),
        highest=highest,
        budget_s=budget_s,
        seed=plan.seed,
    )


def conduct(
    sought: Wanted, slo: Slo, plan: LoadPlan, probe: Probe, tell: Callable[[str], None], clock: Callable[[], float]
) -> LoadReport:
    """The report of the probe that confirmed the rate, or else of the last valid one, with what was found."""
    searching = search(sought)
    ask = next(searching)
    level = _level(sought, slo)
    best: LoadReport | None = None
    report: LoadReport
    for number in itertools.count(1):
        tell(f"{ask.stage} {number}: {ask.rate:.4g} requests/s for {ask.seconds:.0f} s")
        began = clock()
        probing = {"rate": ask.rate, "measure_s": ask.seconds, "extend_to_s": 0.0, "seed": sought.seed + number}
        report = probe(number, plan.model_copy(update=probing), sought.limit_ms)
        point = seen(report, ask, slo, level)
        tell(_told(report, point, level))
        if point is not None and (best is None or report.valid):
            best = report
        try:
            ask = searching.send(Seen(point, clock() - began))
        except StopIteration as stop:
            found: Search = stop.value
            return (best or report).model_copy(update={"search": found})
    raise AssertionError


def seen(report: LoadReport, ask: Ask, slo: Slo, level: float) -> RatePoint | None:
    """What a probe saw; None where it says nothing of the service.

    A service that lets so many requests wait that no more can be sent, or that stops answering, does not hold the rate.
    """
    overwhelmed = report.dropped > 0 or report.target_lost
    if not report.valid and not overwhelmed:
        return None
    found = report.percentile(level)
    slower = report.slower if report.slower is not None else 1.0
    return RatePoint(
        rate=ask.rate,
        seconds=ask.seconds,
        requests=max(1, report.requests),
        ms=found.ms if found and not overwhelmed else None,
        lower_ms=found.lower_ms if found and not overwhelmed else None,
        upper_ms=found.upper_ms if found and not overwhelmed else None,
        slower=1.0 if report.target_lost else slower,
        achieved_rate=report.achieved_rate,
        error_rate=report.error_rate.value if report.error_rate else 1.0,
        held=not overwhelmed and holds(report, slo),
        stage=ask.stage,
    )


def holds(report: LoadReport, slo: Slo) -> bool:
    """Whether every objective for the whole service is met as measured, without regard to what is sure."""
    for name, limit in slo.objectives.items():
        if name in PERCENTILES:
            found = report.percentile(PERCENTILES[name])
            good = found is not None and found.ms is not None and found.ms <= limit
        elif name == "error_rate":
            good = report.error_rate is not None and report.error_rate.value <= limit
        else:
            good = report.achieved is not None and report.achieved.value >= limit
        if not good:
            return False
    return True


def judge(report: LoadReport) -> Verdict:
    """PASS when a rate was found and confirmed, else INCONCLUSIVE; ERROR when nothing could be measured."""
    found = report.search
    assert found is not None
    outcome = Outcome.PASS if found.rate else Outcome.INCONCLUSIVE if found.points else Outcome.ERROR
    seen = f"INVALID: {report.reason}" if not found.points else "no rate was confirmed to hold it"
    if found.rate:
        seen = f"{found.rate:.4g} requests/s hold it, by a probe of {found.points[-1].seconds:.0f} s"
    check = Check(name="search", outcome=outcome, seen=seen, wanted=f"the highest rate that holds {found.objective}")
    return Verdict.of([check], subject=str(report.subject or report.url))


def _level(sought: Wanted, slo: Slo) -> float:
    return max(PERCENTILES[name] for name in slo.objectives if name in PERCENTILES)


def _told(report: LoadReport, point: RatePoint | None, level: float) -> str:
    if point is None:
        return f"  INVALID: {report.reason}"
    held = "holds" if point.held else "does not hold"
    return f"  p{level:g} {ms(point.ms)} ms, {point.achieved_rate:.4g} achieved: {held}"
