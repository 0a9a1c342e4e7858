"""The sentences and figures that every form of the report is made of. Pure."""

from ekiben.loadtest.phrases import ms, percent, percent_range
from ekiben.report.text import duration
from ekiben.types import Check, ImageRef, LoadPlan, LoadReport, Outcome, Percentile, Proportion, Verdict

WORST_FIRST = [Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
LEVELS = (50.0, 95.0, 99.0, 99.9)

Pairs = list[tuple[str, str]]


def headline(verdict: Verdict) -> str:
    """What decided, in short: the worst check that did not pass, or that all did."""
    if unmet := [check for check in ordered(verdict) if check.outcome is not Outcome.PASS]:
        if unmet[0].outcome is Outcome.ERROR:
            return unmet[0].seen  # nothing else was judged
        rest = f", and {len(unmet) - 1} more" if len(unmet) > 1 else ""
        return f"{_decisive(unmet[0])}; wanted {unmet[0].wanted}{rest}"
    for check in verdict.checks:
        if check.name in ("search", "comparison"):  # it asks what there is, and not whether an objective is met
            return f"{check.seen}; wanted {check.wanted}"
    objectives = sum(check.name != "validity" for check in verdict.checks)
    if not objectives:
        return "no objective was judged"
    return f"{'the objective is' if objectives == 1 else f'all {objectives} objectives are'} met with 95 % confidence"


def _decisive(check: Check) -> str:
    """What was seen without the details in brackets; but where it is their bounds that leave it open, with these."""
    short, _, details = check.seen.partition(" (")
    bounds = details.removesuffix(")").partition(", n=")[0]
    return f"{short} ({bounds})" if check.outcome is Outcome.INCONCLUSIVE and "95%" in bounds else short


def ordered(verdict: Verdict) -> list[Check]:
    """The checks, the worst first."""
    return sorted(verdict.checks, key=lambda check: WORST_FIRST.index(check.outcome))


def figures(report: LoadReport) -> Pairs:
    """The run in a few numbers: name and value."""
    found = [
        ("Offered", f"{report.offered_rate:,.1f} /s"),
        ("Achieved", f"{report.achieved_rate:,.1f} /s"),
        ("Requests", f"{report.requests:,}"),
        ("Failed", percent(report.error_rate.value) if report.error_rate and report.failed else f"{report.failed:,}"),
    ]
    found += [(f"p{p.level:g}", f"{ms(p.ms)} ms") for p in report.percentiles if p.level in LEVELS]
    if report.search is not None and report.search.rate is not None:
        found.insert(0, ("Sustainable", f"{report.search.rate:,.4g} /s"))
    return found


def summary(report: LoadReport, verdict: Verdict) -> dict[str, str | float]:
    """The same for a machine that compares runs: without units, latencies in ms, rates in 1/s; only what is known."""
    found: dict[str, str | float] = {
        "verdict": str(verdict.outcome),
        "requests": report.requests,
        "offered_rate": report.offered_rate,
        "achieved_rate": report.achieved_rate,
    }
    if report.error_rate is not None:
        found["error_rate"] = report.error_rate.value
    found |= {f"p{p.level:g}_ms": p.ms for p in report.percentiles if p.level in LEVELS and p.ms is not None}
    if report.search is not None and report.search.rate is not None:
        found["sustainable_rate"] = report.search.rate
    return found


def lineage(report: LoadReport) -> Pairs:
    """What was tested, from the model to the address."""
    found = [("Service", f"{report.url} · {report.endpoint}" if report.endpoint else report.url)]
    if isinstance(report.subject, ImageRef):
        found.insert(0, ("Image", str(report.subject)))
    bento = report.bento
    if bento is not None:
        found = [
            ("Model", str(bento.model)),
            ("W&B digest", bento.model.digest or "not known"),
            ("Bento", bento.tag),
            ("Bento digest", bento.digest),
            *found,
        ]
    return found


def loop(plan: LoadPlan) -> str:
    """How requests came: the first thing to know of any latency."""
    if not plan.open_loop:
        return f"closed loop, {plan.users:,} {'user' if plan.users == 1 else 'users'}"
    if plan.trace:
        return "open loop, recorded arrivals"
    return f"open loop, {'Poisson' if plan.arrivals == 'poisson' else 'constant'} arrivals, seed {plan.seed}"


def settings(report: LoadReport) -> Pairs:
    plan = report.settings
    found = [("Arrivals", loop(plan))]
    if plan.open_loop:
        found.append(("Rate", _rate(plan)))
    found += [("Warm-up, not judged", duration(plan.warm_up_s)), ("Measured", _measured(report))]
    if report.stopped:
        found.append(("Ended because", report.stopped))
    if report.payload:
        found.append(("Requests from", report.payload))
    return [
        *found,
        ("Time-out", f"{duration(plan.timeout_s)} for the whole answer"),
        ("Generator", f"{report.workers} {'process' if report.workers == 1 else 'processes'}"),
        ("Generator's lag", f"p99 {report.lag_p99_ms:.1f} ms, at most {report.lag_max_ms:.1f} ms"),
        ("Started", f"{report.started:%Y-%m-%d %H:%M:%S} UTC"),
        *([("Settings' hash", report.settings_hash)] if report.settings_hash else []),
        ("Schema version", str(report.schema_version)),
    ]


def _rate(plan: LoadPlan) -> str:
    if plan.trace:
        return f"as recorded in {plan.trace}"
    if not plan.profile:
        return f"{plan.rate:,g} requests/s"
    if len(plan.profile) > 6:
        rates = [rate for _, rate in plan.profile]
        return f"{min(rates):,g} to {max(rates):,g} requests/s, by a profile of {len(rates)} points"
    return ", ".join(f"{rate:,g} requests/s at {duration(at)}" for at, rate in plan.profile)


def _measured(report: LoadReport) -> str:
    plan, measured = report.settings, round(report.measured_s, 2)
    text = duration(measured) if measured else "nothing"
    if measured != plan.measure_s:
        text += f" of {duration(plan.measure_s)} planned"
    return text + (f", at most {duration(plan.extend_to_s)}" if plan.extend_to_s > plan.measure_s else "")


def machine(report: LoadReport) -> Pairs:
    """Where the load came from; empty where nobody noted it."""
    found = report.machine
    if found is None:
        return []
    return [
        ("Processor", f"{found.cpu}, {found.cores} {'core' if found.cores == 1 else 'cores'}"),
        ("Memory", f"{found.memory_gb:.1f} GB"),
        ("System", found.system),
        ("Versions", f"ekiben {found.ekiben}, Locust {found.locust}, Python {found.python}"),
    ]


def signed(value: float, digits: int) -> str:
    """With + or a proper minus."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def bounded(found: Percentile | None) -> str:
    """`4.7 (4.5–4.9)`, in ms; a dash where there were too few requests."""
    return "–" if found is None else f"{ms(found.ms)} ({ms(found.lower_ms)}–{ms(found.upper_ms)})"


def bounded_share(found: Proportion | None) -> str:
    return "–" if found is None else f"{percent(found.value)} ({percent_range(found.lower, found.upper)})"
