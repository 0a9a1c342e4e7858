"""The controllers on the virtual clock: what runs in kube-controller-manager, kube-scheduler and the kubelets.

They work only while time passes (`advance`), so a client sees the state between its write and their reaction, as with
the real ones. Each pass over an object makes at most one step; passes repeat until nothing changes.
"""

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.autoscaling import Autoscaler
from tests.fakes.kubernetes.collector import Collector
from tests.fakes.kubernetes.deployments import Deployments
from tests.fakes.kubernetes.endpoints import Endpoints
from tests.fakes.kubernetes.kubelet import Kubelet
from tests.fakes.kubernetes.quotas import Quotas
from tests.fakes.kubernetes.replicasets import ReplicaSets

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

Json = dict[str, Any]


class Controllers:
    def __init__(self, cluster: "Cluster") -> None:
        self.cluster, self.clock, self.store = cluster, cluster.clock, cluster.store
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._settled = -1
        self.kubelet = Kubelet(self)
        self.autoscaler = Autoscaler(self)
        self.endpoints = Endpoints(self)
        self.deployments = Deployments(self)
        self.replica_sets = ReplicaSets(self)
        self._all = (
            Quotas(self),
            self.deployments,
            self.replica_sets,
            self.kubelet,
            self.endpoints,
            self.autoscaler,
            Collector(self),
        )

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Runs `what` when the clock gets there."""
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.clock.seconds + seconds, what)

    def again(self, when: float) -> None:
        """Has the controllers look at everything once more then."""
        self.at(when, self.wake)

    def wake(self) -> None:
        self._settled = -1

    def advance(self, seconds: float) -> None:
        until = self.clock.seconds + seconds
        self._settle()
        while self._timers and self._timers[0][0] <= until:
            when, _, what = heapq.heappop(self._timers)
            self.clock.seconds = max(self.clock.seconds, when)
            what()
            if not self._timers or self._timers[0][0] > when:
                self._settle()
        self.clock.seconds = until

    def _settle(self) -> None:
        for _ in range(1000):
            if self.store.version == self._settled:
                return
            self._settled = self.store.version
            self.step()
        raise RuntimeError("the controllers do not come to rest: two of them undo each other's work")

    def step(self) -> None:
        """One pass of every controller: tests call it to stop between two reactions."""
        for each in self._all:
            each.reconcile()

    def event(self, about: Json, kind: str, reason: str, message: str, source: str) -> None:
        """Records an event; the same one again raises its count."""
        at = about["metadata"]
        resource = self.cluster.resource("events")
        for known in self.store.ordered(resource.key, at["namespace"]):
            same = known["involvedObject"].get("uid") == at["uid"] and known["message"] == message
            if same and known["reason"] == reason:
                count = known["count"] + 1
                self.store.put(resource, {**known, "count": count, "lastTimestamp": self.clock.stamp()})
                return
        self.store.put(
            resource,
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {
                    "name": f"{at['name']}.{self.cluster.writer.uid()[:16].replace('-', '')}",
                    "namespace": at["namespace"],
                    "uid": self.cluster.writer.uid(),
                    "creationTimestamp": self.clock.stamp(),
                },
                "involvedObject": {
                    "kind": about["kind"],
                    "namespace": at["namespace"],
                    "name": at["name"],
                    "uid": at["uid"],
                    "apiVersion": about["apiVersion"],
                    "resourceVersion": at["resourceVersion"],
                },
                "reason": reason,
                "message": message,
                "source": {"component": source},
                "firstTimestamp": self.clock.stamp(),
                "lastTimestamp": self.clock.stamp(),
                "count": 1,
                "type": kind,
                "eventTime": None,
                "reportingComponent": source,
                "reportingInstance": "",
            },
        )
