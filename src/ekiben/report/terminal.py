"""A load report as lines for a terminal. Pure."""

from ekiben.report.headline import figures, headline, ordered
from ekiben.types import LoadReport, Verdict


def render(report: LoadReport, verdict: Verdict) -> str:
    """The verdict and what decided, then each check, the figures, and the errors with an example."""
    lines = [f"{verdict.outcome}  {headline(verdict)}", ""]
    width = max((len(check.outcome) for check in verdict.checks), default=0)
    for check in ordered(verdict):
        lines.append(f"  {check.outcome:<{width}}  {check.seen}")
        lines.append(f"  {'':<{width}}  wanted {check.wanted}")
    lines += ["", "  " + " · ".join(f"{name} {value}" for name, value in figures(report))]
    for error in report.errors:
        lines.append(f"  {error.count:,} × {error.kind}: {_printable(error.example)}")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """An example comes from the server: its control characters shall not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
