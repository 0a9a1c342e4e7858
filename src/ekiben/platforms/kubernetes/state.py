"""What is live, kept in the active Service itself, and the JSON patches that change it: all of one, or nothing.

    spec.selector["ekiben.dev/slot"]   what is live: the only truth
    ekiben.dev/epoch                   how often that has moved; every patch tests it
    ekiben.dev/claim-blue, -green      who works on that colour, or keeps it for a rollback, and until when
    ekiben.dev/live, history           releases as JSON: what a rollback walks down; what was live when
    ekiben.dev/canary                  who gives which colour a share; then the selector names both, or a route shares
    ekiben.dev/canary-ended            token of the last canary that was taken back

A Deployment carries `ekiben.dev/fence`. Whoever claims a colour in the Service then stamps its Deployment, if the
fence is still the one that was read *before* the claim; from then on every write to it tests the stamp. So one whose
claim was taken over can neither stamp nor write any more, however late its requests arrive; and the switch, which tests
the claim, moves the selector only to a Deployment that nobody else can have touched since it was seen ready.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from ekiben.errors import EkibenError, UsageError
from ekiben.platforms.manifests.names import (
    BENTO,
    BENTO_DIGEST,
    EPOCH,
    MODEL,
    MODEL_DIGEST,
    SERVICE,
    SLOT,
    Manifest,
    Target,
)
from ekiben.rollout.state import Canary, ServiceState, SlotState
from ekiben.types import SLOTS, BentoRef, ModelVersion, Release, Slot, other

LIVE, HISTORY = "ekiben.dev/live", "ekiben.dev/history"
CANARY, ENDED = "ekiben.dev/canary", "ekiben.dev/canary-ended"
FENCE = "ekiben.dev/fence"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_APPLIERS = ("kubectl-client-side-apply", "helm", "argocd-controller", "argocd-application-controller", "Terraform")
# They write with Update, as a person's one-off edit does, but again and again.
KEPT_RELEASES = 20  # some 700 bytes each; all annotations of an object may take 256 KiB

_RELEASES = TypeAdapter(tuple[Release, ...])


def claim_key(slot: Slot) -> str:
    return f"ekiben.dev/claim-{slot}"


def new_stamp(claim: str) -> str:
    """A fence that nobody had before."""
    return f"{claim} {secrets.token_hex(6)}"


@dataclass(frozen=True)
class Claimed:
    """A claim as the Service has it. `nonce` keeps a late patch from taking it for an older one."""

    by: str
    until: datetime
    nonce: str

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            told = json.loads(text)
            return cls(told["by"], datetime.fromisoformat(told["until"]), told["nonce"])
        except (ValueError, KeyError, TypeError):
            raise _unreadable("a claim", text) from None

    def __str__(self) -> str:
        return json.dumps({"by": self.by, "until": self.until.isoformat(), "nonce": self.nonce})


@dataclass(frozen=True)
class View:
    """The active Service and the Deployments as they were read last; None where there is none."""

    target: Target
    service: Manifest | None
    deployments: Mapping[Slot, Manifest | None]

    @property
    def state(self) -> ServiceState:
        slots = {
            slot: SlotState(
                bento=bento_in(self.deployments[slot]),
                up=sizes(self.deployments[slot]).available > 0,
                claim=claim.by if (claim := self.claim(slot)) else "",
            )
            for slot in SLOTS
        }
        live = self._releases(LIVE)
        # The selector is the truth, also where somebody moved it by hand.
        while live and live[-1].slot != self._named:
            live = live[:-1]
        return ServiceState(
            service=self.target.service,
            selector=self._named if self.epoch and live else None,
            epoch=self.epoch,
            slots=slots,
            live=live,
            history=self._releases(HISTORY),
            canary=self.canary,
            ended=self._notes.get(ENDED, ""),
        )

    @property
    def epoch(self) -> int:
        return int(self._notes.get(EPOCH, "0"))

    def claim(self, slot: Slot) -> Claimed | None:
        text = self._notes.get(claim_key(slot), "")
        return Claimed.parse(text) if text else None

    @property
    def canary(self) -> Canary | None:
        """None also where somebody moved the selector by hand since: it is the truth."""
        text, named = self._notes.get(CANARY, ""), self._selector.get(SLOT)
        canary = _canary(text) if text else None
        return canary if canary and named == (other(canary.slot) if canary.route else None) else None

    def fence(self, slot: Slot) -> str | None:
        return annotations(self.deployments[slot]).get(FENCE)

    def with_service(self, service: Manifest) -> Self:
        return replace(self, service=service)

    def with_deployment(self, slot: Slot, deployment: Manifest) -> Self:
        return replace(self, deployments={**self.deployments, slot: deployment})

    def changing(
        self, notes: Mapping[str, str | None], selector_then: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """The patch of the Service that changes those annotations, and the selector, if epoch, selector and the
        annotations are still what was read here."""
        assert selector_then is None or SERVICE in selector_then  # an empty one would select whatever is there
        assert self.service is not None
        selector = self.service["spec"]["selector"]
        patch = [_test(_note(EPOCH), self._notes[EPOCH]), _test("/spec/selector", selector)]
        patch += [_test(_note(key), self._notes.get(key)) for key in notes if key != EPOCH]
        for key, value in notes.items():
            if value is not None:
                patch.append({"op": "add", "path": _note(key), "value": value})
            elif key in self._notes:
                patch.append({"op": "remove", "path": _note(key)})
        if selector_then:
            patch.append({"op": "replace", "path": "/spec/selector", "value": dict(selector_then)})
        return patch

    @property
    def _notes(self) -> dict[str, str]:
        return annotations(self.service)

    @property
    def _named(self) -> Slot | None:
        if self.canary:
            return other(self.canary.slot)
        return next((slot for slot in SLOTS if self._selector.get(SLOT) == slot), None)

    @property
    def _selector(self) -> dict[str, str]:
        return (self.service or {}).get("spec", {}).get("selector") or {}

    def _releases(self, key: str) -> tuple[Release, ...]:
        try:
            return _RELEASES.validate_json(self._notes.get(key, "[]"))
        except ValidationError:
            raise _unreadable(key, self._notes[key]) from None


def canary_note(canary: Canary) -> str:
    told = {"by": canary.by, "percent": canary.percent, "from": other(canary.slot), "to": canary.slot}
    return json.dumps(told | {"token": canary.token, "route": canary.route})


def _canary(text: str) -> Canary:
    try:
        told = json.loads(text)
        return Canary.model_validate(
            {**{key: told[key] for key in ("by", "percent", "token", "route")}, "slot": told["to"]}
        )
    except (ValueError, KeyError, TypeError):
        raise _unreadable("a canary", text) from None


def releases(made: tuple[Release, ...]) -> str:
    kept = made[-KEPT_RELEASES:]
    return json.dumps([release.model_dump(mode="json", exclude_defaults=True) for release in kept])


def ours(target: Target, service: Manifest | None) -> Manifest | None:
    """The active Service, if deploys can keep their state in it; None also where it was applied, as `ekiben render`
    prints it, and nothing was ever live. UsageError else."""
    if service is None:
        return None
    not_foreign(target, service)
    if EPOCH not in annotations(service) and not service["spec"].get("selector"):
        return None
    if EPOCH not in annotations(service) or not service["spec"].get("selector"):
        raise _unusable(target, f"the Service {target.name} has no selector or no epoch")
    if service["spec"]["selector"].get(SLOT) not in SLOTS and not View(target, service, dict.fromkeys(SLOTS)).canary:
        raise UsageError(
            f"the selector of the Service {target.name} names no colour, and no canary is noted",
            wanted=f"{SLOT}: blue or green in it, as what should be live",
            next_step=f"set it by hand: kubectl edit service {target.name}",
        )
    return service


def not_foreign(target: Target, thing: Manifest) -> None:
    """UsageError for a Service or Deployment that somebody else has under a name of ours."""
    labels, kind, name = thing["metadata"].get("labels") or {}, thing["kind"], thing["metadata"]["name"]
    if labels.get("app.kubernetes.io/managed-by") != "ekiben" or labels.get(SERVICE) != target.name:
        seen = f"the {kind} {name} in {target.settings.namespace} is not ekiben's: it was left alone"
        raise _unusable(target, seen, kind)


def only_ours(target: Target, service: Manifest) -> None:
    """UsageError where something else applies the selector too, and would put it back after a switch; or where it says
    more than which colour is live."""
    notes, selector = annotations(service), service["spec"]["selector"]
    if strange := sorted(selector.keys() - target.selector("blue").keys()):
        raise UsageError(
            f"the selector of the Service {target.name} names {', '.join(strange)} too: it was left alone",
            wanted=" and ".join(target.selector("blue")) + ", and nothing else",
            next_step=f"correct it by hand: kubectl edit service {target.name}",
        )
    others = {
        each["manager"]
        for each in service["metadata"].get("managedFields") or ()
        if "f:selector" in ((each.get("fieldsV1") or {}).get("f:spec") or {})
        and (each.get("operation") == "Apply" or each["manager"] in _APPLIERS)
    }
    if '"selector"' in notes.get(LAST_APPLIED, ""):
        others.add("kubectl apply")
    if others:
        appliers = ", ".join(sorted(others))
        raise UsageError(
            f"the selector of the Service {target.name} is applied by {appliers} too: it was left alone",
            wanted="a selector that only `ekiben deploy` writes: the next apply would put back what it moved",
            next_step=f"take the Service out of what they apply, without deleting it; then have it forget them: "
            f"kubectl annotate service {target.name} {LAST_APPLIED}- && kubectl patch service {target.name}"
            """ --type merge -p '{"metadata":{"managedFields":[{}]}}'""",
        )


def _unusable(target: Target, seen: str, kind: str = "Service") -> UsageError:
    made = f" or `ekiben render {target.service} --create`" if kind == "Service" else ""
    return UsageError(
        seen,
        wanted=f"a {kind} that `ekiben deploy`{made} made",
        next_step=f"name the recipe otherwise, use another namespace, or delete that {kind} if nobody needs it",
    )


def annotations(thing: Manifest | None) -> dict[str, str]:
    return ((thing or {}).get("metadata") or {}).get("annotations") or {}


def bento_in(deployment: Manifest | None) -> BentoRef | None:
    """What a Deployment's template holds; None where ekiben put nothing there."""
    notes = annotations(deployment)
    if not notes.keys() >= {BENTO, BENTO_DIGEST, MODEL, MODEL_DIGEST}:
        return None
    name, _, version = notes[BENTO].partition(":")
    model = ModelVersion.parse(notes[MODEL], notes[MODEL_DIGEST])
    return BentoRef(name=name, version=version, digest=notes[BENTO_DIGEST], model=model)


