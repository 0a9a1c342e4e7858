"""Which charts a load report has. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence

from ekiben.loadtest.phrases import ms, percent
from ekiben.report import axes
from ekiben.report.charts import Band, Chart, Dot, Line, Point, Segment, Span
from ekiben.report.headline import signed
from ekiben.report.series import Stretch, stretches
from ekiben.report.text import duration
from ekiben.types import Comparison, LoadReport, Percentile, Resources, Search, Window

MAX_POINTS = 300
"""A chart is a few hundred pixels wide: what a day of seconds would add is only bytes."""

MIN_COUNT = 3
"""The least top of an axis that counts: below it the ticks would not be whole."""


def of_latency(report: LoadReport) -> list[Chart]:
    """Latency by percentile, then what happened over time, as far as it was measured."""
    found = [_percentiles(report)] if any(p.ms is not None for p in report.percentiles) else []
    return [*found, *_over_time(report)] if report.series else found


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
    ticks = [(x(v), f"p{v:g}") for v in (50, 90, 99, 99.9, 99.99) if x(v) <= last]
    return Chart(
        title="Latency by percentile",
        unit="ms",
        alternative=f"With 95 % bounds: {words}.",
        x=axes.Axis(0.0, last, ticks),
        y=axes.linear(_most([p.ms for p in shown] + [p.upper_ms for p in shown])),
        lines=[Line("latency", "a", [(x(p.level), p.ms) for p in finite])],
        bands=[Band([(x(p.level), p.lower_ms or 0.0, p.upper_ms) for p in shown])],
        key=[("band", "95 % bounds")],
    )


def _over_time(report: LoadReport) -> Iterator[Chart]:
    end = float(len(report.series))
    points = stretches(report.series, MAX_POINTS)
    each = "each second" if points[0].seconds == 1 else f"in {duration(points[0].seconds)}"
    warm_up = min(report.settings.warm_up_s, end)
    cut = [Span("shade", 0.0, warm_up, "warm-up")] if warm_up else []

    def line(label: str, style: str, value: Callable[[Stretch], float | None]) -> Line:
        only = points[0] if len(points) == 1 else None  # one point is no line
        ends = [(only.at_s, value(only)), (only.at_s + only.seconds, value(only))] if only else []
        return Line(label, style, ends or [(s.middle_s, value(s)) for s in points])

    slowest = max((s for s in report.series if not s.warm_up and s.p99_ms), key=lambda s: s.p99_ms or 0, default=None)
    worst = f" The worst second, at {slowest.at_s} s, had a p99 of {ms(slowest.p99_ms)} ms." if slowest else ""
    p99, bounds, length = _windows(report.windows, lambda w: _level(w, 99.0))
    judged = [Line(f"p99 of {length}", "a", p99)] if length else []
    worst_of = "" if points[0].seconds == 1 else "worst second's "
    latency = [*judged, line(f"{worst_of}p99 {each}", "a thin" if judged else "a", lambda s: s.p99_ms)]
    if any(s.p99_ms is not None for s in points):
        yield Chart(
            title="Latency over time",
            unit="ms; the top edge is without end" if any(y == math.inf for _, y in p99) else "ms",
            alternative=f"Of the right answers.{worst}{_worst_window(report.windows, length)}",
            x=axes.time(end),
            y=axes.linear(_most([s.p99_ms for s in points] + [high for b in bounds for _, _, high in b.points])),
            lines=[*latency, line(f"p50 {each}", "b", lambda s: s.p50_ms)],
            bands=bounds,
            spans=cut,
            key=[("band", "95 % bounds")] if length else (),
        )
    yield Chart(
        title="Offered and answered",
        unit="requests/s",
        alternative=f"{report.offered_rate:.1f} requests/s offered, {report.achieved_rate:.1f} answered right in time.",
        x=axes.time(end),
        y=axes.linear(_most([v for s in points for v in (s.offered, s.answered)])),
        lines=[line("offered", "b", lambda s: s.offered), line("answered", "a", lambda s: s.answered)],
        spans=cut,
    )
    if any(s.failed for s in points):
        yield _errors(report, points, each, cut)
    yield Chart(
        title="In flight",
        unit="requests",
        alternative=f"Sent and not yet answered; at most {max(s.in_flight for s in points):,} at the end of a second.",
        x=axes.time(end),
        y=axes.linear(max(MIN_COUNT, *(s.in_flight for s in points))),
        lines=[line("in flight", "a", lambda s: s.in_flight)],
        spans=cut,
    )


def _errors(report: LoadReport, points: Sequence[Stretch], each: str, cut: Sequence[Span]) -> Chart:
    shares, bounds, length = _windows(report.windows, _failed, "bad")
    judged = [Line(f"of {length}", "bad", shares)] if length else []
    per_second = [(s.middle_s, None if s.failed_share is None else s.failed_share * 100) for s in points]
    total = percent(report.error_rate.value) if report.error_rate else "an unknown share"
    return Chart(
        title="Failed",
        unit="% of what was offered",
        alternative=f"{report.failed:,} of {report.requests:,} requests failed, {total}, the warm-up left out.",
        x=axes.time(float(len(report.series))),
        y=axes.linear(_most([v for _, v in per_second] + [high for b in bounds for _, _, high in b.points])),
        lines=[*judged, Line(each, "bad thin" if judged else "bad", per_second)],
        bands=bounds,
        spans=cut,
        key=[("band bad", "95 % bounds")] if length else (),
    )


Bounds = tuple[float | None, float, float | None]  # value, low, high; None: without end


def _windows(
    windows: Sequence[Window], figure: Callable[[Window], Bounds | None], style: str = ""
) -> tuple[list[Point], list[Band], str]:
    """A stepped line and its bounds, as far as windows have the figure; and how long a window is, '' without any."""
    points: list[Point] = []
    bands: list[list[tuple[float, float, float | None]]] = [[]]
    for window in windows:
        found = figure(window)
        ends = (window.at_s, window.at_s + window.seconds)
        if found is None:
            points.append((ends[0], None))
            bands.append([])
            continue
        value, low, high = found
        points += [(end, value) for end in ends]
        bands[-1] += [(end, low, high) for end in ends]
    drawn = [Band(band, style) for band in bands if band]
    return points, drawn, duration(round(windows[0].seconds, 2)) if drawn else ""


def _level(window: Window, level: float) -> Bounds | None:
    """What is infinite lies on the top edge of the chart, so that it does not look as if it were not known."""
    found = next((p for p in window.percentiles if p.level == level), None)
    if found is None:
        return None
    return (
        math.inf if found.ms is None else found.ms,
        math.inf if found.lower_ms is None else found.lower_ms,
        found.upper_ms,
    )


def _failed(window: Window) -> Bounds | None:
    share = window.error_rate
    return None if share is None else (share.value * 100, share.lower * 100, share.upper * 100)


def _worst_window(windows: Sequence[Window], length: str) -> str:
    found: list[tuple[Window, Percentile]] = [(w, p) for w in windows for p in w.percentiles if p.level == 99.0]
    if not found:
        return ""
    at, worst = max(found, key=lambda pair: math.inf if pair[1].ms is None else pair[1].ms)
    return (
        f" The worst {length}, from {at.at_s:g} s on, had a p99 of {ms(worst.ms)} ms "
        f"({ms(worst.lower_ms)} to {ms(worst.upper_ms)})."
    )


def of_server(report: LoadReport) -> list[Chart]:
    """What the service's processes used, as far as it was sampled."""
    samples = report.resources
    if not samples:
        return []
    end = max(float(len(report.series)), samples[-1].at_s)
    warm_up = min(report.settings.warm_up_s, end)
    every = math.ceil(len(samples) / MAX_POINTS)

    def chart(title: str, unit: str, value: Callable[[Resources], float | None]) -> Iterator[Chart]:
        known = [v for v in map(value, samples) if v is not None]
        if not known:
            return
        groups = [samples[i : i + every] for i in range(0, len(samples), every)]
        points = [(g[0].at_s, max((v for v in map(value, g) if v is not None), default=None)) for g in groups]
        yield Chart(
            title=title,
            unit=unit,
            alternative=f"Mean {sum(known) / len(known):,.4g}, at most {max(known):,.4g}, {unit}.",
            x=axes.time(end),
            y=axes.linear(max(MIN_COUNT, *known)),
            lines=[Line(title, "a", points)],
            spans=[Span("shade", 0.0, warm_up, "warm-up")] if warm_up else (),
        )

    return [
        *chart("CPU", "% of one core", lambda r: r.cpu_percent),
        *chart("Memory", "MB", lambda r: r.memory_mb),
        *chart("In progress", "requests, as the service counts them", lambda r: r.in_progress),
    ]


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


def _most(values: Sequence[float | None]) -> float:
    return max((v for v in values if v is not None and v < math.inf), default=1.0)
