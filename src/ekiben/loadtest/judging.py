"""Whether a load report meets its service-level objectives. Pure.

A check passes only when the bound on its bad side is within the objective, and fails only when the other bound is
beyond it; in between the run knows too little: INCONCLUSIVE. An INVALID report is an ERROR whatever its figures are.
"""

from ekiben.loadtest.phrases import change, ms, percent, percent_range
from ekiben.loadtest.slo import PERCENTILES, VS_LIVE, Allowance, Slo, describe
from ekiben.loadtest.statistics import min_samples_percentile
from ekiben.types import Check, EndpointReport, LoadReport, Outcome, Percentile, Verdict


def judge(report: LoadReport, slo: Slo, *, live: bool = True) -> Verdict:
    """One check for the run's validity and one for each objective. `live`: whether there is a live release; without
    one there is nothing to be slower than."""
    checks = [_validity(report)]
    where = f" on {report.endpoint}" if report.endpoint else ""
    for name, limit in slo.objectives.items():
        checks.append(_check(report, report, name, limit, where, name))
    for endpoint, objectives in slo.endpoints.items():
        for name, limit in objectives.items():
            checks.append(_check(report, _part(report, endpoint), name, limit, f" on {endpoint}", f"{name} {endpoint}"))
    checks += [_check_live(report, name, allowed, live) for name, allowed in slo.relative.items()]
    return Verdict.of(checks, subject=str(report.subject or report.url))


def _part(report: LoadReport, endpoint: str) -> LoadReport | EndpointReport | None:
    if report.endpoint == endpoint:
        return report
    return next((part for part in report.endpoints if part.endpoint == endpoint), None)


def _validity(report: LoadReport) -> Check:
    wanted = "a run that kept its schedule to the end"
    if not report.valid:
        return Check(name="validity", outcome=Outcome.ERROR, seen=f"INVALID: {report.reason}", wanted=wanted)
    seen = f"VALID: requests started at most {report.lag_max_ms:.0f} ms late (p99 {report.lag_p99_ms:.1f} ms)"
    return Check(name="validity", outcome=Outcome.PASS, seen=seen, wanted=wanted)


def _check(
    report: LoadReport, part: LoadReport | EndpointReport | None, name: str, limit: float, where: str, called: str
) -> Check:
    outcome, seen = Outcome.INCONCLUSIVE, f"{name.replace('_', ' ')} unknown: no requests"
    if part is not None and part.requests:
        outcome, seen = _judge(part, report, name, limit)
    if not report.valid:
        outcome = Outcome.INCONCLUSIVE
    return Check(name=called, outcome=outcome, seen=seen, wanted=describe(name, limit) + where)


def _judge(part: LoadReport | EndpointReport, report: LoadReport, name: str, limit: float) -> tuple[Outcome, str]:
    if name in PERCENTILES:
        return _judge_percentile(part, name, limit)
    share = part.error_rate if name == "error_rate" else part.achieved
    if share is None:
        return Outcome.INCONCLUSIVE, f"{name.replace('_', ' ')} unknown: not in the report"
    bounds = f"95% bounds {percent_range(share.lower, share.upper)}, n={part.requests:,}"
    if name == "error_rate":
        seen = f"error rate {percent(share.value)} ({part.failed:,} failed; {bounds})"
        return _outcome(share.upper <= limit, share.lower > limit), seen
    rate = report.offered_rate * part.requests / report.requests
    seen = f"achieved rate {percent(share.value)} ({part.achieved_rate:.1f} of {rate:.1f} requests/s; {bounds})"
    return _outcome(share.lower >= limit, share.upper < limit), seen


def _judge_percentile(part: LoadReport | EndpointReport, name: str, limit: float) -> tuple[Outcome, str]:
    found = part.percentile(PERCENTILES[name])
    if found is None:
        needed = min_samples_percentile(PERCENTILES[name])
        return Outcome.INCONCLUSIVE, f"{name} unknown: {part.requests:,} requests, at least {needed:,} are needed"
    passed = found.upper_ms is not None and found.upper_ms <= limit
    failed = found.lower_ms is None or found.lower_ms > limit
    return _outcome(passed, failed), _seen(name, found, part)


def _seen(name: str, found: Percentile, part: LoadReport | EndpointReport) -> str:
    sample = f"n={part.requests:,}, worth {found.effective_samples:,} independent"
    if found.ms is None:
        return f"no {name}: {part.failed:,} of {part.requests:,} requests got no right answer ({sample})"
    margin = ", the upper by margin" if found.by_margin else ""
    return f"{name} {ms(found.ms)} ms (95% bounds {ms(found.lower_ms)}–{ms(found.upper_ms)} ms{margin}, {sample})"


def _check_live(report: LoadReport, name: str, allowed: Allowance, live: bool) -> Check:
    wanted = f"{name} not slower than live by more than {percent(allowed.share)} and {allowed.ms:g} ms"
    outcome = Outcome.INCONCLUSIVE
    found = report.comparison.difference(name) if report.comparison else None
    if not live:
        outcome, seen = Outcome.PASS, "there is no live release"
    elif found is None:
        why = "too little was measured" if report.comparison else "it was not compared with the live release"
        seen = f"{name} against live unknown: {why}"
    else:
        outcome = _outcome(
            found.ratio_upper <= 1 + allowed.share or found.ms_upper <= allowed.ms,
            found.ratio_lower > 1 + allowed.share and found.ms_lower > allowed.ms,
        )
        seen = (
            f"{name} {ms(found.b_ms)} ms, live {ms(found.a_ms)} ms: {change(found.ratio - 1)} "
            f"(95% interval {change(found.ratio_lower - 1)} to {change(found.ratio_upper - 1)}, "
            f"{found.ms_lower:+.3g} to {found.ms_upper:+.3g} ms)"
        )
    return Check(
        name=f"{name}{VS_LIVE}", outcome=outcome if report.valid else Outcome.INCONCLUSIVE, seen=seen, wanted=wanted
    )


def _outcome(passed: bool, failed: bool) -> Outcome:
    return Outcome.PASS if passed else Outcome.FAIL if failed else Outcome.INCONCLUSIVE
