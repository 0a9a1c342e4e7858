"""Metric curves as SVG paths. Pure."""

import json
import math
from collections.abc import Iterable
from typing import NamedTuple

WIDTH, HEIGHT = 300, 80  # of the drawing's own coordinates
MAX_POINTS = 300


class Curve(NamedTuple):
    """One metric over its steps. `path` is SVG's; numbers are written as a person would."""

    name: str
    path: str
    first_step: str
    last_step: str
    low: str
    high: str
    last: str


def curves(lines: Iterable[tuple[int | None, str]]) -> list[Curve]:
    """A curve for each number that the history's lines (step, JSON) hold, by name; W&B's own (`_…`) left out."""
    series: dict[str, list[tuple[int, float]]] = {}
    for step, text in lines:
        for name, value in json.loads(text).items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if number and not name.startswith("_"):
                series.setdefault(name, []).append((step or 0, float(value)))
    return [_curve(name, points) for name, points in sorted(series.items())]


def _curve(name: str, points: list[tuple[int, float]]) -> Curve:
    points = sorted(points)
    stride = max(1, len(points) // MAX_POINTS)
    shown = points[::stride] if points[-1] in points[::stride] else [*points[::stride], points[-1]]
    steps, values = [step for step, _ in shown], [value for _, value in shown]
    low, high = min(values), max(values)

    def place(step: int, value: float) -> str:
        x = WIDTH * (step - steps[0]) / (steps[-1] - steps[0]) if steps[-1] > steps[0] else WIDTH / 2
        y = HEIGHT * (1 - (value / 2 - low / 2) / (high / 2 - low / 2)) if high > low else HEIGHT / 2
        return f"{x:.1f} {y:.1f}"

    path = "M" + "L".join(place(step, value) for step, value in shown)
    if len(shown) == 1:
        path += "h0.01"  # a line of no length is not drawn; its round end is
    return Curve(name, path, str(steps[0]), str(steps[-1]), f"{low:.4g}", f"{high:.4g}", f"{values[-1]:.4g}")
