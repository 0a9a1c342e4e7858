"""One service in one namespace: the same plan as on a local machine, each action a fenced API call (see state.py).

A command that is cut off at any point leaves the live colour as it is; the next one derives what is left to do.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import uniform

from ekiben.errors import ConflictError, NotFoundError, UnavailableError, UsageError
from ekiben.platforms.kubernetes.api import Api, NoAnswerError, path
from ekiben.platforms.kubernetes.rollout import Wait, progress, waits
from ekiben.platforms.kubernetes.state import (
    FENCE,
    HISTORY,
    LIVE,
    Claimed,
    Sizes,
    View,
    annotations,
    claim_key,
    fenced,
    new_stamp,
    not_foreign,
    ours,
    releases,
    releasing,
    sizes,
    stamping,
)
from ekiben.platforms.manifests import groups, shared, workload
from ekiben.platforms.manifests.names import EPOCH, PORT, PORT_NAME, Delivery, Manifest, Target, bento_of
from ekiben.rollout.plan import (
    Action,
    Claim,
    Live,
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
    plan,
)
from ekiben.rollout.state import Observed
from ekiben.types import SLOTS, BentoRef, ImageRef, Release, Slot, other

ATTEMPTS = 6  # to plan anew when somebody else changed what was planned for, or no answer came
CLAIM_SECONDS = 120.0  # how long a claim lasts that nobody renews
HOPELESS_SECONDS = 30.0  # how long what time does not mend is watched all the same: registries have bad moments
LATE_SECONDS = 660.0  # beyond the environment's start_seconds: finding a node, pulling an image
DRAIN_SECONDS = 5.0  # until all nodes know that the old colour gets no new connections
VERIFY_SECONDS = 30.0
WATCH_SECONDS = 10
FLOOR = "ekiben.dev/floor"
"""Annotation of an autoscaler: the claim for which it holds the colour at the size that it was switched with."""
TEMPLATE = "ekiben.dev/template"
"""Annotation of a Deployment: digest of the template that was applied."""

SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
PLURALS = {
    "Service": "services",
    "Deployment": "deployments",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "ScaledObject": "scaledobjects",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "NetworkPolicy": "networkpolicies",
    "ServiceMonitor": "servicemonitors",
    "PrometheusRule": "prometheusrules",
}


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
        self.api, self.target, self.service = api, target, target.service
        self._holder = f"({holder or secrets.token_hex(4)})"
        self._say, self._now, self._sleep = say, now, sleep
        self._view: View | None = None  # as read last, with the answers to our own writes since
        self._stamps: dict[Slot, str] = {}
        self._deliveries: dict[BentoRef, Delivery] = {}

    @property
    def url(self) -> str:
        """Where clients inside the cluster reach the service, whichever colour is live."""
        return f"http://{self.target.name}.{self.target.settings.namespace}.svc"

    # ---- what commands call

    def observe(self) -> Observed:
        """What is live, staged, running, ready and claimed. A service that was never deployed is empty."""
        return self._observed(self._look(), at_size=True)

    def last_seen(self) -> Observed:
        """As `observe`, from what is known already: no request is made."""
        return self._observed(self._known, at_size=True)

    def history(self) -> list[Release]:
        """What was made live, the newest last, rollbacks included; the last 20."""
        return list(self._look().state.history)

    def plan(self, wanted: Wanted) -> list[Action]:
        """What is left to do until it is as wanted; nothing is done."""
        return self._planned(self._look(), wanted)

    def brings(self, delivery: Delivery) -> None:
        """This command deploys just that: a Bento that is there from another image, or with other settings, is not
        yet it."""
        self._deliveries[bento_of(delivery)] = delivery

    def live_slot(self) -> Slot:
        """What the selector named when it was read last. NotFoundError where nothing was ever live."""
        slot = self._known.state.selector
        if slot is None:
            raise NotFoundError(f"{self.service} was never live", next_step=f"ekiben deploy {self.service}")
        return slot

    def stage(self, delivery: Delivery, claim: str) -> Endpoint:
        """Make that Bento, or its image, ready in the idle colour, at the live one's size; `claim` then holds it.

        ConflictError while somebody else holds the colour; UnavailableError, with the reason, when it does not become
        ready.
        """
        bento = bento_of(delivery)
        self.brings(delivery)
        self._prepare()
        self._reach(Staged(bento, self._claim(claim)))
        state = self._known.state
        live = state.active is not None and state.active.bento == bento and not self._outdated(self._known, bento)
        slot = state.selector if live and state.selector else state.idle
        return Endpoint(slot, f"http://{self.target.preview}.{self.target.settings.namespace}.svc")

    def switch(self, release: Release) -> None:
        """Send new connections to `release`, which must be in the idle colour; nothing happens if it is live already.

        The colour that was live stays as it is, held for a rollback, until `retire`. ConflictError when the idle
        colour holds something else, or is held by somebody else.
        """
        wanted = Live(release, self._claim(release.run or release.by))
        if any(isinstance(action, Stage) for action in self._planned(self._known, wanted)):
            state = self._known.state
            raise ConflictError(
                f"{state.idle} of {self.service} holds {state.slots[state.idle].bento or 'nothing complete'}",
                wanted=str(release.bento),
                next_step="stage it again",
            )
        self._ends()  # who may not read the endpoints learns it before the switch
        self._reach(wanted)
        self.verify()

    def rollback(self, by: str) -> Release:
        """Make live again what was before, started anew where it was stopped. The live colour's health plays no part.

        NotFoundError when there was none.
        """
        live = self._look().state.active
        return self.take_back(live.bento if live else None, by)

    def take_back(self, bento: BentoRef | None, by: str) -> Release:
        """As `rollback`, but only if `bento` is what is live; if another is by now, no rollback leads to `bento` any
        more. Returns what is live then."""
        wanted = RolledBack(bento, by, self._now(), self._claim(by))
        self._reach(wanted)
        self._forget(bento)
        self.verify()
        active = self._known.state.active
        assert active is not None
        return active

    def retire(self) -> None:
        """Let the idle colour finish and scale it to 0, unless somebody else holds it; it keeps its Bento for a
        rollback. The live colour's autoscaler gets its own limits back."""
        self._reach(Retired(self._claim("retire")))
        self._let_go()

    def ensure_serving(self) -> None:
        """Start the live colour again if somebody scaled it to 0, and wait until it is ready."""
        self._reach(Serving())
        if self._known.state.selector:
            self.verify()

    def renew(self) -> None:
        """Hold on to the colours that this command has claimed. ConflictError if another took one of them over."""
        view = self._known
        mine = {slot: claim for slot in SLOTS if (claim := view.claim(slot)) and claim.by.endswith(self._holder)}
        due = self._now() + timedelta(seconds=CLAIM_SECONDS / 2)
        late = {claim_key(slot): str(self._token(claim.by)) for slot, claim in mine.items() if claim.until < due}
        if late:
            self._change_service(late)

    # ---- planning

    @property
    def _known(self) -> View:
        return self._view or self._look()

    def _look(self) -> View:
        """Reads the Deployments, then the Service: a fence is read before a claim that relies on it."""
        found = {slot: self.api.find(self._path("apps/v1", "deployments", self.target.of(slot))) for slot in SLOTS}
        service = ours(self.target, self.api.find(self._path("v1", "services", self.target.name)))
        view = self._view = View(self.target, service, found)
        self._stamps = {
            slot: stamp
            for slot, stamp in self._stamps.items()
            if view.fence(slot) == stamp and (claim := view.claim(slot)) and claim.by.endswith(self._holder)
        }
        return view

    def _observed(self, view: View, at_size: bool) -> Observed:
        """`at_size`: an idle colour that is smaller than the live one is not ready."""
        state, now = view.state, self._now()
        size = {slot: sizes(view.deployments[slot]) for slot in SLOTS}
        live = size[state.selector].wanted if state.selector else 0
        ready = set()
        for slot in SLOTS:
            if slot == state.selector:
                fit = size[slot].available > 0
            else:
                fit = self._fit(size[slot], max(1, live)) if at_size else size[slot].serves
            if fit:
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
        return delivery is not None and annotations(view.deployments[slot]).get(TEMPLATE) != self._digest(
            slot, delivery
        )

    def _reach(self, wanted: Wanted) -> None:
        """Plans, and does it; looks and plans again where something has changed meanwhile."""
        view = self._known
        for attempt in range(ATTEMPTS):
            if isinstance(wanted, Live) and wanted.release in view.state.history:
                return  # it was switched to, whatever became of it since
            actions = self._planned(view, wanted)
            try:
                for action in actions:
                    self.apply(action, "" if isinstance(wanted, Serving) else wanted.claim)
                return
            except (ConflictError, NoAnswerError):
                if attempt + 1 == ATTEMPTS:
                    raise
                self._sleep(uniform(0.5, 1.5) * 0.2 * 2**attempt)
                view = self._look()

    def apply(self, action: Action, claim: str) -> None:
        """Do one planned action for `claim`; ConflictError if what it relies on has changed since."""
        match action:
            case Claim(slot):
                self._take(slot, claim)
            case Unclaim():
                mine = {claim_key(slot): None for slot in SLOTS if self._known.state.slots[slot].claim == claim}
                if mine:
                    self._change_service(mine)
            case Stage(slot, bento):
                self._known.state.staging(slot, claim, action.epoch)
                self._put(slot, self.delivery(bento), claim)
            case Start(slot, bento) if slot == self._known.state.selector:
                self._revive(slot)
            case Start(slot, bento):
                self._start(slot, bento, claim)
            case Switch():
                self._switch(action, claim)
            case Stop(slot):
                self._known.state.stopping(slot, claim, action.epoch)
                self._sleep(DRAIN_SECONDS)
                self._take(slot, claim, ("/spec/replicas", 0))

    # ---- claims and fences

    def _claim(self, who: str) -> str:
        """The claim of this command's holder: the one it has, else a new one by `who`."""
        held = (slot.claim for slot in self._known.state.slots.values())
        return next((claim for claim in held if claim.endswith(self._holder)), f"{who} {self._holder}")

    def _token(self, claim: str) -> Claimed:
        return Claimed(claim, self._now() + timedelta(seconds=CLAIM_SECONDS), secrets.token_hex(4))

    def _take(self, slot: Slot, claim: str, *changes: tuple[str, object]) -> str:
        """Claim the colour and stamp its Deployment, unless that is done. Whoever had it can write no more. `changes`
        are made to the Deployment under the stamp, which comes back."""
        view = self._known
        if slot not in self._stamps:
            state = view.state
            state.claimed(slot, claim, state.slots[slot].claim)
            self._change_service({claim_key(slot): str(self._token(claim))})
            stamp = new_stamp(claim)
            if view.deployments[slot]:
                self._change_deployment(slot, [*stamping(view.fence(slot), stamp), *fenced(stamp, *changes)])
            self._stamps[slot] = stamp
        elif changes:
            self._change_deployment(slot, fenced(self._stamps[slot], *changes))
        return self._stamps[slot]

    def _change_service(self, notes: Mapping[str, str | None], select: Slot | None = None) -> None:
        view = self._known
        changed = self.api.patch(self._path("v1", "services", self.target.name), view.changing(notes, select))
        self._view = view.with_service(changed)

    def _change_deployment(self, slot: Slot, patch: list[Manifest]) -> None:
        changed = self.api.patch(self._path("apps/v1", "deployments", self.target.of(slot)), patch)
        self._view = self._known.with_deployment(slot, changed)

    # ---- what a colour runs

    def delivery(self, bento: BentoRef) -> Delivery:
        """How `bento` is delivered: as this command was told, else as it was when it was live."""
        if bento in self._deliveries:
            return self._deliveries[bento]
        state = self._known.state
        image = next((r.image for r in reversed((*state.history, *state.live)) if r.bento == bento), "")
        repository, _, digest = image.partition("@")
        return ImageRef(repository=repository, digest=digest, bento=bento) if image else bento

    def _prepare(self) -> None:
        """What both colours share. The Services are created once, with selectors, which no apply has."""
        if self._known.service is None:
            self._create_services()
        for manifest in groups.common(self.target):
            applied = self.api.apply(self._path_of(manifest), manifest)
            if manifest["metadata"]["name"] == self.target.name and manifest["kind"] == "Service":
                self._view = self._known.with_service(applied)

    def _create_services(self) -> None:
        """Once, with selectors. The active one last: where it is, both are."""
        active, preview = shared.first_services(self.target)
        where = self._path("v1", "services")
        for service in (preview, active):
            for attempt in range(ATTEMPTS):
                try:
                    self.api.create(where, service)
                except ConflictError:  # it is there
                    not_foreign(self.target, self.api.get(self._path("v1", "services", service["metadata"]["name"])))
                except NoAnswerError:
                    if attempt + 1 == ATTEMPTS:
                        raise
                    self._sleep(0.2 * 2**attempt)
                    continue
                break
        self._look()

    def _digest(self, slot: Slot, delivery: Delivery) -> str:
        template = workload.deployment(self.target, slot, delivery)["spec"]["template"]
        return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:32]

    def _size(self) -> int:
        """How many pods the idle colour gets: as many as the live one has now."""
        view, least = self._known, self.target.settings.replicas.min
        selector = view.state.selector
        return max(least, sizes(view.deployments[selector]).wanted) if selector else least

    def _put(self, slot: Slot, delivery: Delivery, claim: str) -> None:
        stamp, size = self._take(slot, claim), self._size()
        self._say(f"{slot}: {bento_of(delivery)}, {size} pods")
        deployment, *rest = groups.colour(self.target, slot, delivery)
        for manifest in rest:
            if manifest["kind"] not in SCALERS:
                self.api.apply(self._path_of(manifest), manifest)
        self._hold_size(slot, size, claim)
        deployment["metadata"]["annotations"][TEMPLATE] = self._digest(slot, delivery)
        deployment["spec"].pop("replicas", None)  # only fenced patches set it
        if self._known.deployments[slot] is None:
            self._create(slot, deployment, stamp, claim)
        else:
            self._overwrite(slot, deployment, stamp)
        self._take(slot, claim, ("/spec/replicas", size))
        self._await(slot, size)

    def _create(self, slot: Slot, deployment: Manifest, stamp: str, claim: str) -> None:
        """An apply that carries the stamp and does not insist: once somebody has stamped a Deployment, it is refused.
        So is any late one of this kind after the second stamp, which moves the fence to the other field manager."""
        deployment["metadata"]["annotations"][FENCE] = stamp
        applied = self.api.apply(self._path_of(deployment), deployment, force=False)
        self._view = self._known.with_deployment(slot, applied)
        second = new_stamp(claim)
        self._change_deployment(slot, stamping(stamp, second))
        self._stamps[slot] = second

    def _overwrite(self, slot: Slot, deployment: Manifest, stamp: str) -> None:
        """Apply to exactly the Deployment that was read under our stamp."""
        where = self._path_of(deployment)
        for attempt in range(ATTEMPTS):
            known = self._known.deployments[slot]
            if known is None or annotations(known).get(FENCE) != stamp:
                raise ConflictError(f"{slot} of {self.service} was taken over", wanted=stamp, next_step="run it again")
            deployment["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
            try:
                self._view = self._known.with_deployment(slot, self.api.apply(where, deployment))
                return
            except ConflictError:  # somebody's status, more often than not
                if attempt + 1 == ATTEMPTS:
                    raise
                self._view = self._known.with_deployment(slot, self.api.get(where))

    def _start(self, slot: Slot, bento: BentoRef, claim: str) -> None:
        """Bring the idle colour to size again, with what it holds."""
        self._known.state.holding(slot, bento)
        size = self._size()
        self._say(f"{slot}: {bento}, {size} pods")
        self._hold_size(slot, size, claim)
        self._take(slot, claim, ("/spec/replicas", size))
        self._await(slot, size)

    def _revive(self, slot: Slot) -> None:
        """Only ever upwards: what is live is not fenced off, it is just not stopped by anybody."""
        view, size = self._known, self.target.settings.replicas.min
        if sizes(view.deployments[slot]).wanted == 0:
            none = {"op": "test", "path": "/spec/replicas", "value": 0}
            self._change_deployment(slot, [none, *fenced(view.fence(slot), ("/spec/replicas", size))])
        self._await(slot, 1)

    def _await(self, slot: Slot, size: int) -> None:
        """Wait until the colour has `size` pods available, all of its newest template; say why it takes long."""
        where = self._path("apps/v1", "deployments", self.target.of(slot))
        begun, since, told = self._now(), None, ""
        live = slot == self._known.state.selector
        while True:
            known = deployment = self._known.deployments[slot]
            assert known is not None and deployment is not None
            for deployment in self._following(slot, known, size, live):
                self._view = self._known.with_deployment(slot, deployment)
            if self._is_ready(deployment, size, live):
                return
            if slot in self._stamps and annotations(deployment).get(FENCE) != self._stamps[slot]:
                raise ConflictError(f"{slot} of {self.service} was taken over meanwhile", next_step="run it again")
            wait = waits(deployment, self.pods(slot))
            line = f"{slot}: {progress(deployment)}; {wait.reason}"
            if line != told:
                self._say(line)
            told, now = line, self._now()
            since = (since or now) if wait.hopeless else None
            if since and now - since >= timedelta(seconds=HOPELESS_SECONDS):
                raise self._not_ready(slot, wait)
            if now - begun > timedelta(seconds=self.target.settings.start_seconds + LATE_SECONDS):
                raise self._not_ready(slot, wait)
            self.renew()
            self._view = self._known.with_deployment(slot, self.api.get(where))

    def _following(self, slot: Slot, deployment: Manifest, size: int, live: bool) -> Iterator[Manifest]:
        """The Deployment's states from this one on, until it is ready or for some seconds."""
        if self._is_ready(deployment, size, live):
            return
        where, version = self._path("apps/v1", "deployments"), deployment["metadata"]["resourceVersion"]
        for state in self.api.watch(where, self.target.of(slot), version, WATCH_SECONDS):
            yield state
            if self._is_ready(state, size, live):
                return

    def _is_ready(self, deployment: Manifest, size: int, live: bool) -> bool:
        now = sizes(deployment)
        return now.available >= size if live else self._fit(now, size)

    def _fit(self, size: Sizes, wanted: int) -> bool:
        return size.complete and size.available >= wanted

    def _not_ready(self, slot: Slot, wait: Wait) -> UnavailableError:
        seen = f"{slot} of {self.service} does not become ready: {wait.reason}"
        if wait.crashed:
            pod, container = wait.crashed
            params = {"container": container, "previous": "true", "tailLines": "10"}
            try:
                log = self.api.text(self._path("v1", "pods", pod, "log"), params).strip()
            except (UsageError, NotFoundError, UnavailableError) as error:
                log = f"(no log: {error.seen})"
            seen += "\n" + "\n".join(f"    {line}" for line in log.splitlines())
        live = self._known.state.active
        next_step = "mend that and deploy again"
        if "serviceaccount" in wait.reason.lower():
            next_step = f"have an administrator apply what `ekiben render {self.service} --env ENV` prints, once"
        return UnavailableError(
            seen,
            wanted=f"all its pods ready; {live.bento} in {live.slot} is live as before"
            if live
            else "all its pods ready",
            next_step=next_step,
        )

    # ---- the switch

    def _switch(self, action: Switch, claim: str) -> None:
        slot, stamp = action.release.slot, self._take(action.release.slot, claim)
        # Read under the stamp: from here to the switch nobody else can have changed it.
        for each in (slot, other(slot)) if not action.back and self._known.state.selector else (slot,):
            where = self._path("apps/v1", "deployments", self.target.of(each))
            self._view = self._known.with_deployment(each, self.api.get(where))
        view, size = self._known, sizes(self._known.deployments[slot])
        wanted = 1 if action.back else self._size()
        fit = size.serves if action.back else self._fit(size, wanted)
        if view.fence(slot) != stamp or not fit:
            raise ConflictError(
                f"{slot} of {self.service} is no longer ready: {_told(size)}",
                wanted=f"{wanted} pods of {action.release.bento}",
                next_step="run the command again",
            )
        if not action.back and view.state.selector:
            self._hold_size(view.state.selector, size.wanted, claim)
        after = view.state.switched(action.release, action.epoch, back=action.back, keep=action.keep)
        claims = {claim_key(each): str(self._token(c)) if (c := after.slots[each].claim) else None for each in SLOTS}
        made = {EPOCH: str(after.epoch), LIVE: releases(after.live), HISTORY: releases(after.history)}
        try:
            self._change_service({**made, **claims}, select=slot)
        except NoAnswerError:
            if action.release not in self._look().state.history:
                raise
        self._stamps.clear()
        self._say(f"{slot}: {action.release.bento} is live")

    # ---- what judges look at

    def now(self) -> datetime:
        return self._now()

    def pause(self, seconds: float) -> None:
        self._sleep(seconds)

    def pods(self, slot: Slot) -> list[Manifest]:
        """The pods of a colour."""
        labels = ",".join(f"{key}={value}" for key, value in self.target.selector(slot).items())
        found: list[Manifest] = self.api.get(self._path("v1", "pods"), {"labelSelector": labels})["items"]
        return found

    def metrics(self, pod: str) -> str:
        """What the pod's /metrics says, through the API server."""
        return self.api.text(self._path("v1", "pods", f"{pod}:{PORT}", "proxy/metrics"))

    def ask_preview(self, route: str, body: bytes) -> tuple[int, bytes]:
        """POST to the preview Service, through the API server: status and body; status 0: no answer."""
        return self.api.proxied(
            self._path("v1", "services", f"{self.target.preview}:{PORT_NAME}", f"proxy{route}"), body
        )

    def preview(self, slot: Slot) -> None:
        """The preview Service reaches that colour."""
        patch: list[Manifest] = [{"op": "add", "path": "/spec/selector", "value": self.target.selector(slot)}]
        self.api.patch(self._path("v1", "services", self.target.preview), patch)

    def verify(self) -> None:
        """The live Service's endpoints are ready pods of the live colour, and nothing else. UnavailableError if that
        does not come about within seconds."""
        deadline = self._now() + timedelta(seconds=VERIFY_SECONDS)
        pause = 0.25
        while True:
            slot = self.live_slot()
            wrong = self._strays(slot)
            if not wrong:
                return
            service = self.api.get(self._path("v1", "services", self.target.name))
            self._view = self._known.with_service(service)  # somebody may have switched meanwhile
            if self._now() > deadline:
                raise UnavailableError(
                    f"the endpoints of {self.target.name} do not follow its selector: {wrong}",
                    wanted=f"ready pods of {slot}, and only those",
                    next_step="look at the EndpointSlices; `ekiben rollback` goes back",
                )
            self._sleep(pause)
            pause = min(2 * pause, 2.0)

    def _strays(self, slot: Slot) -> str:
        ends = self._ends()
        ready = [end for end in ends if (end.get("conditions") or {}).get("ready", True)]
        names = [(end.get("targetRef") or {}).get("name", "?") for end in ready]
        strange = [name for name in names if not name.startswith(f"{self.target.of(slot)}-")]
        return f"{', '.join(strange)} among them" if strange else "" if names else "none is ready"

    def _ends(self) -> list[Manifest]:
        params = {"labelSelector": f"kubernetes.io/service-name={self.target.name}"}
        slices = self.api.get(self._path("discovery.k8s.io/v1", "endpointslices"), params)["items"]
        return [end for each in slices for end in each.get("endpoints") or ()]

    def _forget(self, bento: BentoRef | None) -> None:
        """Take `bento` out of what a rollback walks down."""
        for attempt in range(ATTEMPTS):
            view = self._known
            live = view.state.live
            kept = tuple(release for release in live if release.bento != bento)
            if kept == live or not kept or kept[-1] != live[-1]:
                return
            try:
                self._change_service({LIVE: releases(kept)})
                return
            except (ConflictError, NoAnswerError):
                if attempt + 1 == ATTEMPTS:
                    raise
                self._look()

    def _hold_size(self, slot: Slot, size: int, claim: str) -> None:
        """The colour's autoscaler leaves it at no fewer pods than that: without traffic it would shrink."""
        scaler = workload.autoscaler(self.target, slot, size)
        if scaler:
            scaler["metadata"]["annotations"] = {FLOOR: claim}
            self.api.apply(self._path_of(scaler), scaler)

    def _let_go(self) -> None:
        """The live colour's autoscaler gets its own limits again, unless somebody who is at work holds its size."""
        slot, view = self._known.state.selector, self._known
        scaler = workload.autoscaler(self.target, slot) if slot else None
        if scaler is None:
            return
        where = self._path_of(scaler)
        by = annotations(self.api.find(where)).get(FLOOR)
        working = {c.by for each in SLOTS if (c := view.claim(each)) and c.until > self._now()}
        if by is None or (by in working and not by.endswith(self._holder)):
            return
        field = {"HorizontalPodAutoscaler": "minReplicas", "ScaledObject": "minReplicaCount"}[scaler["kind"]]
        try:
            self.api.patch(where, releasing(FLOOR, by, f"/spec/{field}", self.target.settings.replicas.min))
        except ConflictError:
            return  # the next one who holds its size has begun
        except NoAnswerError as error:
            self._say(f"{slot}: its autoscaler may still hold it at its size: {error.seen}")

    # ---- paths

    def _path(self, api_version: str, plural: str, name: str = "", sub: str = "") -> str:
        return path(api_version, plural, self.target.settings.namespace, name, sub)

    def _path_of(self, manifest: Manifest) -> str:
        return self._path(manifest["apiVersion"], PLURALS[manifest["kind"]], manifest["metadata"]["name"])


def _told(size: Sizes) -> str:
    return f"{size.available} of {size.wanted} pods available, {size.updated} of its newest template"
