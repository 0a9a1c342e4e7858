"""A load report as Markdown, for a pull request or a CI summary. Pure."""

from collections.abc import Sequence

from ekiben.report.headline import figures, headline, lineage, ordered, settings
from ekiben.types import LoadReport, Outcome, Verdict

MARKS = {Outcome.PASS: "✅", Outcome.FAIL: "❌", Outcome.INCONCLUSIVE: "❔", Outcome.ERROR: "⚠️"}


def render(report: LoadReport, verdict: Verdict) -> str:
    parts = [
        f"### {MARKS[verdict.outcome]} Load test {verdict.outcome}: {_text(headline(verdict))}",
        _table(
            ("", "Seen", "Wanted"),
            [(f"{MARKS[c.outcome]} {c.outcome}", _text(c.seen), _text(c.wanted)) for c in ordered(verdict)],
        ),
        " · ".join(f"{name} **{value}**" for name, value in figures(report)),
    ]
    if report.errors:
        rows = [(_text(error.kind), f"{error.count:,}", _code(error.example)) for error in report.errors]
        parts.append(_table(("Errors", "Count", "Example"), rows))
    details = [(name, _code(value)) for name, value in [*lineage(report), *settings(report)]]
    parts.append(f"<details><summary>What was tested, and how</summary>\n\n{_table(('', ''), details)}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(text: str) -> str:
    """As plain text inside a cell: whatever a server answered, it stays in its cell and formats nothing."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\|`*_[]#" else c for c in flat)


def _code(text: str) -> str:
    """As code, where also a mention or a link stays text."""
    flat = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{flat}`" if flat else ""