@dataclass(frozen=True)
class Sizes:
    """Of a Deployment: pods that are wanted, that are of its newest template, that are available; of how many its
    controller knows. `settled`: the controller has seen the newest template and size."""

    wanted: int = 0
    updated: int = 0
    available: int = 0
    there: int = 0
    settled: bool = False

    @property
    def serves(self) -> bool:
        """Some pod answers and is to stay, and none is of an older template."""
        return self.settled and self.wanted > 0 and self.available > 0 and self.updated == self.there

    @property
    def complete(self) -> bool:
        return self.settled and self.wanted == self.updated == self.available == self.there


def sizes(deployment: Manifest | None) -> Sizes:
    if deployment is None:
        return Sizes()
    status = deployment.get("status") or {}
    return Sizes(
        wanted=deployment["spec"].get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        there=status.get("replicas", 0),
        settled=status.get("observedGeneration", 0) >= deployment["metadata"]["generation"],
    )


def fenced(stamp: str | None, *changes: tuple[str, Any]) -> list[Manifest]:
    """The patch that sets those fields of a Deployment if its fence is `stamp`."""
    return [_test(_note(FENCE), stamp), *({"op": "add", "path": path, "value": value} for path, value in changes)]


def stamping(old: str | None, new: str) -> list[Manifest]:
    return fenced(old, (_note(FENCE), new))


