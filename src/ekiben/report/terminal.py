"""A load report as lines for a terminal. Pure."""

from collections.abc import Sequence

from ekiben.loadtest.phrases import ms
from ekiben.report.headline import bounded, figures, headline, loop, ordered
from ekiben.report.text import printable, shortened
from ekiben.types import LoadReport, Outcome, Verdict

COLOURS = {Outcome.PASS: 32, Outcome.FAIL: 31, Outcome.INCONCLUSIVE: 33, Outcome.ERROR: 35}
LEVELS = (50.0, 90.0, 95.0, 99.0, 99.9)


def render(report: LoadReport, verdict: Verdict, *, colour: bool = False) -> str:
    """The verdict and what decided, then a table each of the checks, the figures, the percentiles and the errors.

    Plain text; with `colour` the outcomes have theirs.
    """

    def paint(text: str, outcome: Outcome) -> str:
        return text.replace(outcome, f"\x1b[1;{COLOURS[outcome]}m{outcome}\x1b[0m", 1) if colour else text

    lines = [paint(f"{verdict.outcome}  {_shown(headline(verdict))}", verdict.outcome)]
    lines += [f"{_shown(verdict.subject)} · {loop(report.settings)}", ""]
    width = max((len(check.outcome) for check in verdict.checks), default=0)
    for check in ordered(verdict):
        lines.append(paint(f"  {check.outcome:<{width}}  {_shown(check.seen)}", check.outcome))
        lines.append(f"  {'':<{width}}  wanted {_shown(check.wanted)}")
    told = figures(report)
    lines += ["", *_table([name for name, _ in told], [[value for _, value in told]], left=0)]
    levels = [p for p in report.percentiles if p.level in LEVELS]
    if levels:
        rows = [[f"p{p.level:g}", ms(p.ms), ms(p.lower_ms), ms(p.upper_ms)] for p in levels]
        lines += ["", *_table(["latency", "ms", "lower", "upper"], rows)]
    if report.endpoints:
        rows = [
            [_shown(e.endpoint), f"{e.requests:,}", f"{e.failed:,}", *(bounded(e.percentile(v)) for v in (50.0, 99.0))]
            for e in report.endpoints
        ]
        lines += ["", *_table(["endpoint", "requests", "failed", "p50 ms", "p99 ms"], rows)]
    if report.errors:
        rows = [[_shown(e.kind), f"{e.count:,}"] for e in report.errors]
        counted = _table(["error", "count"], rows)
        lines += ["", counted[0] + "  example"]
        lines += [f"{row}  {_shown(e.example)}" for row, e in zip(counted[1:], report.errors, strict=True)]
    said = [report.search.sure] if report.search else []
    said += [report.comparison.seen] if report.comparison else []
    said += [report.stopped] if report.stopped else []
    lines += ["", *(f"  {_shown(text)}" for text in said)] if said else []
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns as wide as their widest cell; the first `left` of them start at the left, numbers end at the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        placed = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  " + "  ".join(placed)

    return [line(head), *map(line, rows)]


def _shown(text: str) -> str:
    return shortened(printable(text))
