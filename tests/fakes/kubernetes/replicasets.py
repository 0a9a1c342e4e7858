"""The ReplicaSet controller."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes import admission
from tests.fakes.kubernetes.access import ADMIN
from tests.fakes.kubernetes.objects import condition, going, owner, ready, ready_since, reference, without_zeros
from tests.fakes.kubernetes.statuses import ApiFailure

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

Json = dict[str, Any]
SOURCE = "replicaset-controller"


class ReplicaSets:
    def __init__(self, controllers: "Controllers") -> None:
        self.controllers, self.cluster = controllers, controllers.cluster
        self.store, self.clock = controllers.store, controllers.clock
        self.resource = self.cluster.resource("replicasets")
        self.pods = self.cluster.resource("pods")
        self._failures: dict[str, tuple[int, float]] = {}  # by uid: how often, and when to try again

    def reconcile(self) -> None:
        sets = self.store.every(self.resource.key)
        if not sets:
            return
        owned: dict[str, list[Json]] = defaultdict(list)
        for pod in self.store.every(self.pods.key):
            owned[owner(pod)].append(pod)
        for each in sets:
            if not going(each):
                self._one(each, owned[each["metadata"]["uid"]])

    def _one(self, each: Json, pods: list[Json]) -> None:
        living = [p for p in pods if not going(p) and p["status"]["phase"] not in ("Failed", "Succeeded")]
        wanted = each["spec"]["replicas"]
        failure: str | None = None
        uid = each["metadata"]["uid"]
        if len(living) < wanted:
            failure = self._create(each, wanted - len(living))
        elif len(living) > wanted:
            for pod in sorted(living, key=_worth)[: len(living) - wanted]:
                self.cluster.writer.delete(self.pods, pod, {})
                name = pod["metadata"]["name"]
                self.controllers.event(each, "Normal", "SuccessfulDelete", f"Deleted pod: {name}", SOURCE)
        if len(living) >= wanted:
            self._failures.pop(uid, None)
        self._status(each, pods, living, failure)

    def _create(self, each: Json, count: int) -> str | None:
        """Why pods cannot be created, or None."""
        uid = each["metadata"]["uid"]
        tries, when = self._failures.get(uid, (0, 0.0))
        known = condition(each, "ReplicaFailure")
        if self.clock.seconds < when:
            return known["message"] if known else None
        for _ in range(count):
            try:
                name = self._pod(each)
            except ApiFailure as failure:
                self._failures[uid] = (tries + 1, self.clock.seconds + min(2.0**tries, 900))
                self.controllers.again(self._failures[uid][1])
                message = f"Error creating: {failure.message}"
                self.controllers.event(each, "Warning", "FailedCreate", message, SOURCE)
                return failure.message
            self.controllers.event(each, "Normal", "SuccessfulCreate", f"Created pod: {name}", SOURCE)
        self._failures.pop(uid, None)
        return None

    def _pod(self, each: Json) -> str:
        template, at = each["spec"]["template"], each["metadata"]
        metadata = {
            **template.get("metadata", {}),
            "name": f"{at['name']}-{self.cluster.writer.suffix()}",
            "generateName": f"{at['name']}-",
            "namespace": at["namespace"],
            "ownerReferences": [reference(each)],
            "uid": self.cluster.writer.uid(),
            "creationTimestamp": self.clock.stamp(),
            "generation": 1,
        }
        spec = {"serviceAccountName": "default", "serviceAccount": "default", **template["spec"]}
        pod = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": {**spec, "enableServiceLinks": True},
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        }
        admission.admit(self.cluster, self.pods, pod, None, at["namespace"], ADMIN)
        return str(self.store.put(self.pods, pod)["metadata"]["name"])

    def _status(self, each: Json, pods: list[Json], living: list[Json], failure: str | None) -> None:
        labels = each["spec"]["template"].get("metadata", {}).get("labels", {}).items()
        least = each["spec"].get("minReadySeconds", 0)
        prepared = [pod for pod in living if ready(pod)]
        available = 0
        for pod in prepared:
            due = ready_since(pod) + least
            if not least or due <= self.clock.seconds:
                available += 1
            else:
                self.controllers.again(due)
        old = each.get("status", {})
        conditions = []
        if failure is not None:
            known = condition(each, "ReplicaFailure")
            since = known["lastTransitionTime"] if known else self.clock.stamp()
            conditions = [
                {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "lastTransitionTime": since,
                    "reason": "FailedCreate",
                    "message": failure,
                }
            ]
        status = without_zeros(
            {
                "fullyLabeledReplicas": sum(labels <= p["metadata"].get("labels", {}).items() for p in living),
                "readyReplicas": len(prepared),
                "availableReplicas": available,
                "terminatingReplicas": sum(map(going, pods)),
                "observedGeneration": each["metadata"]["generation"],
                "conditions": conditions,
            }
        )
        status["replicas"] = len(living)
        if status != old:
            self.store.put(self.resource, {**each, "status": status})


def _worth(pod: Json) -> tuple[Any, ...]:
    """What goes first when pods are too many (controller.ActivePodsWithRanks)."""
    started = ready_since(pod) if ready(pod) else 0.0
    restarts = max((c.get("restartCount", 0) for c in pod["status"].get("containerStatuses", ())), default=0)
    return (
        bool(pod["spec"].get("nodeName")),
        pod["status"]["phase"] == "Running",
        ready(pod),
        -started,
        -restarts,
        -int(pod["metadata"]["resourceVersion"]),
    )
