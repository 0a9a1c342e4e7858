"""Findings as an aligned table. Pure."""

from collections import Counter
from collections.abc import Sequence

from ekiben.doctor.finding import Finding


def table(findings: Sequence[Finding]) -> str:
    """A line for each check; below what is not well what was wanted and what to do; at the end what mends it."""
    width = max(len(each.name) for each in findings)
    lines = []
    for each in findings:
        indent = " " * (9 + width)
        first, *more = each.seen.splitlines() or [""]
        lines.append(f"{each.outcome:<7}  {each.name:<{width}}  {first}".rstrip())
        lines += [f"{indent}  {line}" for line in more]
        if each.outcome != "ok":
            for label, text in (("wanted", each.wanted), ("next", each.next_step)):
                lines += [f"{indent}  {label + ':':<7} {line}" for line in text.splitlines()]
    counted = Counter(each.outcome for each in findings)
    lines += ["", ", ".join(f"{counted[outcome]} {outcome}" for outcome in ("ok", "warn", "fail", "unknown"))]
    for each in findings:
        if each.fix:
            lines += ["", f"# {each.name}: {each.next_step}", each.fix.rstrip()]
    return "\n".join(lines)
