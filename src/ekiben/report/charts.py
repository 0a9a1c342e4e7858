"""Charts as inline SVG, coloured by the page's CSS. Pure.

Places are given in percent of the plot, so that a chart takes any width while its text keeps its size; only lines and
areas, which SVG cannot place so, are in a stretched inner picture.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ekiben.report.axes import Axis, linear

INNER = 1000  # the inner picture's own width and height

Point = tuple[float, float | None]  # None: a gap in the line


@dataclass(frozen=True)
class Line:
    """`style` is one of the page's classes: a (main), b (second), bad, each of them also thin."""

    label: str
    style: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Band:
    """An area between two bounds, by (x, low, high); high None: without end. `style` is "" (main) or bad."""

    points: Sequence[tuple[float, float, float | None]]
    style: str = ""


@dataclass(frozen=True)
class Span:
    """A stretch of the x axis that is shaded; `label` only for the key."""

    style: str
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Segment:
    """A straight line, as of an interval or a limit; `text` stands at its end."""

    style: str
    x: tuple[float, float]
    y: tuple[float, float]
    text: str = ""


@dataclass(frozen=True)
class Dot:
    style: str
    x: float
    y: float


@dataclass(frozen=True)
class Chart:
    """`alternative` says in words what a person would read from the picture; `key` names what lines do not."""

    title: str
    unit: str
    alternative: str
    x: Axis
    y: Axis
    lines: Sequence[Line] = ()
    bands: Sequence[Band] = ()
    spans: Sequence[Span] = ()
    segments: Sequence[Segment] = ()
    dots: Sequence[Dot] = ()
    key: Sequence[tuple[str, str]] = ()

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Style and label of each thing that needs a name."""
        named = [(line.style, line.label) for line in self.lines] if len(self.lines) > 1 else []
        return [*named, *self.key, *dict.fromkeys((span.style, span.label) for span in self.spans)]

    def svg(self) -> Markup:
        paths = [*map(self._band, self.bands), *map(self._line, self.lines)]
        inner = Markup(
            '<svg width="100%" height="100%" viewBox="0 0 {s} {s}" preserveAspectRatio="none">{body}</svg>'
        ).format(s=INNER, body=_joined(paths))
        body = [
            *map(self._span, self.spans),
            *self._grid(),
            inner,
            *map(self._segment, self.segments),
            *map(self._dot, self.dots),
        ]
        return Markup('<svg class="chart" role="img" aria-label="{title}. {text}">{body}</svg>').format(
            title=self.title, text=self.alternative, body=_joined(body)
        )

    def _px(self, x: float) -> str:
        return f"{self.x.share(x) * 100:.2f}%"

    def _py(self, y: float) -> str:
        return f"{(1 - self.y.share(y)) * 100:.2f}%"

    def _at(self, x: float, y: float) -> str:
        return f"{self.x.share(x) * INNER:.1f},{(1 - self.y.share(y)) * INNER:.1f}"

    def _grid(self) -> Iterable[Markup]:
        for value, label in self.y.ticks:
            yield Markup(
                '<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
                '<text class="tick y" x="-8" y="{y}" dy=".35em">{v}</text>'
            ).format(y=self._py(value), v=label)
        for value, label in self.x.ticks:
            yield Markup('<text class="tick x" x="{x}" y="100%" dy="1.5em">{v}</text>').format(
                x=self._px(value), v=label
            )

    def _span(self, span: Span) -> Markup:
        width = (self.x.share(span.high) - self.x.share(span.low)) * 100
        return Markup('<rect class="{s}" x="{x}" y="0" width="{w:.2f}%" height="100%"/>').format(
            s=span.style, x=self._px(span.low), w=width
        )

    def _band(self, band: Band) -> Markup:
        upper = [self._at(x, self.y.high if high is None else high) for x, _, high in band.points]
        lower = [self._at(x, low) for x, low, _ in reversed(band.points)]
        return Markup('<polygon class="band {s}" points="{p}"/>').format(s=band.style, p=" ".join([*upper, *lower]))

    def _line(self, line: Line) -> Markup:
        path, pen_down = [], False
        for x, y in line.points:
            if y is not None:  # h0: a point between two gaps is still drawn, as a dot
                path.append(f"L{self._at(x, y)}" if pen_down else f"M{self._at(x, y)}h0")
            pen_down = y is not None
        return Markup('<path class="line {s}" d="{d}"/>').format(s=line.style, d="".join(path))

    def _segment(self, segment: Segment) -> Markup:
        (x1, x2), (y1, y2) = segment.x, segment.y
        drawn = Markup('<line class="{s}" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>').format(
            s=segment.style, x1=self._px(x1), x2=self._px(x2), y1=self._py(y1), y2=self._py(y2)
        )
        if not segment.text:
            return drawn
        return drawn + Markup('<text class="note {s}" x="{x}" y="{y}" dy="-.45em">{t}</text>').format(
            s=segment.style, x=self._px(x2), y=self._py(y2), t=segment.text
        )

    def _dot(self, dot: Dot) -> Markup:
        return Markup('<circle class="dot {s}" cx="{x}" cy="{y}" r="4"/>').format(
            s=dot.style, x=self._px(dot.x), y=self._py(dot.y)
        )


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def scaled(values: Iterable[float | None], bands: Sequence[Band], unit: str) -> tuple[Axis, str]:
    """An axis that holds all finite values, and bounds up to three times the highest: one that is far off would leave
    no room for the rest. With the unit, which says so where something lies beyond the axis."""
    values = list(values)
    highs = [high for band in bands for _, _, high in band.points]
    most = _highest(values)
    axis = linear(max(most, min(3 * most, _highest([most, *highs]))))
    beyond = any(v == math.inf for v in values) or any(high is None or high > axis.high for high in highs)
    return axis, f"{unit}, cut off at the top" if beyond else unit


def _highest(values: Iterable[float | None]) -> float:
    return max((v for v in values if v is not None and v < math.inf), default=1.0)
