"""Shows a run on Argo as it goes: a table that moves in a terminal, plain lines elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from ekiben.errors import EkibenError
from ekiben.pipeline.argo import show
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.status import Status

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
        self.client, self.console, self.last = client, console, None

    last: Status | None

    def __call__(self, status: Status) -> None:
        status = explained(self.client, status)
        for line in show.changes(self.last, status):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.last = status


class _Moving:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.last: Status | None = None

    def __call__(self, status: Status) -> None:
        self.last = explained(self.client, status)

    def picture(self) -> RenderableType:
        return show.table(self.last, datetime.now(UTC)) if self.last else ""


def explained(client: Client, status: Status) -> Status:
    """With the reason of each pending step for which Argo gives none: its pod may know, such as of an image of Argo's
    own that cannot be pulled, or of a Secret that is not there."""
    mute = [step for step in status.steps if step.phase == "Pending" and step.why in _NO_REASON]
    if not mute or status.over:
        return status
    try:
        reasons: Mapping[str, str] = client.reasons(status.name)
    except EkibenError:  # who may not list pods sees the run all the same
        return status
    steps = [
        replace(step, message=next((reasons[each] for each in step.attempts[::-1] if each in reasons), step.message))
        if step in mute
        else step
        for step in status.steps
    ]
    return replace(status, steps=tuple(steps))
