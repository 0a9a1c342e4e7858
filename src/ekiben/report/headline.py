"""The sentences that every form of the report begins with. Pure."""

from ekiben.loadtest.phrases import ms, percent
from ekiben.types import Check, LoadReport, Outcome, Verdict

WORST_FIRST = [Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]


def headline(verdict: Verdict) -> str:
    """What decided, in short: the worst check that did not pass, or that all did."""
    if unmet := [check for check in ordered(verdict) if check.outcome is not Outcome.PASS]:
        rest = f", and {len(unmet) - 1} more" if len(unmet) > 1 else ""
        return f"{unmet[0].seen.partition(' (')[0]}; wanted {unmet[0].wanted}{rest}"
    objectives = sum(check.name != "validity" for check in verdict.checks)
    return f"{'the objective is' if objectives == 1 else f'all {objectives} objectives are'} met with 95 % confidence"


def ordered(verdict: Verdict) -> list[Check]:
    """The checks, the worst first."""
    return sorted(verdict.checks, key=lambda check: WORST_FIRST.index(check.outcome))


def figures(report: LoadReport) -> list[tuple[str, str]]:
    """The run in a few numbers: name and value."""
    found = [
        ("Offered", f"{report.offered_rate:.1f} /s"),
        ("Achieved", f"{report.achieved_rate:.1f} /s"),
        ("Requests", f"{report.requests:,}"),
        ("Failed", f"{report.failed:,}"),
    ]
    if report.error_rate is not None and report.failed:
        found[-1] = ("Failed", f"{report.failed:,} ({percent(report.error_rate.value)})")
    found += [(f"p{p.level:g}", f"{ms(p.ms)} ms") for p in report.percentiles if p.level in (50.0, 95.0, 99.0, 99.9)]
    return found


def lineage(report: LoadReport) -> list[tuple[str, str]]:
    """What was tested, from the model to the address."""
    found = [("Service", f"{report.url} · {report.endpoint}" if report.endpoint else report.url)]
    if report.subject is not None:
        bento, model = report.subject, report.subject.model
        found = [
            ("Model", str(model)),
            ("W&B digest", model.digest or "not known"),
            ("Bento", bento.tag),
            ("Bento digest", bento.digest),
            *found,
        ]
    return found


def settings(report: LoadReport) -> list[tuple[str, str]]:
    plan = report.settings
    return [
        ("Arrivals", f"open loop, {plan.arrivals}, seed {plan.seed}"),
        ("Rate", f"{plan.rate:g} requests/s"),
        ("Warm-up, not judged", f"{plan.warm_up_s:g} s"),
        ("Measured", f"{plan.measure_s:g} s"),
        ("Time-out", f"{plan.timeout_s:g} s for the whole answer"),
        ("Generator's lag", f"p99 {report.lag_p99_ms:.1f} ms, at most {report.lag_max_ms:.1f} ms"),
        ("Started", f"{report.started:%Y-%m-%d %H:%M:%S} UTC"),
        ("Schema version", str(report.schema_version)),
    ]
