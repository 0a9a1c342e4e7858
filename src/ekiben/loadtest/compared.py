"""What a comparison means: a verdict on it, and two saved reports side by side. Pure."""

from ekiben.errors import UsageError
from ekiben.loadtest import judging
from ekiben.loadtest.phrases import ms
from ekiben.loadtest.slo import Slo
from ekiben.loadtest.statistics import clopper_pearson
from ekiben.types import Check, Comparison, LoadReport, Outcome, Percentile, Verdict


def judge(report: LoadReport, wanted: Slo) -> Verdict:
    """By the relative objectives, if there are any; else B must not be slower than A in any figure. B must not fail
    more often either way."""
    found = report.comparison
    if found is None or not report.valid:
        return judging.judge(report, Slo())
    checks = list(judging.judge(report, Slo(relative=wanted.relative)).checks)
    if not wanted.relative:
        bad, unknown = found.outcome in ("slower", "mixed"), found.outcome == "too little data"
        outcome = Outcome.FAIL if bad else Outcome.INCONCLUSIVE if unknown else Outcome.PASS
        checks.append(Check(name="comparison", outcome=outcome, seen=found.seen, wanted="B not slower than A"))
    return Verdict.of([*checks, _failures(found)], subject=f"{found.b} against {found.a}")


def beside(a: LoadReport, b: LoadReport) -> list[tuple[str, str]]:
    """Percentiles of two comparable reports, A's and B's, with whether their bounds meet.

    UsageError when they are not comparable. They were measured one after the other, so even bounds that do not meet
    may be the machine's doing.
    """
    if not a.settings_hash or a.settings_hash != b.settings_hash:
        raise UsageError(
            f"the reports cannot be compared: their settings are {a.settings_hash or 'not known'} and "
            f"{b.settings_hash or 'not known'}",
            wanted="the same load, requests and machine",
            next_step="measure both anew together: ekiben loadtest compare A B",
        )
    rows = []
    for mine in b.percentiles:
        theirs = a.percentile(mine.level)
        if mine.level not in (50.0, 95.0, 99.0, 99.9) or theirs is None:
            continue
        apart = _above(mine, theirs) or _above(theirs, mine)
        told = "the bounds do not meet" if apart else "no difference shown"
        rows.append((f"p{mine.level:g}", f"{_bounded(theirs)} → {_bounded(mine)} ms: {told}"))
    return rows


def _above(high: Percentile, low: Percentile) -> bool:
    return low.upper_ms is not None and (high.lower_ms is None or high.lower_ms > low.upper_ms)


def _bounded(p: Percentile) -> str:
    return f"{ms(p.ms)} ({ms(p.lower_ms)}–{ms(p.upper_ms)})"


def _failures(found: Comparison) -> Check:
    a, b = (
        clopper_pearson(failed, max(1, requests))
        for failed, requests in ((found.failed_a, found.requests_a), (found.failed_b, found.requests_b))
    )
    seen = (
        f"{found.failed_b:,} of {found.requests_b:,} requests to B failed, "
        f"{found.failed_a:,} of {found.requests_a:,} to A"
    )
    outcome = Outcome.FAIL if b.lower > a.upper else Outcome.PASS
    return Check(name="failures", outcome=outcome, seen=seen, wanted="B not failing more often than A")
