"""One service in one namespace: the same plan as on a local machine, each action a fenced API call (see state.py).

A command that is cut off at any point leaves the live colour as it is; the next one derives what is left to do.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import uniform

from ekiben.errors import ConflictError
from ekiben.platforms.kubernetes.api import Api, NoAnswerError
from ekiben.platforms.kubernetes.canary import Canaries, CanaryColours
from ekiben.platforms.kubernetes.colour import TEMPLATE, fit
from ekiben.platforms.kubernetes.common import prepare
from ekiben.platforms.kubernetes.hold import Hold
from ekiben.platforms.kubernetes.route import Route
from ekiben.platforms.kubernetes.state import (
    CANARY,
    HISTORY,
    LIVE,
    Sizes,
    View,
    annotations,
    claim_key,
    releases,
    sizes,
)
from ekiben.platforms.kubernetes.traffic import Traffic
from ekiben.platforms.manifests.names import EPOCH, Delivery, Target, bento_of
from ekiben.rollout.plan import (
    Action,
    Claim,
    Live,
    Narrow,
    Narrowed,
    Promoted,
    Retired,
    RolledBack,
    Serving,
    Stage,
    Staged,
    Start,
    Stop,
    Switch,
    Unclaim,
    Wanted,
    Widen,
    Widened,
    plan,
)
from ekiben.rollout.state import Observed
from ekiben.types import SLOTS, BentoRef, ImageRef, Release, Slot, other

ATTEMPTS = 6  # to plan anew when somebody else changed what was planned for, or no answer came
DRAIN_SECONDS = 5.0  # until all nodes know that the old colour gets no new connections


@dataclass(frozen=True)
class Endpoint:
    slot: Slot
    url: str


class KubernetesPlatform:
    """`holder` is what claims belong to: a run's name, so that its steps in different pods share them; '' for this
    process alone. `say` gets a line whenever there is something new to tell."""

    def __init__(
        self,
        api: Api,
        target: Target,
        *,
        holder: str = "",
        say: Callable[[str], None] = lambda line: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.target, self.service = target, target.service
        self.hold = Hold(api, target, holder, say, now, sleep)
        self.traffic = Traffic(self.hold)
        self._colours = CanaryColours(self.hold)
        self._canaries = Canaries(self.hold, self.traffic, self._colours)
        self._deliveries: dict[BentoRef, Delivery] = {}

    @property
    def url(self) -> str:
        """Where clients inside the cluster reach the service, whichever colour is live."""
        return f"http://{self.target.name}.{self.target.settings.namespace}.svc"

    def observe(self) -> Observed:
        """What is live, staged, running, ready and claimed. A service that was never deployed is empty."""
        view = self.hold.look()
        return self._observed(view, at_size=view.canary is None)  # a canary is meant to be smaller

    def last_seen(self) -> Observed:
        """As `observe`, from what is known already: no request is made."""
        return self._observed(self.hold.known, at_size=True)

    def history(self) -> list[Release]:
        """What was made live, the newest last, rollbacks included; the last 20."""
        return list(self.hold.look().state.history)

    def plan(self, wanted: Wanted) -> list[Action]:
        """What is left to do until it is as wanted; nothing is done."""
        return self._planned(self.hold.look(), wanted)

    def brings(self, delivery: Delivery) -> None:
        """This command deploys just that: a Bento that is there from another image, or with other settings, is not
        yet it."""
        self._deliveries[bento_of(delivery)] = delivery

    def stage(self, delivery: Delivery, claim: str) -> Endpoint:
        """Make that Bento, or its image, ready in the idle colour, at the live one's size; `claim` then holds it.

        ConflictError while somebody else holds the colour; UnavailableError, with the reason, when it does not become
        ready.
        """
        bento = bento_of(delivery)
        self.brings(delivery)
        prepare(self.hold)
        self._reach(Staged(bento, self.hold.claim(claim)))
        state = self.hold.known.state
        live = state.active is not None and state.active.bento == bento and not self._outdated(self.hold.known, bento)
        slot = state.selector if live and state.selector else state.idle
        return Endpoint(slot, f"http://{self.target.preview}.{self.target.settings.namespace}.svc")

    def switch(self, release: Release) -> None:
        """Send new connections to `release`, which must be in the idle colour; nothing happens if it is live already.

        The colour that was live stays as it is, held for a rollback, until `retire`. ConflictError when the idle
        colour holds something else, or is held by somebody else.
        """
        wanted = Live(release, self.hold.claim(release.run or release.by))
        if any(isinstance(action, Stage) for action in self._planned(self.hold.known, wanted)):
            state = self.hold.known.state
            raise ConflictError(
                f"{state.idle} of {self.service} holds {state.slots[state.idle].bento or 'nothing complete'}",
                wanted=str(release.bento),
                next_step="stage it again",
            )
        self.traffic.readable()
        self._reach(wanted)
        self.traffic.verify()

    def rollback(self, by: str) -> Release:
        """Make live again what was before, started anew where it was stopped. The live colour's health plays no part.
        While a canary has its share, that is to end it.

        NotFoundError when there was none.
        """
        state = self.hold.look().state
        live = state.active
        if state.canary:
            self.narrow(state.canary.token, by)
            now = self.hold.known.state.active
            if live and live == now:
                return live
            live = now  # it was made live meanwhile
        return self.take_back(live.bento if live else None, by)

    def take_back(self, bento: BentoRef | None, by: str) -> Release:
        """As `rollback`, but only if `bento` is what is live; if another is by now, no rollback leads to `bento` any
        more. Returns what is live then."""
        wanted = RolledBack(bento, by, self.hold.now(), self.hold.claim(by))
        self._reach(wanted)
        self._forget(bento)
        self.traffic.verify()
        active = self.hold.known.state.active
        assert active is not None
        return active

    def share(self, percent: int) -> None:
        """From here on a candidate is only as big as such a share takes; 0: as big as what is live."""
        self._colours.percent = percent

    def widen(self, release: Release, percent: int) -> str:
        """Give `release`, which must be staged by this command, that share of the traffic besides what is live.
        Returns the canary's token. ConflictError as in `switch`."""
        self.share(percent)
        token, name = secrets.token_hex(8), self.target.settings.http_route
        self.traffic.readable()
        fence = Route(self.hold, name).fence() if name else None
        self._reach(Widened(release, percent, self.hold.claim(release.run or release.by), token))
        if name:
            self.traffic.preview(release.slot)
            Route(self.hold, name).share(percent, fence, token)
        return token

    def share_seen(self, token: str) -> str:
        """What share that canary has by now, in words. ConflictError if it was ended; UnavailableError if its pods get
        no traffic."""
        return self._canaries.share_seen(token)

    def promote(self, release: Release, token: str) -> None:
        """Make canary `token` as big as what is live, then live alone. ConflictError if it was ended meanwhile."""
        self.share(0)
        self._reach(Promoted(release, self.hold.claim(release.run or release.by), token))
        self.traffic.verify()

    def narrow(self, token: str, by: str) -> None:
        """End that canary, if it is not over: what was live has all traffic again."""
        self._reach(Narrowed(token, self.hold.claim(by)))
        self.traffic.verify()

    def end_own_canary(self, by: str) -> None:
        """As `narrow`, whichever canary this command has under way."""
        canary = self.hold.look().canary
        if canary and canary.by.endswith(self.hold.holder):
            self.narrow(canary.token, by)

    def retire(self) -> None:
        """Let the idle colour finish and scale it to 0, unless somebody else holds it; it keeps its Bento for a
        rollback. The live colour's autoscaler gets its own limits back."""
        self._reach(Retired(self.hold.claim("retire")))
        self._colours.let_go()

    def ensure_serving(self) -> None:
        """Start the live colour again if somebody scaled it to 0, and wait until it is ready."""
        self._reach(Serving())
        if self.hold.known.state.selector:
            self.traffic.verify()

    # ---- planning

    def _observed(self, view: View, at_size: bool) -> Observed:
        """`at_size`: an idle colour that is smaller than the live one is not ready."""
        state, now = view.state, self.hold.now()
        size = {slot: sizes(view.deployments[slot]) for slot in SLOTS}
        wanted, ready = self._colours.size(view), set()
        for slot in SLOTS:
            if slot == state.selector:
                good = size[slot].available > 0
            else:
                good = fit(size[slot], wanted) if at_size else size[slot].serves
            if good:
                ready.add(slot)
        stale = {slot for slot in SLOTS if slot != state.selector and self._outdated_slot(view, slot)}
        slots = {
            slot: held.model_copy(update={"bento": None}) if slot in stale else held
            for slot, held in state.slots.items()
        }
        return Observed(
            **{**dict(state), "slots": slots},
            running=frozenset(slot for slot in SLOTS if size[slot].wanted or size[slot].there),
            ready=frozenset(ready),
            held=frozenset(slot for slot in SLOTS if (claim := view.claim(slot)) and claim.until > now),
        )

    def _planned(self, view: View, wanted: Wanted) -> list[Action]:
        if isinstance(wanted, Staged):
            wanted = replace(wanted, anew=self._outdated(view, wanted.bento))
        if isinstance(wanted, Live):
            wanted = replace(wanted, anew=self._outdated(view, wanted.release.bento))
        return plan(self._observed(view, at_size=not isinstance(wanted, RolledBack)), wanted)

    def _outdated(self, view: View, bento: BentoRef) -> bool:
        """Whether what is live was made of `bento`, but of another image or with other settings."""
        state = view.state
        return bool(state.active and state.active.bento == bento and self._outdated_slot(view, state.active.slot))

    def _outdated_slot(self, view: View, slot: Slot) -> bool:
        delivery = self._deliveries.get(bento) if (bento := view.state.slots[slot].bento) else None
        made = annotations(view.deployments[slot]).get(TEMPLATE)
        return delivery is not None and made != self._colours.digest(slot, delivery)

    def _reach(self, wanted: Wanted) -> None:
        """Plans, and does it; looks and plans again where something has changed meanwhile."""
        view = self.hold.known
        for attempt in range(ATTEMPTS):
            if isinstance(wanted, Live | Promoted) and _was_live(view, wanted.release):
                return  # it was switched to, whatever became of it since
            actions = self._planned(view, wanted)
            try:
                for action in actions:
                    self.apply(action, "" if isinstance(wanted, Serving) else wanted.claim)
                return
            except (ConflictError, NoAnswerError):
                if attempt + 1 == ATTEMPTS:
                    raise
                self.hold.sleep(uniform(0.5, 1.5) * 0.2 * 2**attempt)
                view = self.hold.look()

    # ---- doing

    def apply(self, action: Action, claim: str) -> None:
        """Do one planned action for `claim`; ConflictError if what it relies on has changed since."""
        match action:
            case Claim(slot):
                self.hold.take(slot, claim)
            case Unclaim():
                mine = {claim_key(slot): None for slot in SLOTS if self.hold.known.state.slots[slot].claim == claim}
                if mine:
                    self.hold.change_service(mine)
            case Stage(slot, bento):
                self.hold.known.state.staging(slot, claim, action.epoch)
                self.traffic.preview(slot)  # early, so that its endpoints follow while pods start
                self._colours.put(slot, self.delivery(bento), claim)
            case Start(slot, bento) if slot == self.hold.known.state.selector:
                self._colours.revive(slot)
            case Start(slot, bento):
                self._colours.start(slot, bento, claim)
            case Switch():
                self._switch(action, claim)
            case Widen():
                self._canaries.widen(action, claim)
            case Narrow():
                self._canaries.narrow(action)
            case Stop(slot):
                self.hold.known.state.stopping(slot, claim, action.epoch)
                self.hold.sleep(DRAIN_SECONDS)
                for _ in range(ATTEMPTS):
                    scaler = self._colours.keda(slot)  # read first: whoever takes the colour over writes it
                    self.hold.take(slot, claim, ("/spec/replicas", 0))
                    if scaler is None or self._colours.pause(scaler):
                        break
                else:
                    self.hold.say(f"{slot}: KEDA may start it again")

    def delivery(self, bento: BentoRef) -> Delivery:
        """How `bento` is delivered: as this command was told, else as it was when it was live."""
        if bento in self._deliveries:
            return self._deliveries[bento]
        state = self.hold.known.state
        image = next((r.image for r in reversed((*state.history, *state.live)) if r.bento == bento), "")
        repository, _, digest = image.partition("@")
        return ImageRef(repository=repository, digest=digest, bento=bento) if image else bento

    def _switch(self, action: Switch, claim: str) -> None:
        slot, stamp = action.release.slot, self.hold.take(action.release.slot, claim)
        # Read under the stamp: from here to the switch nobody else can have changed it.
        self.hold.look_at(*((slot, other(slot)) if not action.back and self.hold.known.state.selector else (slot,)))
        view, size = self.hold.known, sizes(self.hold.known.deployments[slot])
        wanted = 1 if action.back else self._colours.size()
        good = size.serves if action.back else fit(size, wanted)
        if view.fence(slot) != stamp or not good:
            raise ConflictError(
                f"{slot} of {self.service} is no longer ready: {_told(size)}",
                wanted=f"{wanted} pods of {action.release.bento}",
                next_step="run the command again",
            )
        if not action.back and (old := view.state.selector):
            self._colours.hold_size(old, sizes(view.deployments[old]).wanted, claim)
        after = view.state.switched(action.release, action.epoch, back=action.back, keep=action.keep)
        claims = {
            claim_key(each): str(self.hold.token(c)) if (c := after.slots[each].claim) else None for each in SLOTS
        }
        made: dict[str, str | None] = {
            EPOCH: str(after.epoch),
            LIVE: releases(after.live),
            HISTORY: releases(after.history),
        }
        made |= {CANARY: None} if view.state.canary else {}
        self._canaries.close_route()
        try:
            self.hold.change_service({**made, **claims}, self.target.selector(slot))
        except NoAnswerError:
            if not _was_live(self.hold.look(), action.release):
                raise
        self.hold.stamps.clear()
        self.hold.say(f"{slot}: {action.release.bento} is live")

    def _forget(self, bento: BentoRef | None) -> None:
        """Take `bento` out of what a rollback walks down."""
        for attempt in range(ATTEMPTS):
            view = self.hold.known
            live = view.state.live
            kept = tuple(release for release in live if release.bento != bento)
            if kept == live or not kept or kept[-1] != live[-1]:
                return
            try:
                self.hold.change_service({LIVE: releases(kept)})
                return
            except (ConflictError, NoAnswerError):
                if attempt + 1 == ATTEMPTS:
                    raise
                self.hold.look()


def _was_live(view: View, release: Release) -> bool:
    """Whether just this release was switched to, in whichever colour."""
    return any(
        (made.bento, made.time, made.by) == (release.bento, release.time, release.by) for made in view.state.history
    )


def _told(size: Sizes) -> str:
    return f"{size.available} of {size.wanted} pods available, {size.updated} of its newest template"
