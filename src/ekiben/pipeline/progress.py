"""Shows a run as it goes: moving lines in a terminal, plain ones elsewhere. Everything goes to `console`."""

import time
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ekiben.pipeline.nodes import Event, Node

_MARKS = {"Succeeded": "[green]✓[/]", "Failed": "[red]✗[/]", "Error": "[red]✗[/]"}


class Display(Protocol):
    def tell(self, event: Event) -> None: ...

    def close(self) -> None: ...


def display(console: Console) -> Display:
    return Moving(console) if console.is_terminal else Plain(console)


class Plain:
    """A line for each thing that happens, with the seconds since the start: what a log file or CI wants."""

    def __init__(self, console: Console) -> None:
        self.console, self.started = console, time.monotonic()

    def tell(self, event: Event) -> None:
        if event.kind == "start":
            text = "started"
        elif event.node is not None:
            text = _ended(event.node)
        else:
            text = f"| {event.text}" if event.kind == "line" else f"again: {event.text}"
        at = f"{time.monotonic() - self.started:6.1f} s  {event.task:<10} "
        self.console.print(at + text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        return


class Moving:
    """One line per running step, with its latest word; a step that ended stays above."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[last]}"),
            console=console,
            transient=True,
        )
        self.rows: dict[str, TaskID] = {}
        self.progress.start()

    def tell(self, event: Event) -> None:
        if event.kind == "start":
            self.rows[event.task] = self.progress.add_task(event.task, total=None, last="")
        elif event.kind in ("line", "retry"):
            if event.text.strip():
                self.progress.update(self.rows[event.task], last=escape(event.text[:100]))
        elif event.node is not None:
            if event.task in self.rows:
                self.progress.remove_task(self.rows.pop(event.task))
            if event.node.phase != "Omitted":
                mark = _MARKS.get(event.node.phase, "·")
                self.progress.console.print(f"{mark} {event.task:<10} {escape(_ended(event.node))}", soft_wrap=True)

    def close(self) -> None:
        self.progress.stop()


def _ended(node: Node) -> str:
    if node.phase in ("Omitted", "Skipped"):
        return node.phase.lower()
    return f"{node.phase.lower()} after {node.seconds:.1f} s"


def table(nodes: tuple[Node, ...]) -> Table:
    """Step, duration and outcome of every node."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("step")
    shown.add_column("duration", justify="right")
    shown.add_column("outcome")
    for node in nodes:
        ran = node.phase not in ("Omitted", "Skipped")
        style = "red" if node.phase in ("Failed", "Error") else "" if ran else "dim"
        shown.add_row(node.name, f"{node.seconds:.1f} s" if ran else "–", node.phase, style=style)
    return shown
