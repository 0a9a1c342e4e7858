"""What a colour runs: putting a Bento there, starting it again, waiting until it is ready, and saying why it is not."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from ekiben.errors import ConflictError, NotFoundError, UnavailableError, UsageError
from ekiben.platforms.kubernetes.api import NoAnswerError
from ekiben.platforms.kubernetes.hold import Hold
from ekiben.platforms.kubernetes.rollout import Wait, progress, waits
from ekiben.platforms.kubernetes.state import (
    FENCE,
    Sizes,
    View,
    annotations,
    fenced,
    new_stamp,
    releasing,
    sizes,
    stamping,
)
from ekiben.platforms.manifests import groups, workload
from ekiben.platforms.manifests.names import CONTAINER, PAUSED, Delivery, Manifest, bento_of
from ekiben.types import SLOTS, BentoRef, Slot, other

ATTEMPTS = 6  # to apply while others write statuses
HOPELESS_SECONDS = 30.0  # how long what time does not mend is watched all the same: registries have bad moments
QUIET_SECONDS = 20.0  # how long a pod may be starting before its events are asked why
LATE_SECONDS = 660.0  # beyond the environment's start_seconds: finding a node, pulling an image
WATCH_SECONDS = 10
SCALERS = {"HorizontalPodAutoscaler": "minReplicas", "ScaledObject": "minReplicaCount"}
FLOOR = "ekiben.dev/floor"
"""Annotation of an autoscaler: the claim for which it holds the colour at the size that it was switched with."""
TEMPLATE = "ekiben.dev/template"
"""Annotation of a Deployment: digest of the template that was applied."""


class Colours:
    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    def digest(self, slot: Slot, delivery: Delivery) -> str:
        template = workload.deployment(self._hold.target, slot, delivery)["spec"]["template"]
        return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:32]

    def size(self, view: View | None = None) -> int:
        """How many pods the idle colour gets: as many as the live one has now, and not below the least."""
        view, least = view or self._hold.known, self._hold.target.settings.replicas.min
        selector = view.state.selector
        return max(least, sizes(view.deployments[selector]).wanted) if selector else least

    def put(self, slot: Slot, delivery: Delivery, claim: str) -> None:
        stamp, size = self._hold.take(slot, claim), self.size()
        self._hold.say(f"{slot}: {bento_of(delivery)}, {size} pods")
        deployment, *rest = groups.colour(self._hold.target, slot, delivery)
        for manifest in rest:
            if manifest["kind"] not in SCALERS:
                self._hold.api.apply(self._hold.path_of(manifest), manifest)
        self.hold_size(slot, size, claim)
        deployment["metadata"]["annotations"][TEMPLATE] = self.digest(slot, delivery)
        deployment["spec"].pop("replicas", None)  # only fenced patches set it
        if self._hold.known.deployments[slot] is None:
            self._create(slot, deployment, stamp, claim)
        else:
            self._overwrite(slot, deployment, stamp)
        self._hold.take(slot, claim, ("/spec/replicas", size))
        self._await(slot, size)

    def start(self, slot: Slot, bento: BentoRef, claim: str) -> None:
        """Bring the idle colour to size again, with what it holds."""
        self._hold.known.state.holding(slot, bento)
        size = self.size()
        self._hold.say(f"{slot}: {bento}, {size} pods")
        self.hold_size(slot, size, claim)
        self._hold.take(slot, claim, ("/spec/replicas", size))
        self._await(slot, size)

    def revive(self, slot: Slot) -> None:
        """Only ever upwards: what is live is not fenced off, it is just not stopped by anybody."""
        view, size = self._hold.known, self._hold.target.settings.replicas.min
        if sizes(view.deployments[slot]).wanted == 0:
            none = {"op": "test", "path": "/spec/replicas", "value": 0}
            self._hold.change_deployment(slot, [none, *fenced(view.fence(slot), ("/spec/replicas", size))])
        self._await(slot, 1)

    def hold_size(self, slot: Slot, size: int, claim: str) -> None:
        """The colour's autoscaler leaves it at no fewer pods than that: without traffic it would shrink."""
        scaler = workload.autoscaler(self._hold.target, slot, size)
        if scaler:
            scaler["metadata"]["annotations"] = {FLOOR: claim}
            self._hold.api.apply(self._hold.path_of(scaler), scaler)

    def keda(self, slot: Slot) -> Manifest | None:
        """The colour's ScaledObject as it is rendered, of the version that is there; None where KEDA sizes nothing."""
        scaler = workload.autoscaler(self._hold.target, slot)
        if scaler is None or scaler["kind"] != "ScaledObject":
            return None
        found = self._hold.api.find(self._hold.path_of(scaler))
        if found:
            scaler["metadata"] |= {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
        return scaler if found else None

    def pause(self, scaler: Manifest) -> bool:
        """Whether KEDA leaves the stopped colour at 0 until `hold_size` applies it without the annotation. Late, it
        changes nothing: the version is an older one by then."""
        scaler["metadata"]["annotations"] = {PAUSED: "0"}
        try:
            self._hold.api.apply(self._hold.path_of(scaler), scaler)
        except ConflictError:  # somebody's status, more often than not; or it was done, and the answer was lost
            return False
        return True

    def let_go(self) -> None:
        """The autoscalers get their own limits again, but for one whose size somebody else holds who is at work."""
        slot, view = self._hold.known.state.selector, self._hold.known
        working = {c.by for each in SLOTS if (c := view.claim(each)) and c.until > self._hold.now()}
        theirs = {by for by in working if not by.endswith(self._hold.holder)}
        if slot:
            self._let_live_go(slot, theirs)
            self._let_idle_go(other(slot), theirs)

    def _let_live_go(self, slot: Slot, theirs: set[str]) -> None:
        scaler = workload.autoscaler(self._hold.target, slot)
        if scaler is None:
            return
        where = self._hold.path_of(scaler)
        by = annotations(self._hold.api.find(where)).get(FLOOR)
        if by is None or by in theirs:
            return
        field = SCALERS[scaler["kind"]]
        try:
            self._hold.api.patch(where, releasing(FLOOR, by, f"/spec/{field}", self._hold.target.settings.replicas.min))
        except ConflictError:
            return  # the next one who holds its size has begun
        except NoAnswerError as error:
            self._hold.say(f"{slot}: its autoscaler may still hold it at its size: {error.seen}")

    def _let_idle_go(self, slot: Slot, theirs: set[str]) -> None:
        """So that whoever applies what `ekiben render` prints contradicts nobody. Late, it changes nothing: the version
        is an older one by then. KEDA's is paused."""
        scaler = workload.autoscaler(self._hold.target, slot)
        if scaler is None or scaler["kind"] == "ScaledObject":
            return
        found = self._hold.api.find(self._hold.path_of(scaler))
        by = annotations(found).get(FLOOR)
        if found is None or by is None or by in theirs:
            return
        scaler["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        with suppress(ConflictError, NoAnswerError):  # it sizes nothing now; the next deploy tries again
            self._hold.api.apply(self._hold.path_of(scaler), scaler)

    def _create(self, slot: Slot, deployment: Manifest, stamp: str, claim: str) -> None:
        """An apply that carries the stamp and does not insist: once somebody has stamped a Deployment, it is refused.
        So is any late one of this kind after the second stamp, which moves the fence to the other field manager."""
        deployment["metadata"]["annotations"][FENCE] = stamp
        applied = self._hold.api.apply(self._hold.path_of(deployment), deployment, force=False)
        self._hold.view = self._hold.known.with_deployment(slot, applied)
        second = new_stamp(claim)
        self._hold.change_deployment(slot, stamping(stamp, second))
        self._hold.stamps[slot] = second

    def _overwrite(self, slot: Slot, deployment: Manifest, stamp: str) -> None:
        """Apply to exactly the Deployment that was read under our stamp."""
        where = self._hold.path_of(deployment)
        for attempt in range(ATTEMPTS):
            known = self._hold.known.deployments[slot]
            if known is None or annotations(known).get(FENCE) != stamp:
                raise ConflictError(
                    f"{slot} of {self._hold.service} was taken over", wanted=stamp, next_step="run it again"
                )
            # The version alone would let the apply create one anew that was deleted meanwhile.
            deployment["metadata"] |= {key: known["metadata"][key] for key in ("uid", "resourceVersion")}
            try:
                self._hold.view = self._hold.known.with_deployment(slot, self._hold.api.apply(where, deployment))
                return
            except ConflictError:  # somebody's status, more often than not
                if attempt + 1 == ATTEMPTS:
                    raise
                self._hold.view = self._hold.known.with_deployment(slot, self._hold.api.get(where))

    def _await(self, slot: Slot, size: int) -> None:
        """Wait until the colour has `size` pods available, all of its newest template; say why it takes long."""
        where = self._hold.path("apps/v1", "deployments", self._hold.target.of(slot))
        begun, since, told = self._hold.now(), None, ""
        live = slot == self._hold.known.state.selector
        while True:
            known = deployment = self._hold.known.deployments[slot]
            assert known is not None and deployment is not None
            for deployment in self._following(slot, known, size, live):
                self._hold.view = self._hold.known.with_deployment(slot, deployment)
            if self._is_ready(deployment, size, live):
                return
            if slot in self._hold.stamps and annotations(deployment).get(FENCE) != self._hold.stamps[slot]:
                raise ConflictError(
                    f"{slot} of {self._hold.service} was taken over meanwhile", next_step="run it again"
                )
            wait = waits(deployment, self._hold.pods(slot))
            if wait.quiet and self._hold.now() - begun >= timedelta(seconds=QUIET_SECONDS):
                wait = self._explained(wait)
            line = f"{slot}: {progress(deployment)}; {wait.reason}"
            if line != told:
                self._hold.say(line)
            told, now = line, self._hold.now()
            since = (since or now) if wait.hopeless else None
            if since and now - since >= timedelta(seconds=HOPELESS_SECONDS):
                raise self._not_ready(slot, wait)
            if now - begun > timedelta(seconds=self._hold.target.settings.start_seconds + LATE_SECONDS):
                raise self._not_ready(slot, wait)
            self._hold.renew()
            self._hold.view = self._hold.known.with_deployment(slot, self._hold.api.get(where))

    def _following(self, slot: Slot, deployment: Manifest, size: int, live: bool) -> Iterator[Manifest]:
        """The Deployment's states from this one on, until it is ready or for some seconds."""
        if self._is_ready(deployment, size, live):
            return
        where, version = self._hold.path("apps/v1", "deployments"), deployment["metadata"]["resourceVersion"]
        for state in self._hold.api.watch(where, self._hold.target.of(slot), version, WATCH_SECONDS):
            yield state
            if self._is_ready(state, size, live):
                return

    def _is_ready(self, deployment: Manifest, size: int, live: bool) -> bool:
        now = sizes(deployment)
        return now.available >= size if live else fit(now, size)

    def _explained(self, wait: Wait) -> Wait:
        try:
            why = self._hold.trouble(wait.quiet)
        except (UsageError, NotFoundError, UnavailableError):  # it is no more than a help
            return wait
        return replace(wait, reason=f"{wait.reason}: {why}") if why else wait

    def _not_ready(self, slot: Slot, wait: Wait) -> UnavailableError:
        seen = f"{slot} of {self._hold.service} does not become ready: {wait.reason}"
        if wait.crashed or wait.quiet:
            pod, container = wait.crashed or (wait.quiet, CONTAINER)
            seen += "\n" + "\n".join(f"    {line}" for line in self._log(pod, container, bool(wait.crashed)))
        live = self._hold.known.state.active
        next_step = wait.mend
        if "serviceaccount" in wait.reason.lower():
            next_step = f"have an administrator apply what `ekiben render {self._hold.service} --env ENV` prints, once"
        return UnavailableError(
            seen,
            wanted=f"all its pods ready; {live.bento} in {live.slot} is live as before"
            if live
            else "all its pods ready",
            next_step=next_step,
        )

    def _log(self, pod: str, container: str, previous: bool) -> list[str]:
        """The last lines; of the container before, where it crashed."""
        params = {"container": container, "tailLines": "10", "limitBytes": "20000"}
        params |= {"previous": "true"} if previous else {}
        try:
            return self._hold.api.text(self._hold.path("v1", "pods", pod, "log"), params).strip().splitlines()
        except (UsageError, NotFoundError, UnavailableError) as error:
            return [f"(no log: {error.seen})"]


def fit(size: Sizes, wanted: int) -> bool:
    """Whether a colour can take over from one of so many pods."""
    return size.complete and size.available >= wanted
