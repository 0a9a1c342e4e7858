"""What is live, what is staged and who deploys: one immutable value per service, and the only ways it may change.

A platform keeps a `ServiceState` where a change is atomic (a file under a lock, annotations under a JSON patch with
`test`) and writes only what the methods here return. Each of them refuses, with ConflictError, what would break an
invariant: the selector is set once and never emptied; it moves only to a slot that is up with exactly the wanted Bento,
and only at the epoch that was planned for; nothing that it names is ever stopped or overwritten, and while a canary
gets its share, neither slot is.
"""

from typing import Any, Self

from pydantic import Field

from ekiben.errors import ConflictError
from ekiben.types import BentoRef, Release, Slot, Value, other

KEPT_RELEASES = 50


class SlotState(Value):
    bento: BentoRef | None = None  # what the slot holds, complete; None while it is being changed
    up: bool = False  # it became ready and was not told to stop since
    address: str = ""  # host:port where it answers, or did last
    claim: str = ""  # who deploys there, or keeps it for a rollback


class Canary(Value):
    """A share of the traffic goes to `slot`, which is not live; the rest to what is."""

    slot: Slot
    percent: int  # what was asked for
    by: str  # claim of who tries it
    token: str  # nobody else's: tells it from any canary before and after
    route: str = ""  # HTTPRoute that shares by weights; '': the selector names both slots


def _empty() -> dict[Slot, SlotState]:
    return {"blue": SlotState(), "green": SlotState()}


