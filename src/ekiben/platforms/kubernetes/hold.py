"""What one command has read of a service, and what it has claimed of it."""

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from ekiben.errors import NotFoundError
from ekiben.platforms.kubernetes.api import Api, NoAnswerError, path
from ekiben.platforms.kubernetes.state import Claimed, View, claim_key, fenced, new_stamp, not_foreign, ours, stamping
from ekiben.platforms.manifests.names import Manifest, Target
from ekiben.types import SLOTS, Slot

CLAIM_SECONDS = 120.0  # how long a claim lasts that nobody renews

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


class Hold:
    """`view` is what was read last, with the answers to our own writes since; `stamps` are the fences that are ours.
    `holder` stands at the end of every claim of this command."""

    def __init__(
        self,
        api: Api,
        target: Target,
        holder: str = "",
        say: Callable[[str], None] = lambda line: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api, self.target, self.service = api, target, target.service
        self.holder = f"({holder or secrets.token_hex(4)})"
        self.say, self.now, self.sleep = say, now, sleep
        self.view: View | None = None
        self.stamps: dict[Slot, str] = {}

    @property
    def known(self) -> View:
        return self.view or self.look()

    def live_slot(self) -> Slot:
        """What the selector named when it was read last. NotFoundError where nothing was ever live."""
        slot = self.known.state.selector
        if slot is None:
            raise NotFoundError(f"{self.service} was never live", next_step=f"ekiben deploy {self.service}")
        return slot

    def look(self) -> View:
        """Reads the Deployments, then the Service: a fence is read before a claim that relies on it."""
        found = {slot: self.api.find(self.path("apps/v1", "deployments", self.target.of(slot))) for slot in SLOTS}
        service = ours(self.target, self.api.find(self.path("v1", "services", self.target.name)))
        for deployment in found.values():
            if deployment:
                not_foreign(self.target, deployment)
        view = self.view = View(self.target, service, found)
        self.stamps = {
            slot: stamp
            for slot, stamp in self.stamps.items()
            if view.fence(slot) == stamp and (claim := view.claim(slot)) and claim.by.endswith(self.holder)
        }
        return view

    def look_at(self, *slots: Slot) -> None:
        """Reads those Deployments again."""
        for slot in slots:
            found = self.api.get(self.path("apps/v1", "deployments", self.target.of(slot)))
            self.view = self.known.with_deployment(slot, found)

    def renew(self) -> None:
        """Hold on to the colours that this command has claimed. ConflictError if another took one of them over."""
        view = self.known
        mine = {slot: claim for slot in SLOTS if (claim := view.claim(slot)) and claim.by.endswith(self.holder)}
        due = self.now() + timedelta(seconds=CLAIM_SECONDS / 2)
        late = {claim_key(slot): str(self.token(claim.by)) for slot, claim in mine.items() if claim.until < due}
        if late:
            try:
                self.change_service(late)
            except NoAnswerError:
                self.look()  # whether it was carried out or not; if not, the next time will do

    def claim(self, who: str) -> str:
        """The claim of this command's holder: the one it has, else a new one by `who`."""
        held = (slot.claim for slot in self.known.state.slots.values())
        return next((claim for claim in held if claim.endswith(self.holder)), f"{who} {self.holder}")

    def token(self, claim: str) -> Claimed:
        return Claimed(claim, self.now() + timedelta(seconds=CLAIM_SECONDS), secrets.token_hex(4))

    def take(self, slot: Slot, claim: str, *changes: tuple[str, object]) -> str:
        """Claim the colour and stamp its Deployment, unless that is done. Whoever had it can write no more. `changes`
        are made to the Deployment under the stamp, which comes back."""
        view = self.known
        if slot not in self.stamps:
            state = view.state
            state.claimed(slot, claim, state.slots[slot].claim)
            self.change_service({claim_key(slot): str(self.token(claim))})
            stamp = new_stamp(claim)
            if view.deployments[slot]:
                self.change_deployment(slot, [*stamping(view.fence(slot), stamp), *fenced(stamp, *changes)])
            self.stamps[slot] = stamp
        elif changes:
            self.change_deployment(slot, fenced(self.stamps[slot], *changes))
        return self.stamps[slot]

    def change_service(self, notes: Mapping[str, str | None], selector_then: Mapping[str, str] | None = None) -> None:
        view = self.known
        changed = self.api.patch(self.path("v1", "services", self.target.name), view.changing(notes, selector_then))
        self.view = view.with_service(changed)

    def change_deployment(self, slot: Slot, patch: list[Manifest]) -> None:
        changed = self.api.patch(self.path("apps/v1", "deployments", self.target.of(slot)), patch)
        self.view = self.known.with_deployment(slot, changed)

    def pods(self, slot: Slot) -> list[Manifest]:
        """The pods of a colour."""
        labels = ",".join(f"{key}={value}" for key, value in self.target.selector(slot).items())
        found: list[Manifest] = self.api.get(self.path("v1", "pods"), {"labelSelector": labels})["items"]
        return found

    def trouble(self, pod: str) -> str:
        """The last warning that was noted of a pod; '' if there is none. Events tell of volumes and networks that do
        not come about, and of probes, which no status does."""
        params = {"fieldSelector": f"involvedObject.name={pod},type=Warning"}
        found: list[Manifest] = self.api.get(self.path("v1", "events"), params)["items"]
        last = max(
            found, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""), default=Manifest()
        )
        return ": ".join(filter(None, (last.get("reason"), " ".join(str(last.get("message") or "").split())[:500])))

    def path(self, api_version: str, plural: str, name: str = "", sub: str = "") -> str:
        return path(api_version, plural, self.target.settings.namespace, name, sub)

    def path_of(self, manifest: Manifest) -> str:
        return self.path(manifest["apiVersion"], PLURALS[manifest["kind"]], manifest["metadata"]["name"])
