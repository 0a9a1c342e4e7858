"""A load report as one self-contained HTML page: no script, no request to the network, light and dark. Pure."""

import math
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ekiben.loadtest.phrases import ms
from ekiben.report.charts import Chart, Line, ticks
from ekiben.report.headline import figures, headline, lineage, ordered, settings
from ekiben.types import LoadReport, Verdict

MAX_POINTS = 600  # a chart is 400 units wide: a run of hours is drawn from every n-th second


def render(report: LoadReport, verdict: Verdict) -> str:
    return _template().render(
        report=report,
        verdict=verdict,
        headline=headline(verdict),
        checks=ordered(verdict),
        figures=figures(report),
        lineage=lineage(report),
        settings=settings(report),
        charts=_charts(report),
        ms=ms,
    )


@cache
def _template() -> Template:
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template("load.html.j2")


def _charts(report: LoadReport) -> list[Chart]:
    charts = [_percentiles(report)] if any(p.ms is not None for p in report.percentiles) else []
    return [*charts, *_over_time(report)] if report.series else charts


def _percentiles(report: LoadReport) -> Chart:
    """Latency against percentile; the tail is stretched, so that 90, 99 and 99.9 stand equally far apart."""
    finite = [p for p in report.percentiles if p.ms is not None]

    def x(level: float) -> float:
        return -math.log10(1 - level / 100)

    words = ", ".join(
        f"p{p.level:g} {ms(p.ms)} ms ({ms(p.lower_ms)} to {ms(p.upper_ms)})" for p in finite if p.level >= 50
    )
    return Chart(
        title="Latency by percentile",
        alternative=f"With 95 % bounds: {words}.",
        lines=[Line("latency", "a", [(x(p.level), p.ms) for p in finite])],
        band=[(x(p.level), p.lower_ms or 0.0, p.upper_ms) for p in finite],
        x_from=0.0,
        x_to=x(finite[-1].level),
        x_ticks=[(x(v), f"p{v:g}") for v in (50, 75, 90, 95, 99, 99.9, 99.99) if v <= finite[-1].level],
        unit="ms",
    )


def _over_time(report: LoadReport) -> list[Chart]:
    seconds = report.series[:: math.ceil(len(report.series) / MAX_POINTS)]
    end = float(len(report.series))
    warm_up = min(report.settings.warm_up_s, end)
    slowest = max((s for s in report.series if not s.warm_up and s.p99_ms), key=lambda s: s.p99_ms or 0, default=None)
    errors = sum(s.errors for s in report.series if not s.warm_up)
    peak = max(s.in_flight for s in report.series)
    worst = f"The worst second, at {slowest.at_s} s, had a p99 of {ms(slowest.p99_ms)} ms." if slowest else ""
    x_ticks = [(t, f"{t:g} s") for t in ticks(end) if t <= end]

    def chart(title: str, alternative: str, unit: str, *lines: Line) -> Chart:
        return Chart(title, alternative, lines, 0.0, end, x_ticks, unit, shade_to=warm_up)

    return [
        chart(
            "Latency over time",
            f"Each second's right answers. {worst}",
            "ms",
            Line("p99", "a", [(s.at_s + 0.5, s.p99_ms) for s in seconds]),
            Line("p50", "b", [(s.at_s + 0.5, s.p50_ms) for s in seconds]),
        ),
        chart(
            "Offered, answered, failed",
            f"{report.offered_rate:.1f} requests/s offered, {report.achieved_rate:.1f} answered right in time, "
            f"{errors:,} failed.",
            "requests/s",
            Line("offered", "b", [(s.at_s + 0.5, s.offered) for s in seconds]),
            Line("answered", "a", [(s.at_s + 0.5, s.completed) for s in seconds]),
            Line("failed", "bad", [(s.at_s + 0.5, s.errors) for s in seconds]),
        ),
        chart(
            "In flight",
            f"Requests that wait for their answer; at most {peak:,} at the end of a second.",
            "requests",
            Line("in flight", "a", [(s.at_s + 1.0, s.in_flight) for s in seconds]),
        ),
    ]
