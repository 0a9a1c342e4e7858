"""Where the moments of a run lie on one axis of time. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from ekiben.pipeline.nodes import Try
from ekiben.report import axes

IDLE_S, IDLE_SHARE = 60.0, 0.2
"""Nothing ran for longer than both, this share being that of the time in which something did: it is left out. So it is
after a run was cut off, and went on the next day."""


@dataclass(frozen=True)
class Course:
    """`cuts` are where time is left out, in s on the axis, and how many s were."""

    began: float
    axis: axes.Axis
    cuts: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, tries: Iterable[Try]) -> "Course":
        busy: list[list[float]] = []
        for each in sorted(tries):
            if busy and each.started <= busy[-1][1]:
                busy[-1][1] = max(busy[-1][1], each.started + each.seconds)
            else:
                busy.append([each.started, each.started + each.seconds])
        if not busy:
            return cls(0.0, axes.time(1.0), ())
        most = max(IDLE_S, IDLE_SHARE * sum(end - begin for begin, end in busy))
        cuts, at, last = [], 0.0, busy[0][0]
        for begin, end in busy:
            if begin - last > most:
                cuts.append((at, begin - last))
            else:
                at += begin - last
            at, last = at + end - begin, end
        return cls(busy[0][0], axes.time(max(at, 0.001)), tuple(cuts))

    def share(self, moment: float) -> float:
        """How far along the axis this moment lies, in s since the epoch."""
        at = moment - self.began
        for where, long in self.cuts:
            if at > where:
                at -= min(long, at - where)
        return self.axis.share(at)
