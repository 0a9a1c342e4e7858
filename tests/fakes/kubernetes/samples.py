"""Small objects for tests, and requests that say what they mean."""

from typing import Any

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.faults import Answer

Json = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SERVICES = "/api/v1/namespaces/default/services"
PODS = "/api/v1/namespaces/default/pods"
_TYPES = {"json": "json-patch+json", "merge": "merge-patch+json", "strategic": "strategic-merge-patch+json"}


def deployment(name: str = "blue", replicas: int | None = 3, image: str = "web:1", **spec: Any) -> Json:
    labels = {"app": "web", "slot": name}
    container = {"name": "web", "image": image, "ports": [{"containerPort": 3000, "name": "http"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            **spec,
        },
    }


def service(slot: str = "blue", name: str = "web", **annotations: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, **({"annotations": annotations} if annotations else {})},
        "spec": {"selector": {"app": "web", "slot": slot}, "ports": [{"port": 80, "targetPort": "http"}]},
    }


def autoscaler(name: str = "blue", least: int = 2, most: int = 10, target: int = 50) -> Json:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }


def apply(cluster: Cluster, path: str, thing: Json, manager: str = "ekiben", **params: str) -> Answer:
    """Server-side apply of `thing` to its collection's `path`."""
    headers = {"Content-Type": "application/apply-patch+yaml"}
    return cluster.request(
        "PATCH", f"{path}/{thing['metadata']['name']}", {"fieldManager": manager, **params}, headers, thing
    )


def patch(cluster: Cluster, path: str, body: Any, kind: str = "json", **params: str) -> Answer:
    return cluster.request("PATCH", path, params, {"Content-Type": f"application/{_TYPES[kind]}"}, body)
