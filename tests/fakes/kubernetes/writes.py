"""The path of a write through the API server: decode, default, strategy, validate, own, store (registry/generic)."""

import random
from typing import Any

from tests.fakes.kubernetes import defaults, managers, validation
from tests.fakes.kubernetes.clock import Clock
from tests.fakes.kubernetes.managers import Manager
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.schema import Mistake, decode
from tests.fakes.kubernetes.statuses import (
    MODIFIED,
    ApiFailure,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
)
from tests.fakes.kubernetes.store import Store

Json = dict[str, Any]

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
# What the main path of a resource leaves alone, and what its /status path does.
_RESET = {"": (("f:status",),), "status": (("f:spec",), ("f:metadata", "f:labels")), "scale": ()}


class Writer:
    def __init__(self, store: Store, clock: Clock, chance: random.Random) -> None:
        self.store, self.clock, self.chance = store, clock, chance
        self._addresses = 0

    def suffix(self, length: int = 5) -> str:
        return "".join(self.chance.choices(_LETTERS, k=length))

    def uid(self) -> str:
        digits = f"{self.chance.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def decoded(self, resource: Resource, body: Any, strict: str, warnings: list[str]) -> Json:
        """The object as the API server keeps it. `strict` is fieldValidation. Raises 400."""
        what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
        unknown: list[str] = []
        try:
            thing = decode(body, resource.type, unknown)
        except Mistake as error:
            raise bad_request(f"{what}: {error}") from error
        said = [f'unknown field "{each}"' for each in unknown]
        if said and strict == "Strict":
            raise bad_request(f"{what}: strict decoding error: {', '.join(said)}")
        if strict == "Warn":
            warnings += said
        thing.setdefault("apiVersion", resource.api_version)
        thing.setdefault("kind", resource.kind)
        thing.setdefault("metadata", {})
        if (thing["apiVersion"], thing["kind"]) != (resource.api_version, resource.kind):
            raise bad_request(
                f"the API version in the data ({thing['apiVersion']}) does not match the expected API version "
                f"({resource.api_version})"
                if thing["kind"] == resource.kind
                else f'{thing["kind"]} in version "{thing["apiVersion"].split("/")[-1]}" cannot be handled as a '
                f'{resource.kind}: no kind "{thing["kind"]}" is registered for version "{resource.api_version}"'
            )
        return thing

    def create(
        self, resource: Resource, thing: Json, namespace: str, manager: Manager | None, applied: bool, dry_run: bool
    ) -> Json:
        """`thing` is decoded. `applied`: its managedFields are those of a server-side apply already."""
        metadata = dict(thing["metadata"])
        if metadata.get("resourceVersion"):
            raise ApiFailure(500, "", "resourceVersion should not be set on objects to be created")
        if resource.namespaced:
            metadata["namespace"] = namespace
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + self.suffix()
        thing = {**thing, "metadata": metadata}
        if not resource.custom or "status" in resource.subresources:
            thing.pop("status", None)
        metadata |= {"uid": self.uid(), "creationTimestamp": self.clock.stamp()}
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(name, None)
        if resource.generation:
            metadata["generation"] = 1
        defaults.fill(thing)
        if causes := validation.validate(thing, None):
            raise invalid(resource.group, resource.kind, metadata.get("name", ""), causes)
        if self.store.get(resource.key, metadata.get("namespace", ""), metadata["name"]):
            raise already_exists(resource.group, resource.plural, metadata["name"])
        if manager and not applied:
            metadata.pop("managedFields", None)
            blank = {"metadata": {}, **_BLANK.get(resource.kind, {})}
            metadata["managedFields"] = managers.update(
                blank, thing, resource.type, manager, self.clock.stamp(), _RESET[""]
            )
        self._allocate(thing)  # which is nobody's
        return thing if dry_run else self.store.put(resource, thing)

    def _allocate(self, thing: Json) -> None:
        if thing["kind"] == "Service" and thing["spec"]["type"] != "ExternalName":
            spec = thing["spec"]
            if "clusterIP" not in spec:
                self._addresses += 1
                spec["clusterIP"] = f"10.96.{self._addresses // 250}.{self._addresses % 250 + 1}"
            spec |= {"clusterIPs": [spec["clusterIP"]], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
            thing["status"] = {"loadBalancer": {}}
        if thing["kind"] in _STATUS:
            thing["status"] = dict(_STATUS[thing["kind"]])

    def update(
        self,
        resource: Resource,
        old: Json,
        thing: Json,
        manager: Manager | None,
        subresource: str = "",
        applied: bool = False,
        dry_run: bool = False,
    ) -> Json:
        """Replaces `old` by `thing`, which is decoded. Raises 409 for an outdated resourceVersion or uid."""
        before, metadata = old["metadata"], dict(thing["metadata"])
        name = before["name"]
        if metadata.get("name", name) != name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        if metadata.get("namespace", before.get("namespace")) != before.get("namespace"):
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if metadata.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
            raise conflict(resource.group, resource.plural, name, MODIFIED)
        if metadata.get("uid", before["uid"]) != before["uid"]:
            immutable = validation.bad("metadata.uid", metadata["uid"], "field is immutable")
            raise invalid(resource.group, resource.kind, name, [immutable])
        for key in _KEPT:
            if key in before:
                metadata[key] = before[key]
            else:
                metadata.pop(key, None)
        thing = {**thing, "metadata": metadata}
        if subresource == "status":
            thing = {**old, "status": thing.get("status", {}), "metadata": metadata}
            if "labels" in before:
                metadata["labels"] = before["labels"]
            else:
                metadata.pop("labels", None)
        elif "status" in resource.subresources or resource.kind == "Namespace":
            thing.pop("status", None)
            if "status" in old:
                thing["status"] = old["status"]
        if thing["kind"] == "Service":
            self._keep_addresses(old, thing)
        defaults.fill(thing)
        if causes := validation.validate(thing, old):
            raise invalid(resource.group, resource.kind, name, causes)
        if resource.generation and subresource != "status" and _spec_changed(resource, old, thing):
            metadata["generation"] = before.get("generation", 0) + 1
        reset = not applied and metadata.get("managedFields") == [{}]  # who writes this has all managers forgotten
        if manager and not applied:
            known = {**old, "metadata": {**before, "managedFields": []}} if reset else old
            metadata["managedFields"] = managers.update(
                known, thing, resource.type, manager, self.clock.stamp(), _RESET[subresource]
            )
        if not metadata.get("managedFields"):
            metadata.pop("managedFields", None)
        if not reset and _same_but_for_times(old, thing):
            return old
        if dry_run:
            return thing
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and _may_go(resource, metadata):
            return self.store.remove(resource, thing)
        return self.store.put(resource, thing)

    def _keep_addresses(self, old: Json, thing: Json) -> None:
        """A write that leaves the allocated fields out does not mean to change them."""
        spec = dict(thing.get("spec", {}))
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if key in old["spec"] and not spec.get(key):
                spec[key] = old["spec"][key]
        thing["spec"] = spec

    def delete(self, resource: Resource, old: Json, options: Json, dry_run: bool = False) -> tuple[Json, bool]:
        """The object as deletion leaves it, and whether it is gone. `options` are DeleteOptions."""
        metadata = dict(old["metadata"])
        wanted = options.get("preconditions") or {}
        for field, text in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(field) is not None and wanted[field] != metadata[field]:
                why = (
                    f"Precondition failed: {text} in precondition: {wanted[field]}, "
                    f"{text} in object meta: {metadata[field]}"
                )
                raise conflict(resource.group, resource.plural, metadata["name"], why)
        if dry_run:
            return old, True
        finalizers = list(metadata.get("finalizers", ()))
        added = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(options.get("propagationPolicy") or "")
        if added and added not in finalizers:
            finalizers.append(added)
        grace = 0
        if resource.kind == "Pod" and old["spec"].get("nodeName"):
            grace = options.get("gracePeriodSeconds")
            grace = old["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        waits = bool(finalizers) or grace > 0 or resource.kind == "Namespace"
        if not waits:
            return self.store.remove(resource, old), True
        before = metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" not in metadata or (before is not None and grace < before):
            metadata |= {"deletionTimestamp": self.clock.stamp(grace), "deletionGracePeriodSeconds": grace}
            if resource.generation:
                metadata["generation"] = metadata.get("generation", 0) + 1
        if finalizers:
            metadata["finalizers"] = finalizers
        thing = {**old, "metadata": metadata}
        if resource.kind == "Namespace":
            thing["status"] = {"phase": "Terminating"}
        return (old if thing == old else self.store.put(resource, thing)), False

    def must(self, resource: Resource, namespace: str, name: str) -> Json:
        """The object. Raises 404."""
        found = self.store.get(resource.key, namespace, name)
        if found is None:
            raise not_found(resource.group, resource.plural, name)
        return found


_KEPT = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
)

# Structs that Go writes out although nobody set them: their creation is nobody's change.
_TEMPLATE = {"template": {"metadata": {}, "spec": {"containers": None}}}
_BLANK: dict[str, Json] = {
    "Deployment": {"spec": {**_TEMPLATE, "strategy": {}, "selector": None}},
    "ReplicaSet": {"spec": {**_TEMPLATE, "selector": None}},
    "Service": {"spec": {}},
    "Pod": {"spec": {"containers": None}},
    "HorizontalPodAutoscaler": {"spec": {"scaleTargetRef": {}}},
    "PodDisruptionBudget": {"spec": {}},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "RoleBinding": {"roleRef": {}},
    "ClusterRoleBinding": {"roleRef": {}},
}


# What Go writes out of a status in which nothing is set yet.
_STATUS: dict[str, Json] = {
    "Deployment": {},
    "Pod": {"phase": "Pending", "qosClass": "Burstable"},
    "HorizontalPodAutoscaler": {"desiredReplicas": 0, "currentMetrics": None},
    "PodDisruptionBudget": dict.fromkeys(("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"), 0),
}


def _spec_changed(resource: Resource, old: Json, new: Json) -> bool:
    """A Deployment's annotations count too, since they are copied to its ReplicaSets (registry/apps/deployment)."""
    if resource.custom:
        return {**old, "metadata": 0, "status": 0} != {**new, "metadata": 0, "status": 0}
    if resource.kind == "Deployment" and old["metadata"].get("annotations") != new["metadata"].get("annotations"):
        return True
    if resource.kind == "EndpointSlice":
        return (old.get("endpoints"), old.get("ports")) != (new.get("endpoints"), new.get("ports"))
    return bool(old.get("spec") != new.get("spec"))


def _same_but_for_times(old: Json, new: Json) -> bool:
    """Whether the write is none: the time of a field manager alone is not worth one (fieldmanager/equality.go)."""
    if old == new:
        return True
    a, b = ([{**e, "time": ""} for e in each["metadata"].get("managedFields", ())] for each in (old, new))
    return a == b and managers.bare(old) == managers.bare(new)


def _may_go(resource: Resource, metadata: Json) -> bool:
    return resource.kind not in ("Namespace",) and not metadata.get("deletionGracePeriodSeconds")