class ServiceState(Value):
    """`live` is the stack of releases that a rollback walks down: the last one is live now. `history` is what was made
    live, in order, rollbacks included. `epoch` grows by one with each move of the selector, a canary's begin and end
    among them. `ended`: token of the last canary that was taken back."""

    service: str
    selector: Slot | None = None
    epoch: int = 0
    slots: dict[Slot, SlotState] = Field(default_factory=_empty)
    live: tuple[Release, ...] = ()
    history: tuple[Release, ...] = ()
    canary: Canary | None = None
    ended: str = ""

    @property
    def idle(self) -> Slot:
        """The slot that the next candidate goes to."""
        return other(self.selector) if self.selector else "blue"

    @property
    def active(self) -> Release | None:
        """What is live now."""
        return self.live[-1] if self.live else None

    @property
    def previous(self) -> Release | None:
        """What a rollback would make live."""
        return self.live[-2] if len(self.live) > 1 else None

    def claimed(self, slot: Slot, claim: str, instead_of: str) -> Self:
        """`claim` holds the slot now, where `instead_of` (or '', nobody) did."""
        self._not_selected(slot, "claimed")
        held = self.slots[slot].claim
        if held not in (claim, instead_of):
            raise ConflictError(f"{slot} of {self.service} is held by {held}", wanted=f"{slot} for {claim}")
        return self._with(slot, claim=claim)

    def unclaimed(self, claim: str) -> Self:
        """Nothing is held by `claim` any more."""
        slots = {
            slot: held.model_copy(update={"claim": ""}) for slot, held in self.slots.items() if held.claim == claim
        }
        return self.model_copy(update={"slots": {**self.slots, **slots}})

    def stopping(self, slot: Slot, claim: str, epoch: int) -> Self:
        """The slot is about to be stopped. It keeps what it holds."""
        self._at(epoch)
        self._not_selected(slot, "stopped")
        self._held(slot, claim)
        return self._with(slot, up=False)

    def staging(self, slot: Slot, claim: str, epoch: int) -> Self:
        """The slot is about to be overwritten."""
        self._at(epoch)
        self._not_selected(slot, "overwritten")
        self._held(slot, claim)
        return self._with(slot, up=False, bento=None)

    def staged(self, slot: Slot, claim: str, bento: BentoRef, address: str) -> Self:
        """The slot holds `bento` and became ready."""
        self._not_selected(slot, "overwritten")
        self._held(slot, claim)
        return self._with(slot, up=True, bento=bento, address=address)

    def holding(self, slot: Slot, bento: BentoRef) -> Self:
        """No change: only that the slot holds `bento`."""
        if self.slots[slot].bento != bento:
            raise ConflictError(
                f"{slot} of {self.service} holds {self.slots[slot].bento or 'nothing complete'} by now",
                wanted=str(bento),
                next_step="run the command again",
            )
        return self

    def started(self, slot: Slot, bento: BentoRef, address: str) -> Self:
        """The slot was started again from what it holds, and became ready."""
        return self.holding(slot, bento)._with(slot, up=True, address=address)

    def switched(self, release: Release, epoch: int, *, back: bool = False, keep: str = "") -> Self:
        """The selector names `release.slot`. `back`: one step down the stack. `keep`: who keeps the old slot."""
        self._at(epoch)
        self._live_not(release.slot, "switched to again")
        self._ready(release.slot, release.bento)
        older = self.live[:-2] if back else self.live
        moved = self._with(release.slot, claim="")
        if self.selector:
            moved = moved._with(self.selector, claim=keep)
        return moved.model_copy(
            update={
                "selector": release.slot,
                "epoch": self.epoch + 1,
                "live": (*older, release)[-KEPT_RELEASES:],
                "history": (*self.history, release)[-KEPT_RELEASES:],
                "canary": None,
            }
        )

    def widened(self, canary: Canary, bento: BentoRef, epoch: int) -> Self:
        """`canary.slot`, which holds `bento`, gets its share."""
        self._at(epoch)
        self._not_selected(canary.slot, "given a share")
        self._held(canary.slot, canary.by)
        self._ready(canary.slot, bento)
        return self.model_copy(update={"canary": canary, "epoch": self.epoch + 1})

    def narrowed(self, token: str, epoch: int) -> Self:
        """The canary of that token has no share any more; what is live has all."""
        self._at(epoch)
        if self.canary is None or self.canary.token != token:
            raise ConflictError(f"{self.service} has another canary by now, or none", wanted=f"that of {token}")
        return self.model_copy(update={"canary": None, "ended": token, "epoch": self.epoch + 1})

    def _with(self, slot: Slot, **changes: Any) -> Self:
        slots = {**self.slots, slot: self.slots[slot].model_copy(update=changes)}
        return self.model_copy(update={"slots": slots})

    def _at(self, epoch: int) -> None:
        if self.epoch != epoch:
            raise ConflictError(
                f"{self.service} is at epoch {self.epoch}: somebody switched meanwhile",
                wanted=f"epoch {epoch}, which was planned for",
                next_step="look at `ekiben status`, then run the command again",
            )

    def _ready(self, slot: Slot, bento: BentoRef) -> None:
        held = self.slots[slot]
        if held.bento != bento or not held.up:
            raise ConflictError(
                f"{slot} of {self.service} holds {held.bento or 'nothing complete'}" + ("" if held.up else ", stopped"),
                wanted=f"{bento}, ready",
                next_step="stage it again",
            )

    def _not_selected(self, slot: Slot, verb: str) -> None:
        self._live_not(slot, verb)
        if self.canary:
            raise ConflictError(
                f"{slot} of {self.service} has a share of the traffic and must not be {verb}",
                wanted="no canary under way",
                next_step="wait until it ends, or end it: `ekiben rollback`",
            )

    def _live_not(self, slot: Slot, verb: str) -> None:
        if self.selector == slot:
            raise ConflictError(f"{slot} of {self.service} is live and must not be {verb}", wanted="the idle slot")

    def _held(self, slot: Slot, claim: str) -> None:
        if self.slots[slot].claim != claim:
            raise ConflictError(
                f"{slot} of {self.service} is held by {self.slots[slot].claim or 'nobody'}",
                wanted=f"held by {claim}",
                next_step="run the command again",
            )


class Observed(ServiceState):
    """The state as it is kept, and what only looking can tell."""

    running: frozenset[Slot] = frozenset()  # has a process, or pods
    ready: frozenset[Slot] = frozenset()  # and is up and answers where the state says
    held: frozenset[Slot] = frozenset()  # claimed by somebody who is alive
    listening: bool = True  # what sends traffic to the live slot is there
