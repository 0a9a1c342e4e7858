"""Line charts as inline SVG, coloured by the page's CSS. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 30

Point = tuple[float, float | None]  # None: a gap in the line


@dataclass(frozen=True)
class Line:
    """`style` is one of the page's classes: a (main), b (second), bad."""

    label: str
    style: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """`x` runs from `x_from` to `x_to`. `alternative` says in words what a person would read from the picture."""

    title: str
    alternative: str
    lines: Sequence[Line]
    x_from: float
    x_to: float
    x_ticks: Sequence[tuple[float, str]]
    unit: str
    band: Sequence[tuple[float, float, float | None]] = field(default=())  # x, low, high; high None: without end
    shade_to: float | None = None  # the warm-up

    @property
    def top(self) -> float:
        values = [y for line in self.lines for _, y in line.points if y is not None]
        values += [high for _, _, high in self.band if high is not None]
        return ticks(max(values, default=1.0))[-1]

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_from) / ((self.x_to - self.x_from) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - min(value, self.top) / self.top * (HEIGHT - TOP - BOTTOM)

    def svg(self) -> Markup:
        parts = [self._shade(), *self._grid(), self._band(), *(self._line(line) for line in self.lines)]
        return Markup(
            '<svg viewBox="0 0 {w} {h}" role="img" aria-label="{title}. {text}"><title>{title}</title>{body}</svg>'
        ).format(w=WIDTH, h=HEIGHT, title=self.title, text=self.alternative, body=Markup("").join(parts))

    def _shade(self) -> Markup:
        if not self.shade_to:
            return Markup("")
        return Markup('<rect class="shade" x="{x}" y="{y}" width="{w:.1f}" height="{h}"/>').format(
            x=LEFT, y=TOP, w=self.x(self.shade_to) - LEFT, h=HEIGHT - TOP - BOTTOM
        )

    def _grid(self) -> list[Markup]:
        parts = []
        for value in ticks(self.top):
            parts.append(
                Markup(
                    '<line class="grid" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/>'
                    '<text class="tick" x="{t}" y="{b:.1f}" text-anchor="end">{v}</text>'
                ).format(l=LEFT, r=WIDTH - RIGHT, y=self.y(value), t=LEFT - 6, b=self.y(value) + 4, v=f"{value:,g}")
            )
        for value, label in self.x_ticks:
            parts.append(
                Markup('<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{v}</text>').format(
                    x=self.x(value), y=HEIGHT - BOTTOM + 16, v=label
                )
            )
        return parts

    def _band(self) -> Markup:
        if len(self.band) < 2:
            return Markup("")
        upper = [(x, self.top if high is None else high) for x, _, high in self.band]
        lower = [(x, low) for x, low, _ in reversed(self.band)]
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in [*upper, *lower])
        return Markup('<polygon class="band" points="{p}"/>').format(p=points)

    def _line(self, line: Line) -> Markup:
        path, pen_down = [], False
        for x, y in line.points:
            if y is not None:
                path.append(f"{'L' if pen_down else 'M'}{self.x(x):.1f},{self.y(y):.1f}")
            pen_down = y is not None
        return Markup('<path class="line {style}" d="{d}"/>').format(style=line.style, d="".join(path))


def ticks(maximum: float) -> list[float]:
    """From 0 to a round number at or above `maximum`, in three to six even steps."""
    if maximum <= 0:
        return [0.0, 1.0]
    step = 10 ** math.floor(math.log10(maximum / 3))
    for factor in (1, 2, 5, 10):
        if maximum / (step * factor) <= 5:
            step *= factor
            break
    count = math.ceil(maximum / step - 1e-9)
    return [round(step * i, 10) for i in range(count + 1)]