def at_version(version: str, *changes: tuple[str, Any]) -> list[Manifest]:
    """The patch that sets those fields of an object if nobody has written it since that version."""
    changed = [{"op": "add", "path": path, "value": value} for path, value in changes]
    return [_test("/metadata/resourceVersion", version), *changed]


def beginning(service: Manifest, selector: Mapping[str, str]) -> list[Manifest]:
    """The patch that gives a Service which was applied its first selector and epoch, if it has neither."""
    patch = [_test("/spec/selector", None), {"op": "add", "path": "/spec/selector", "value": dict(selector)}]
    if annotations(service):
        return [*patch, _test(_note(EPOCH), None), {"op": "add", "path": _note(EPOCH), "value": "0"}]
    where = "/metadata/annotations"  # a test of what is in no map fails
    return [*patch, _test(where, None), {"op": "add", "path": where, "value": {EPOCH: "0"}}]


def releasing(key: str, value: str, path: str, to: int) -> list[Manifest]:
    """The patch that sets a field, and removes the annotation that said who held it, if it still says so."""
    return [
        _test(_note(key), value),
        {"op": "replace", "path": path, "value": to},
        {"op": "remove", "path": _note(key)},
    ]


def _note(key: str) -> str:
    return f"/metadata/annotations/{key.replace('/', '~1')}"


def _test(path: str, value: Any) -> Manifest:
    return {"op": "test", "path": path, "value": value}  # null: that it is missing


def _unreadable(what: str, text: str) -> EkibenError:
    return EkibenError(
        f"{what} cannot be read: {text[:80]!r}",
        wanted="the annotation as ekiben writes it",
        next_step="correct the active Service's annotation, or remove it",
    )
