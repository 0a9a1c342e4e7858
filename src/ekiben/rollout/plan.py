"""From what is observed and what is wanted to the ordered actions between: `plan`. Nothing is done here.

An adapter applies the actions in turn; each says what it relies on (an epoch, a claim), so that applying it late is
refused instead of doing harm. A run that was cut off is repeated from the start: `plan` then gives what is left to do.
"""

from dataclasses import dataclass
from datetime import datetime

from ekiben.errors import ConflictError, NotFoundError
from ekiben.rollout.state import Observed
from ekiben.types import BentoRef, Release, Slot

# ---- what can be wanted


@dataclass(frozen=True)
class Staged:
    """`bento` is ready in the idle slot, or live already. `anew`: what is live does not count, though it is of that
    Bento: it is of another image, or runs with other settings."""

    bento: BentoRef
    claim: str
    anew: bool = False


@dataclass(frozen=True)
class Live:
    """`release` is live. `anew` as in Staged."""

    release: Release
    claim: str
    anew: bool = False


@dataclass(frozen=True)
class RolledBack:
    """`bento` is not live any more (None: whatever is live now), but what was live before it."""

    bento: BentoRef | None
    by: str
    time: datetime
    claim: str


@dataclass(frozen=True)
class Widened:
    """`release`, which is ready in the idle slot, has a share of the traffic. `token` is this canary's alone."""

    release: Release
    percent: int
    claim: str
    token: str


@dataclass(frozen=True)
class Promoted:
    """`release`, which has its share as canary `token`, is live: never if that canary was ended meanwhile."""

    release: Release
    claim: str
    token: str


@dataclass(frozen=True)
class Narrowed:
    """Canary `token` has no share any more."""

    token: str
    claim: str


@dataclass(frozen=True)
class Retired:
    """The idle slot is stopped and no longer kept by `claim`."""

    claim: str


@dataclass(frozen=True)
class Serving:
    """What the selector names is running."""


Wanted = Staged | Live | RolledBack | Widened | Promoted | Narrowed | Retired | Serving


def held_again(seen: Observed, by: str, time: datetime) -> Release:
    """What the idle slot holds, to be made live once more: a candidate that was not judged never is. NotFoundError if
    it holds nothing that was live."""
    held = seen.slots[seen.idle].bento
    known = next((release for release in reversed(seen.history) if held and release.bento == held), None)
    if known is None:
        raise NotFoundError(
            f"{seen.idle} of {seen.service} holds {held or 'nothing'}, which was never live",
            wanted="a release that passed its tests",
            next_step="make it a release: `ekiben run` on this machine, `ekiben deploy` on a cluster",
        )
    return known.model_copy(update={"slot": seen.idle, "time": time, "by": by, "run": ""})


# ---- what can be done


@dataclass(frozen=True)
class Claim:
    slot: Slot
    claim: str
    instead_of: str

    def __str__(self) -> str:
        return f"claim {self.slot} for {self.claim}" + (f", after {self.instead_of}" if self.instead_of else "")


@dataclass(frozen=True)
class Stage:
    slot: Slot
    bento: BentoRef
    claim: str
    epoch: int

    def __str__(self) -> str:
        return f"put {self.bento} into {self.slot} and wait until it is ready, if the epoch is still {self.epoch}"


@dataclass(frozen=True)
class Start:
    slot: Slot
    bento: BentoRef

    def __str__(self) -> str:
        return f"start {self.slot} again with the {self.bento} that it holds and wait until it is ready"


@dataclass(frozen=True)
class Switch:
    release: Release
    epoch: int
    back: bool = False
    keep: str = ""

    def __str__(self) -> str:
        verb = "switch back to" if self.back else "switch to"
        return f"{verb} {self.release.slot} ({self.release.bento}), if the epoch is still {self.epoch}"


@dataclass(frozen=True)
class Widen:
    slot: Slot
    bento: BentoRef
    percent: int
    token: str
    epoch: int

    def __str__(self) -> str:
        return f"give {self.slot} ({self.bento}) {self.percent} % as well, if the epoch is still {self.epoch}"


@dataclass(frozen=True)
class Narrow:
    slot: Slot
    token: str
    epoch: int

    def __str__(self) -> str:
        return f"end the canary: all to {self.slot}, if the epoch is still {self.epoch}"


@dataclass(frozen=True)
class Stop:
    slot: Slot
    claim: str
    epoch: int

    def __str__(self) -> str:
        return f"let {self.slot} finish and stop it, if the epoch is still {self.epoch}"


@dataclass(frozen=True)
class Unclaim:
    claim: str

    def __str__(self) -> str:
        return f"give up the claim of {self.claim}"


Action = Claim | Stage | Start | Switch | Widen | Narrow | Stop | Unclaim


def plan(seen: Observed, wanted: Wanted) -> list[Action]:
    """What is left to do, in order; nothing when it is so already.

    ConflictError when somebody else who is alive holds the idle slot; NotFoundError when there is nothing to go back
    to.
    """
    match wanted:
        case Widened():
            return _widen(seen, wanted)
        case Promoted():
            return _promote(seen, wanted)
        case Narrowed(token):
            return _narrow(seen) if seen.canary and seen.canary.token == token else []
        case Serving():
            return _serve(seen)
    if seen.canary is None:
        return _settled(seen, wanted)
    if seen.canary.slot in seen.held and seen.canary.by != wanted.claim and not isinstance(wanted, RolledBack):
        if isinstance(wanted, Retired):
            return []  # the next deploy has begun
        raise ConflictError(
            f"{seen.canary.slot} of {seen.service} is the canary of {seen.canary.by}",
            wanted="no canary under way",
            next_step="wait until it ends, or end it: `ekiben rollback`",
        )
    return [*_narrow(seen), *_settled(seen.narrowed(seen.canary.token, seen.epoch), wanted)]


