"""The Deployment controller: ReplicaSets by template hash, rolling updates, conditions (pkg/controller/deployment)."""

import json
import math
import zlib
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.clock import seconds
from tests.fakes.kubernetes.managers import Manager
from tests.fakes.kubernetes.objects import condition, going, owner, reference, without_zeros

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

Json = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
HASH = "pod-template-hash"
SOURCE = "deployment-controller"
_NOT_COPIED = (REVISION, DESIRED, MOST, "kubectl.kubernetes.io/last-applied-configuration")
_MANAGER = Manager("kube-controller-manager", "Update", "apps/v1", "status")


class Deployments:
    def __init__(self, controllers: "Controllers") -> None:
        self.controllers, self.cluster = controllers, controllers.cluster
        self.store, self.clock = controllers.store, controllers.clock
        self.resource = self.cluster.resource("deployments")
        self.sets = self.cluster.resource("replicasets")

    def reconcile(self) -> None:
        everything = self.store.every(self.resource.key)
        if not everything:
            return
        owned: dict[str, list[Json]] = {}
        for each in self.store.every(self.sets.key):
            owned.setdefault(owner(each), []).append(each)
        for each in everything:
            if not going(each):
                self._one(each, owned.get(each["metadata"]["uid"], []))

    def _one(self, deployment: Json, sets: list[Json]) -> None:
        name = _hash(deployment["spec"]["template"])
        new = next((each for each in sets if each["metadata"]["labels"][HASH] == name), None)
        old = sorted((each for each in sets if each is not new), key=_revision)
        paused = deployment["spec"].get("paused", False)
        if new is None and not paused and not self._waits_for_old(deployment, old):
            new = self._created(deployment, old, name)
            self._status(deployment, [*old, new], new, ("NewReplicaSetCreated", f'Created new replica set "{_n(new)}"'))
            return
        if new is not None and not paused and self._annotated(deployment, new, old):
            return
        every = [*old, *([new] if new else [])]
        if not self._scaled(deployment, old, new, paused):
            self._clean(deployment, old, new)
        self._status(deployment, every, new)

    def _waits_for_old(self, deployment: Json, old: list[Json]) -> bool:
        """With the strategy Recreate: nothing new before the old pods are gone."""
        if deployment["spec"]["strategy"]["type"] != "Recreate":
            return False
        for each in old:
            if each["spec"]["replicas"]:
                self._scale(deployment, each, 0)
        return any(_count(each, "replicas") or _count(each, "terminatingReplicas") for each in old)

    def _created(self, deployment: Json, old: list[Json], name: str) -> Json:
        at, spec = deployment["metadata"], deployment["spec"]
        template = spec["template"]
        labels = {**template["metadata"]["labels"], HASH: name}
        surge, _ = _fences(deployment)
        room = spec["replicas"] + surge - sum(each["spec"]["replicas"] for each in old)
        replicas = spec["replicas"] if spec["strategy"]["type"] == "Recreate" else min(spec["replicas"], max(0, room))
        revision = max((_revision(each) for each in old), default=0) + 1
        made = self.store.put(
            self.sets,
            {
                "kind": "ReplicaSet",
                "apiVersion": "apps/v1",
                "metadata": {
                    "name": f"{at['name']}-{name}",
                    "namespace": at["namespace"],
                    "uid": self.cluster.writer.uid(),
                    "generation": 1,
                    "creationTimestamp": self.clock.stamp(),
                    "labels": labels,
                    "annotations": {**_copied(deployment), **self._sizes(deployment), REVISION: str(revision)},
                    "ownerReferences": [reference(deployment)],
                },
                "spec": {
                    "replicas": replicas,
                    "selector": _with_hash(spec["selector"], name),
                    "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
                    **({"minReadySeconds": spec["minReadySeconds"]} if spec.get("minReadySeconds") else {}),
                },
                "status": {"replicas": 0},
            },
        )
        if replicas:
            text = f"Scaled up replica set {_n(made)} from 0 to {replicas}"
            self.controllers.event(deployment, "Normal", "ScalingReplicaSet", text, SOURCE)
        return made

    def _sizes(self, deployment: Json) -> dict[str, str]:
        surge, _ = _fences(deployment)
        replicas = deployment["spec"]["replicas"]
        return {DESIRED: str(replicas), MOST: str(replicas + surge)}

    def _annotated(self, deployment: Json, new: Json, old: list[Json]) -> bool:
        """Brings the new ReplicaSet's revision and annotations up to date; true where that was a write."""
        newest = max((_revision(each) for each in old), default=0) + 1
        annotations = new["metadata"]["annotations"]
        wanted = {**annotations, **_copied(deployment), REVISION: str(max(newest, _revision(new)))}
        least = deployment["spec"].get("minReadySeconds", 0)
        if annotations == wanted and new["spec"].get("minReadySeconds", 0) == least:
            return False
        spec = {**new["spec"], "minReadySeconds": least} if least else {**new["spec"]}
        self._put(new, {**new, "metadata": {**new["metadata"], "annotations": wanted}, "spec": spec})
        return True

    def _put(self, old: Json, new: Json) -> None:
        if old["spec"] != new["spec"]:
            new["metadata"] = {**new["metadata"], "generation": new["metadata"]["generation"] + 1}
        self.store.put(self.sets, new)

    def _scale(self, deployment: Json, each: Json, replicas: int) -> bool:
        before = each["spec"]["replicas"]
        annotations = {**each["metadata"]["annotations"], **self._sizes(deployment)}
        if before == replicas and annotations == each["metadata"]["annotations"]:
            return False
        metadata = {**each["metadata"], "annotations": annotations}
        self._put(each, {**each, "metadata": metadata, "spec": {**each["spec"], "replicas": replicas}})
        if before != replicas:
            way = "up" if replicas > before else "down"
            text = f"Scaled {way} replica set {_n(each)} from {before} to {replicas}"
            self.controllers.event(deployment, "Normal", "ScalingReplicaSet", text, SOURCE)
        return True

    def _scaled(self, deployment: Json, old: list[Json], new: Json | None, paused: bool) -> bool:
        """One step towards the wanted sizes; true where there was one to make."""
        every = [*old, *([new] if new else [])]
        wanted = str(deployment["spec"]["replicas"])
        active = [each for each in every if each["spec"]["replicas"]]
        if any(each["metadata"]["annotations"].get(DESIRED) != wanted for each in active) or (paused and not active):
            return self._resized(deployment, old, new, active)
        if paused or new is None:
            return False
        if deployment["spec"]["strategy"]["type"] == "Recreate":
            return self._scale(deployment, new, deployment["spec"]["replicas"])
        return self._grow(deployment, every, new) or self._shrink(deployment, old, every, new)

    def _resized(self, deployment: Json, old: list[Json], new: Json | None, active: list[Json]) -> bool:
        """spec.replicas has changed: the only active ReplicaSet follows; several share by their sizes."""
        replicas = deployment["spec"]["replicas"]
        if len(active) <= 1:
            latest = active[0] if active else new or (old[-1] if old else None)
            return latest is not None and self._scale(deployment, latest, replicas)
        if new is not None and _saturated(deployment, new):
            return any([self._scale(deployment, each, 0) for each in old if each["spec"]["replicas"]])
        surge, _ = _fences(deployment)
        allowed = replicas + surge if replicas else 0
        total = sum(each["spec"]["replicas"] for each in active)
        left = allowed - total
        shares = []
        for each in sorted(active, key=lambda e: -e["spec"]["replicas"]):
            most = int(each["metadata"]["annotations"].get(MOST) or total)
            share = round(each["spec"]["replicas"] * allowed / most) - each["spec"]["replicas"]
            share = max(min(share, left), 0) if left >= 0 else min(max(share, left), 0)
            left -= share
            shares.append([each, share])
        shares[0][1] += left
        return any([self._scale(deployment, each, max(0, each["spec"]["replicas"] + n)) for each, n in shares])

    def _grow(self, deployment: Json, every: list[Json], new: Json) -> bool:
        replicas, size = deployment["spec"]["replicas"], new["spec"]["replicas"]
        if size > replicas:
            return self._scale(deployment, new, replicas)
        surge, _ = _fences(deployment)
        room = replicas + surge - sum(each["spec"]["replicas"] for each in every)
        more = min(room, replicas - size)
        return more > 0 and self._scale(deployment, new, size + more)

    def _shrink(self, deployment: Json, old: list[Json], every: list[Json], new: Json) -> bool:
        if not any(each["spec"]["replicas"] for each in old):
            return False
        _, down = _fences(deployment)
        least = deployment["spec"]["replicas"] - down
        missing = new["spec"]["replicas"] - _count(new, "availableReplicas")
        budget = sum(each["spec"]["replicas"] for each in every) - least - missing
        if budget <= 0:
            return False
        for each in old:  # what is not available anyway goes first
            size, available = each["spec"]["replicas"], _count(each, "availableReplicas")
            if size > available and _count(each, "replicas") == size:
                return self._scale(deployment, each, size - min(budget, size - available))
        spare = sum(_count(each, "availableReplicas") for each in every) - least
        for each in old:
            size = each["spec"]["replicas"]
            if size and spare > 0 and _count(each, "replicas") == size:
                return self._scale(deployment, each, size - min(size, spare))
        return False

    def _clean(self, deployment: Json, old: list[Json], new: Json | None) -> None:
        if new is None or not _complete(deployment, deployment.get("status", {})):
            return
        keep = deployment["spec"]["revisionHistoryLimit"]
        idle = [e for e in old if not e["spec"]["replicas"] and not _count(e, "replicas") and not going(e)]
        for each in idle[: max(0, len(idle) - keep)]:
            self.cluster.writer.delete(self.sets, each, {})

    def _status(
        self, deployment: Json, every: list[Json], new: Json | None, news: tuple[str, str] | None = None
    ) -> None:
        old = deployment.get("status", {})
        spec = deployment["spec"]
        available = sum(_count(each, "availableReplicas") for each in every)
        status: Json = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": sum(_count(each, "replicas") for each in every),
            "updatedReplicas": _count(new, "replicas") if new else 0,
            "readyReplicas": sum(_count(each, "readyReplicas") for each in every),
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(each["spec"]["replicas"] for each in every) - available),
            "terminatingReplicas": sum(_count(each, "terminatingReplicas") for each in every),
            "collisionCount": old.get("collisionCount"),
        }
        conditions = {each["type"]: each for each in old.get("conditions", ())}
        _, down = _fences(deployment)
        if available >= spec["replicas"] - down:
            self._set(conditions, "Available", True, "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            text = "Deployment does not have minimum availability."
            self._set(conditions, "Available", False, "MinimumReplicasUnavailable", text)
        if not spec.get("paused"):
            self._progress(deployment, conditions, status, new, news)
        failure = condition(new, "ReplicaFailure") if new else None
        if failure:
            self._set(conditions, "ReplicaFailure", True, failure["reason"], failure["message"])
        else:
            conditions.pop("ReplicaFailure", None)
        status["conditions"] = list(conditions.values())
        status = without_zeros(status)
        metadata = deployment["metadata"]
        if new:
            revision = {**metadata.get("annotations", {}), REVISION: new["metadata"]["annotations"][REVISION]}
            metadata = {**metadata, "annotations": revision}
        if status != old or metadata != deployment["metadata"]:
            changed = {**deployment, "metadata": metadata, "status": status}
            self.cluster.writer.update(self.resource, deployment, changed, _MANAGER, "status")

    def _progress(
        self,
        deployment: Json,
        conditions: dict[str, Json],
        status: Json,
        new: Json | None,
        news: tuple[str, str] | None,
    ) -> None:
        old = deployment.get("status", {})
        known = conditions.get("Progressing")
        name = _n(new) if new else deployment["metadata"]["name"]
        if news:
            self._set(conditions, "Progressing", True, *news, renew=True)
        elif _complete(deployment, status):
            if known and known["reason"] == "NewReplicaSetAvailable" and known["status"] == "True":
                return
            text = f'ReplicaSet "{name}" has successfully progressed.'
            self._set(conditions, "Progressing", True, "NewReplicaSetAvailable", text, renew=True)
        elif known is None and new:
            text = f'Found new replica set "{name}"'
            self._set(conditions, "Progressing", True, "FoundNewReplicaSet", text, renew=True)
        elif _progressing(old, status):
            text = f'ReplicaSet "{name}" is progressing.'
            self._set(conditions, "Progressing", True, "ReplicaSetUpdated", text, renew=True)
        elif known and known["reason"] not in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
            due = seconds(known["lastUpdateTime"]) + deployment["spec"]["progressDeadlineSeconds"]
            if self.clock.seconds > due:
                text = f'ReplicaSet "{name}" has timed out progressing.'
                self._set(conditions, "Progressing", False, "ProgressDeadlineExceeded", text, renew=True)
            else:
                self.controllers.again(due + 1)

    def _set(
        self, conditions: dict[str, Json], kind: str, good: bool, reason: str, message: str, renew: bool = False
    ) -> None:
        known, now = conditions.get(kind), self.clock.stamp()
        made = {
            "type": kind,
            "status": str(good),
            "lastUpdateTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }
        if known and known["status"] == made["status"]:
            if known["reason"] == reason and not renew:
                return
            made["lastTransitionTime"] = known["lastTransitionTime"]
        conditions[kind] = made


def _n(thing: Json) -> str:
    return str(thing["metadata"]["name"])


def _hash(template: Json) -> str:
    digits = str(zlib.crc32(json.dumps(template, sort_keys=True).encode()))
    letters = "bcdfghjklmnpqrstvwxz2456789"
    return "".join(letters[ord(each) % 27] for each in digits)


def _with_hash(selector: Json, name: str) -> Json:
    return {**selector, "matchLabels": {**selector.get("matchLabels", {}), HASH: name}}


def _copied(deployment: Json) -> dict[str, str]:
    annotations = deployment["metadata"].get("annotations", {})
    return {key: value for key, value in annotations.items() if key not in _NOT_COPIED}


def _revision(each: Json) -> int:
    return int(each["metadata"].get("annotations", {}).get(REVISION, 0))


def _count(each: Json, name: str) -> int:
    return int((each.get("status") or {}).get(name, 0))


def _fences(deployment: Json) -> tuple[int, int]:
    """maxSurge and maxUnavailable in pods; never both 0."""
    spec = deployment["spec"]
    rolling = spec["strategy"].get("rollingUpdate")
    if not rolling:
        return 0, 0
    surge = _pods(rolling["maxSurge"], spec["replicas"], math.ceil)
    down = _pods(rolling["maxUnavailable"], spec["replicas"], math.floor)
    return surge, min(down or (0 if surge else 1), spec["replicas"])


def _pods(value: Any, replicas: int, rounded: Any) -> int:
    return value if isinstance(value, int) else int(rounded(replicas * int(value.rstrip("%")) / 100))


def _saturated(deployment: Json, new: Json) -> bool:
    wanted = deployment["spec"]["replicas"]
    desired = int(new["metadata"]["annotations"].get(DESIRED) or -1)
    return bool(new["spec"]["replicas"] == desired == wanted == _count(new, "availableReplicas"))


def _complete(deployment: Json, status: Json) -> bool:
    wanted = deployment["spec"]["replicas"]
    counts = ("updatedReplicas", "replicas", "availableReplicas")
    current = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return current and all(status.get(name, 0) == wanted for name in counts)


def _progressing(old: Json, new: Json) -> bool:
    def of(status: Json, name: str) -> int:
        return int(status.get(name, 0))

    outdated = of(old, "replicas") - of(old, "updatedReplicas"), of(new, "replicas") - of(new, "updatedReplicas")
    grown = any(of(new, n) > of(old, n) for n in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    return grown or outdated[1] < outdated[0]
