"""A run for a person to read: lines for what changed, a table of its steps, JSON. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from ekiben.pipeline.argo.status import BAD, Status, Step

_MARKS = {"Succeeded": ("✓", "green"), "Failed": ("✗", "red"), "Error": ("✗", "red"), "Running": ("•", "cyan")}


def seconds(started: datetime | None, finished: datetime | None, now: datetime) -> float | None:
    """How long it took, or has taken so far; None for what has not begun."""
    return None if started is None else max(0.0, ((finished or now) - started).total_seconds())


def took(length: float | None) -> str:
    if length is None:
        return "–"
    whole = round(length)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def changes(before: Status | None, after: Status) -> Iterator[str]:
    """A line for each step, and for the run, whose phase or reason is another than before."""
    known = {step.id: (step.phase, step.why) for step in before.steps} if before else {}
    for step in after.steps:
        if known.get(step.id) != (step.phase, step.why):
            over = step.finished and step.started and step.phase not in ("Skipped", "Omitted")
            length = f" after {took(seconds(step.started, step.finished, datetime.now(UTC)))}" if over else ""
            yield f"{step.name:<20} {step.phase}{length}{f': {step.why}' if step.why else ''}"
    if before is None or (before.phase, before.message) != (after.phase, after.message):
        yield f"{after.name:<20} {after.phase}{f': {after.message}' if after.message else ''}"


def table(status: Status, now: datetime) -> Table:
    """Every step with its phase, how long it took, and what it waits for or failed of."""
    shown = Table(box=None, pad_edge=False, title_justify="left")
    shown.title = f"{status.name}  {status.phase}  {took(seconds(status.started, status.finished, now))}"
    if status.message and not (status.steps and status.phase == "Running"):
        shown.title += f"  {status.message}"
    for name in ("", "step", "phase"):
        shown.add_column(name)
    shown.add_column("duration", justify="right")
    shown.add_column("why")
    for step in status.steps:
        mark, color = _MARKS.get(step.phase, ("·", "yellow" if step.phase == "Pending" else "dim"))
        if step.waits:
            mark, color = "?", "yellow"
        length = None if step.phase in ("Skipped", "Omitted") else seconds(step.started, step.finished, now)
        # Text, not markup: a message may hold brackets.
        row = (mark, step.name, step.phase, took(length), step.why)
        shown.add_row(*(Text(cell, style=color if at in (0, 2) else "") for at, cell in enumerate(row)))
    return shown


def as_json(status: Status, namespace: str) -> dict[str, Any]:
    """What `--json` prints of a run."""
    now = datetime.now(UTC)
    return {
        "run": status.name,
        "namespace": namespace,
        "uid": status.uid,
        "phase": status.phase,
        "message": status.message,
        "seconds": seconds(status.started, status.finished, now),
        "steps": [_step(step, now) for step in status.steps],
    }


def _step(step: Step, now: datetime) -> dict[str, Any]:
    told = {"name": step.name, "phase": step.phase, "seconds": seconds(step.started, step.finished, now)}
    return {**told, "why": step.why, "exit_code": step.exit_code, "failed": step.phase in BAD}
