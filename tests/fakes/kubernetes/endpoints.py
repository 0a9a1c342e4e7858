"""The EndpointSlice controller."""

from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.objects import going, ready, reference

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

Json = dict[str, Any]


class Endpoints:
    """`lag`: seconds between a change of pods or Services and the slices that follow it."""

    def __init__(self, controllers: "Controllers") -> None:
        self.controllers, self.cluster = controllers, controllers.cluster
        self.store, self.clock = controllers.store, controllers.clock
        self.resource = self.cluster.resource("endpointslices")
        self.lag = 0.0
        self._noticed: dict[str, float] = {}

    def reconcile(self) -> None:
        services = self.store.every(("", "services"))
        if not services:
            return
        slices = {
            (each["metadata"]["namespace"], each["metadata"]["labels"]["kubernetes.io/service-name"]): each
            for each in self.store.every(self.resource.key)
            if "kubernetes.io/service-name" in each["metadata"].get("labels", {})
        }
        for service in services:
            if service["spec"].get("selector") and not going(service):
                at = service["metadata"]
                self._one(service, slices.get((at["namespace"], at["name"])))

    def _one(self, service: Json, current: Json | None) -> None:
        endpoints, ports = self._wanted(service)
        uid = service["metadata"]["uid"]
        if current is not None and (current["endpoints"], current["ports"]) == (endpoints, ports):
            self._noticed.pop(uid, None)
            return
        since = self._noticed.setdefault(uid, self.clock.seconds)
        if self.clock.seconds < since + self.lag:
            self.controllers.again(since + self.lag)
            return
        self._noticed.pop(uid)
        if current is None:
            current = self._blank(service)
        metadata = {**current["metadata"], "generation": current["metadata"]["generation"] + 1}
        self.store.put(self.resource, {**current, "metadata": metadata, "endpoints": endpoints, "ports": ports})

    def _blank(self, service: Json) -> Json:
        at = service["metadata"]
        name = f"{at['name']}-{self.cluster.writer.suffix()}"
        return {
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "name": name,
                "generateName": f"{at['name']}-",
                "namespace": at["namespace"],
                "uid": self.cluster.writer.uid(),
                "generation": 0,
                "creationTimestamp": self.clock.stamp(),
                "labels": {
                    **at.get("labels", {}),
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": at["name"],
                },
                "ownerReferences": [reference(service)],
            },
            "addressType": "IPv4",
        }

    def _wanted(self, service: Json) -> tuple[list[Json] | None, list[Json] | None]:
        """Endpoints and ports; both are null, not empty, for a Service without pods."""
        at, selector = service["metadata"], service["spec"]["selector"].items()
        pods = [
            pod
            for pod in self.store.ordered(("", "pods"), at["namespace"])
            if selector <= pod["metadata"].get("labels", {}).items()
            and pod["status"].get("podIP")
            and pod["status"]["phase"] not in ("Failed", "Succeeded")
        ]
        if not pods:
            return None, None
        always = service["spec"].get("publishNotReadyAddresses", False)
        endpoints = [
            {
                "addresses": [pod["status"]["podIP"]],
                "conditions": {
                    "ready": always or (ready(pod) and not going(pod)),
                    "serving": always or ready(pod),
                    "terminating": going(pod),
                },
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": {
                    "kind": "Pod",
                    "namespace": at["namespace"],
                    "name": pod["metadata"]["name"],
                    "uid": pod["metadata"]["uid"],
                },
            }
            for pod in pods
        ]
        ports = [
            {"name": port.get("name", ""), "port": number, "protocol": port["protocol"]}
            for port in service["spec"]["ports"]
            if (number := target_port(port, pods[0])) is not None
        ]
        return endpoints, ports


def target_port(port: Json, pod: Json) -> int | None:
    """The number of a Service's target port in a pod."""
    target = port["targetPort"]
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for each in container.get("ports", ()):
            if each.get("name") == target:
                return int(each["containerPort"])
    return None
