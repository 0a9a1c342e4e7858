"""Shows a run on Argo as it goes: a table that moves in a terminal, plain lines elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from ekiben.errors import EkibenError
from ekiben.pipeline.argo import show
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.status import Status, Step

PATIENCE_S = 5.0
"""Most pods start in less; nobody is asked about those."""
_NO_REASON = ("", "ContainerCreating", "PodInitializing")


class Display(Protocol):
    def __call__(self, status: Status) -> None: ...


@contextmanager
def display(client: Client, console: Console) -> Iterator[Display]:
    """What is to be told of each state of a run, for as long as the block runs."""
    if not console.is_terminal:
        yield _Plain(client, console)
        return
    shown = _Moving(client)
    with Live(get_renderable=shown.picture, console=console, refresh_per_second=2):
        yield shown


class _Plain:
    def __init__(self, client: Client, console: Console) -> None:
        self.reasons, self.console = Reasons(client), console
        self.last: Status | None = None

    def __call__(self, status: Status) -> None:
        status = self.reasons.explained(status)
        for line in show.changes(self.last, status):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.last = status


class _Moving:
    def __init__(self, client: Client) -> None:
        self.reasons = Reasons(client)
        self.last: Status | None = None

    def __call__(self, status: Status) -> None:
        self.last = self.reasons.explained(status)

    def picture(self) -> RenderableType:
        return show.table(self.last, datetime.now(UTC)) if self.last else ""


class Reasons:
    """Why steps are pending for which Argo itself gives no reason: their pods may know, such as of an image of Argo's
    own that cannot be pulled, or of a Secret that is not there. They are asked only now and then."""

    def __init__(self, client: Client) -> None:
        self.client, self.asked = client, monotonic()
        self.known: Mapping[str, str] = {}

    def explained(self, status: Status) -> Status:
        mute = [step for step in status.steps if step.phase == "Pending" and step.why in _NO_REASON]
        if not mute or status.over:
            return status
        if monotonic() - self.asked >= PATIENCE_S:
            with suppress(EkibenError):  # who may not list pods sees the run all the same
                self.known = self.client.reasons(status.name)
            self.asked = monotonic()

        def told(step: Step) -> Step:
            reason = next((self.known[each] for each in step.attempts[::-1] if each in self.known), step.message)
            return replace(step, message=reason) if step in mute else step

        return replace(status, steps=tuple(told(step) for step in status.steps))
