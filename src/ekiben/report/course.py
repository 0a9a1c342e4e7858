"""What happened in the course of a run, as charts over time. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence

from ekiben.loadtest.phrases import ms, percent
from ekiben.report import axes
from ekiben.report.charts import Band, Chart, Line, Point, Span, scaled
from ekiben.report.series import Stretch, stretches
from ekiben.report.text import duration
from ekiben.types import LoadReport, Percentile, Resources, Window

MAX_POINTS = 300
"""A chart is a few hundred pixels wide: what a day of seconds would add is only bytes."""

MIN_COUNT = 3
"""The least top of an axis that counts: below it the ticks would not be whole."""


def over_time(report: LoadReport) -> Iterator[Chart]:
    """From the start of the warm-up on; `report.series` is not empty."""
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
    level = _told(report.windows)
    judged_points, bounds, length = _windows(report.windows, lambda w: _level(w, level))
    judged = [Line(f"p{level:g} of {length}", "a", judged_points)] if length else []
    worst_of = "" if points[0].seconds == 1 else "worst second's "
    latency = [*judged, line(f"{worst_of}p99 {each}", "a thin" if judged else "a", lambda s: s.p99_ms)]
    if any(s.p99_ms is not None for s in points):
        y, unit = scaled([s.p99_ms for s in points] + [value for _, value in judged_points], bounds, "ms")
        yield Chart(
            title="Latency over time",
            unit=unit,
            alternative=f"Of the right answers.{worst}{_worst_window(report.windows, level, length)}",
            x=axes.time(end),
            y=y,
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
        y=axes.linear(max(v for s in points for v in (s.offered, s.answered))),
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
    y, unit = scaled([value for _, value in [*per_second, *shares]], bounds, "% of offered")
    return Chart(
        title="Failed",
        unit=unit,
        alternative=f"{report.failed:,} of {report.requests:,} requests failed, {total}, the warm-up left out.",
        x=axes.time(float(len(report.series))),
        y=y,
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
    return points, drawn, duration(round(windows[0].seconds, 1)) if drawn else ""


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


def _told(windows: Sequence[Window]) -> float:
    """The highest percentile that has bounds on both sides in at least half of the windows; p99 where none has."""
    for level in (99.0, 95.0, 50.0):
        known = [p for w in windows for p in w.percentiles if p.level == level and p.upper_ms is not None]
        if windows and len(known) * 2 >= len(windows):
            return level
    return 99.0


def _worst_window(windows: Sequence[Window], level: float, length: str) -> str:
    found: list[tuple[Window, Percentile]] = [(w, p) for w in windows for p in w.percentiles if p.level == level]
    if not found:
        return ""
    at, worst = max(found, key=lambda pair: math.inf if pair[1].ms is None else pair[1].ms)
    return (
        f" The worst {length}, from {at.at_s:g} s on, had a p{level:g} of {ms(worst.ms)} ms "
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