def _settled(seen: Observed, wanted: Staged | Live | RolledBack | Retired) -> list[Action]:
    """Where there is no canary."""
    match wanted:
        case Staged(bento, claim, anew):
            return _stage(seen, bento, claim, anew)
        case Live(release, claim, anew):
            return _live(seen, release, claim, anew)
        case RolledBack():
            return _roll_back(seen, wanted)
        case Retired(claim):
            return _retire(seen, claim)


def _widen(seen: Observed, wanted: Widened) -> list[Action]:
    slot, bento = seen.idle, wanted.release.bento
    _not_ended(seen, wanted.token)
    if seen.canary and seen.canary.token == wanted.token:
        return []
    held = seen.slots[slot]
    if seen.selector is None or seen.canary or held.claim != wanted.claim or held.bento != bento:
        raise ConflictError(
            f"{slot} of {seen.service} holds {held.bento or 'nothing complete'}, for {held.claim or 'nobody'}",
            wanted=f"{bento} besides what is live, for {wanted.claim}",
            next_step="run the command again",
        )
    return [Widen(slot, bento, wanted.percent, wanted.token, seen.epoch)]


def _promote(seen: Observed, wanted: Promoted) -> list[Action]:
    _not_ended(seen, wanted.token)
    if seen.canary is None or seen.canary.token != wanted.token:
        raise ConflictError(
            f"{wanted.release.bento} has no share of {seen.service} any more",
            wanted="the canary as it was judged",
            next_step="look at `ekiben status`, then run the command again",
        )
    there = wanted.release.model_copy(update={"slot": seen.canary.slot})
    return [*_start(seen, seen.canary.slot), Switch(there, seen.epoch, keep=wanted.claim)]


def _narrow(seen: Observed) -> list[Action]:
    assert seen.selector and seen.canary
    return [Narrow(seen.selector, seen.canary.token, seen.epoch)]


def _not_ended(seen: Observed, token: str) -> None:
    if seen.ended == token:
        raise ConflictError(
            f"somebody ended this canary of {seen.service}: what was live has all traffic again",
            wanted="a canary that is let run to its verdict",
            next_step="find out who rolled it back, and why, then deploy again",
        )


def _stage(seen: Observed, bento: BentoRef, claim: str, anew: bool = False) -> list[Action]:
    slot = seen.idle
    held = seen.slots[slot]
    if seen.active and seen.active.bento == bento and not anew:
        return []
    if held.claim != claim and slot in seen.held:
        raise ConflictError(
            f"{slot} of {seen.service} is held by {held.claim}",
            wanted=f"the idle slot, for {bento}",
            next_step="wait until that run ends, or stop it; a claim ends with the process that made it, on a cluster"
            " two minutes after it",
        )
    if held.bento != bento:
        return [*_claim(seen, claim), Stage(slot, bento, claim, seen.epoch)]
    return [*_claim(seen, claim), *_start(seen, slot)]


def _claim(seen: Observed, claim: str) -> list[Action]:
    held = seen.slots[seen.idle].claim
    return [] if held == claim else [Claim(seen.idle, claim, held)]


def _start(seen: Observed, slot: Slot) -> list[Action]:
    bento = seen.slots[slot].bento
    return [Start(slot, bento)] if bento and slot not in seen.ready else []


def _live(seen: Observed, release: Release, claim: str, anew: bool) -> list[Action]:
    if seen.active and seen.active.bento == release.bento and not anew:
        return _serve(seen)
    there = release.model_copy(update={"slot": seen.idle})
    return [*_stage(seen, release.bento, claim, anew), Switch(there, seen.epoch, keep=claim)]


def _roll_back(seen: Observed, wanted: RolledBack) -> list[Action]:
    slot = seen.idle
    if seen.active and wanted.bento not in (None, seen.active.bento):
        return []
    if seen.previous is None:
        raise NotFoundError(
            f"{seen.service} has no release before {seen.active.bento if seen.active else 'the first'}",
            wanted="a release to go back to",
            next_step="deploy the version that should be live",
        )
    back = seen.previous.model_copy(update={"slot": slot, "time": wanted.time, "by": wanted.by})
    switch = Switch(back, seen.epoch, back=True)
    if seen.slots[slot].bento == back.bento:  # whoever holds the slot keeps it for just this
        return [*_start(seen, slot), switch]
    return [*_stage(seen, back.bento, wanted.claim), switch]


def _retire(seen: Observed, claim: str) -> list[Action]:
    slot = seen.idle
    unclaim: list[Action] = [Unclaim(claim)] if any(held.claim == claim for held in seen.slots.values()) else []
    if slot not in seen.running:
        return unclaim
    if slot in seen.held and seen.slots[slot].claim != claim:
        return unclaim  # the next deploy has begun; the slot is its own affair
    return [*_claim(seen, claim), Stop(slot, claim, seen.epoch), Unclaim(claim)]


def _serve(seen: Observed) -> list[Action]:
    return _start(seen, seen.selector) if seen.selector else []
