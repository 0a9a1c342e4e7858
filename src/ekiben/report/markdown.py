"""A load report as Markdown, for a pull request or a CI summary. Pure."""

from collections.abc import Sequence

from ekiben.loadtest.phrases import ms
from ekiben.report.headline import (
    bounded,
    bounded_share,
    figures,
    headline,
    lineage,
    loop,
    machine,
    ordered,
    settings,
    signed,
)
from ekiben.report.text import printable, shortened
from ekiben.types import LoadReport, Outcome, Verdict

MARKS = {Outcome.PASS: "✅", Outcome.FAIL: "❌", Outcome.INCONCLUSIVE: "❔", Outcome.ERROR: "⚠️"}
MAX_ROWS = 20
"""Of a table, so that the whole stays within the 65,536 characters that a comment may have; the rest is in the JSON."""

Row = Sequence[str]


def render(report: LoadReport, verdict: Verdict) -> str:
    checks = [(f"{MARKS[c.outcome]} {c.outcome}", _text(c.seen), _text(c.wanted)) for c in ordered(verdict)]
    parts = [
        f"### {MARKS[verdict.outcome]} Load test {verdict.outcome}: {_text(headline(verdict))}",
        f"{_code(verdict.subject)} · {loop(report.settings)}",
        _table(("", "Seen", "Wanted"), checks),
        " · ".join(f"{name} **{value}**" for name, value in figures(report)),
        *_search(report),
        *_comparison(report),
    ]
    if report.endpoints:
        rows = [
            (
                _code(e.endpoint),
                f"{e.requests:,}",
                bounded_share(e.error_rate) if e.failed else "0",
                *(bounded(e.percentile(level)) for level in (50.0, 95.0, 99.0)),
            )
            for e in report.endpoints
        ]
        parts.append(_table(("Endpoint", "Requests", "Failed", "p50 ms", "p95 ms", "p99 ms"), rows, numbers=1))
    if report.errors:
        rows = [(_text(e.kind), f"{e.count:,}", _code(e.example)) for e in report.errors]
        parts.append(_table(("Errors", "Count", "Example"), rows))
    details = [(name, _code(value)) for name, value in [*lineage(report), *settings(report), *machine(report)]]
    parts.append(
        f"<details><summary>What was tested, and how</summary>\n\n{_table(('', ''), details, most=99)}\n\n</details>"
    )
    return "\n\n".join(parts) + "\n"


def _search(report: LoadReport) -> list[str]:
    return [f"**Highest sustainable rate.** {_text(report.search.sure)}"] if report.search else []


def _comparison(report: LoadReport) -> list[str]:
    found = report.comparison
    if found is None:
        return []
    rows = [
        (
            d.name,
            ms(d.a_ms),
            ms(d.b_ms),
            f"{_change(d.ratio)} % ({_change(d.ratio_lower)} to {_change(d.ratio_upper)} %)",
            "" if not d.significant else "slower" if d.ratio > 1 else "faster",
        )
        for d in found.differences
    ]
    said = f"**Candidate against live.** {_text(found.seen)}"
    return [said, _table(("", "Live ms", "Candidate ms", "Change", ""), rows, numbers=1)] if rows else [said]


def _change(ratio: float) -> str:
    return signed((ratio - 1) * 100, 1)


def _table(head: Row, rows: Sequence[Row], *, most: int = MAX_ROWS, numbers: int | None = None) -> str:
    """Columns from `numbers` on end at the right."""
    rule = tuple("---" if numbers is None or i < numbers else "---:" for i in range(len(head)))
    table = "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows[:most]])
    return table + (f"\n\nand {len(rows) - most:,} more in report.json" if len(rows) > most else "")


def _text(text: str) -> str:
    """As plain text inside a cell: whatever a server answered, it stays in its cell and formats nothing."""
    flat = shortened(printable(text)).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\|`*_[]#~" else c for c in flat).replace("@", "@\u200b")


def _code(text: str) -> str:
    """As code, where also a mention or a link stays text."""
    flat = shortened(printable(text), 200).replace("`", "'").replace("|", "\\|")
    return f"`{flat}`" if flat else ""
