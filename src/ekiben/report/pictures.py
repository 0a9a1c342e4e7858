"""Which charts a load report has. Pure."""

import math

from ekiben.loadtest.phrases import ms
from ekiben.report import axes
from ekiben.report.charts import Band, Chart, Dot, Line, Segment, Span, scaled
from ekiben.report.course import over_time
from ekiben.report.headline import signed
from ekiben.types import Comparison, LoadReport, Search


def of_latency(report: LoadReport) -> list[Chart]:
    """Latency by percentile, then what happened over time, as far as it was measured."""
    found = [_percentiles(report)] if any(p.ms is not None for p in report.percentiles) else []
    return [*found, *over_time(report)] if report.series else found


def _percentiles(report: LoadReport) -> Chart:
    """The tail is stretched, so that 90, 99 and 99.9 stand equally far apart."""

    def x(level: float) -> float:
        return -math.log10(1 - level / 100)

    finite = [p for p in report.percentiles if p.ms is not None]
    shown = [p for p in report.percentiles if p.lower_ms is not None]
    last = x(report.percentiles[-1].level)
    words = ", ".join(
        f"p{p.level:g} {ms(p.ms)} ms ({ms(p.lower_ms)} to {ms(p.upper_ms)})"
        for p in report.percentiles
        if p.level >= 50
    )
    bands = [Band([(x(p.level), p.lower_ms or 0.0, p.upper_ms) for p in shown])]
    y, unit = scaled([p.ms for p in finite] + [p.lower_ms for p in shown], bands, "ms")
    ticks = [(x(v), f"p{v:g}") for v in (50, 90, 99, 99.9, 99.99) if x(v) <= last]
    return Chart(
        title="Latency by percentile",
        unit=unit,
        alternative=f"With 95 % bounds: {words}.",
        x=axes.Axis(0.0, last, ticks),
        y=y,
        lines=[Line("latency", "a", [(x(p.level), p.ms) for p in finite])],
        bands=bands,
        key=[("band", "95 % bounds")],
    )


def of_search(search: Search) -> Chart | None:
    """Each probe's latency against its rate, the objective's limit, and where the knee is."""
    finite = [p for p in search.points if p.ms]
    if not finite:
        return None
    beyond = [p for p in search.points if p.ms is None]
    rates = [p.rate for p in search.points]
    values = [v for p in finite for v in (p.ms, p.lower_ms, p.upper_ms) if v] + [search.limit_ms]
    y = axes.logarithmic(min(values), max(values) * (2 if beyond else 1))
    x = axes.linear(max(rates + [r for r in (search.knee, search.upper) if r]))
    held = sum(p.held for p in search.points)
    spans = [Span("knee", search.lower, search.upper, "the knee's interval")] if search.lower and search.upper else []
    marks = [Segment("rate", (search.rate, search.rate), (y.low, y.high))] if search.rate else []
    bars = [
        Segment(_held(p.held), (p.rate, p.rate), (p.lower_ms or y.low, p.upper_ms or y.high)) for p in finite if p.ms
    ]
    return Chart(
        title="Latency by offered rate",
        unit="ms, on a logarithmic scale",
        alternative=(
            f"{len(search.points)} probes between {min(rates):,.4g} and {max(rates):,.4g} requests/s; "
            f"{held} held {search.objective}, {len(search.points) - held} did not."
        ),
        x=x,
        y=y,
        spans=spans,
        segments=[
            Segment("limit", (x.low, x.high), (search.limit_ms, search.limit_ms), search.objective),
            *marks,
            *bars,
        ],
        dots=[Dot(_held(p.held), p.rate, p.ms or y.high) for p in search.points],
        key=[
            ("dot held", "held"),
            *([("dot missed", "did not hold")] if held < len(search.points) else []),
            *([("rate", "confirmed")] if marks else []),
        ],
    )


def _held(held: bool) -> str:
    return "held" if held else "missed"


def of_comparison(comparison: Comparison) -> Chart | None:
    """For each figure, how much slower or faster B is, with its interval, around no difference."""
    rows = comparison.differences
    if not rows:
        return None
    changes = [((d.ratio_lower - 1) * 100, (d.ratio - 1) * 100, (d.ratio_upper - 1) * 100) for d in rows]
    x = axes.around_zero(min(c[0] for c in changes), max(c[2] for c in changes), " %")
    top = float(len(rows))
    heights = [top - 0.5 - i for i in range(len(rows))]
    styles = ["plain" if not d.significant else "missed" if d.ratio > 1 else "held" for d in rows]
    words = [
        f"{d.name} {signed(middle, 1)} % ({signed(low, 1)} to {signed(high, 1)} %)"
        for d, (low, middle, high) in zip(rows, changes, strict=True)
    ]
    return Chart(
        title="Change of latency",
        unit="B against A, with 95 % intervals",
        alternative="; ".join(words) + ".",
        x=x,
        y=axes.Axis(0.0, top, [(h, d.name) for h, d in zip(heights, rows, strict=True)]),
        segments=[
            Segment("zero", (0.0, 0.0), (0.0, top)),
            *(Segment(s, (c[0], c[2]), (h, h)) for s, c, h in zip(styles, changes, heights, strict=True)),
        ],
        dots=[Dot(s, c[1], h) for s, c, h in zip(styles, changes, heights, strict=True)],
        key=[
            (f"dot {style}", label)
            for style, label in (("missed", "slower"), ("held", "faster"), ("plain", "no difference shown"))
            if style in styles
        ],
    )
