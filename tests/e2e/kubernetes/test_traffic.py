"""What clients inside the cluster see, who reach the Service by its address: new connections, and kept ones."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ekiben.loadtest.golden import Golden
from tests.e2e.kubernetes.admin import Refused, until
from tests.e2e.kubernetes.service import ENV, Service
from tests.e2e.kubernetes.world import World

pytestmark = pytest.mark.timeout(1800)

SCRIPT = Path(__file__).with_name("client.py").read_text()
POD = "client"


def pod(service: Service) -> dict[str, Any]:
    settings, golden = service.world.settings, Golden.read(service.root / "golden.json")
    example = golden.examples[0]
    url = f"http://{service.name}.{service.world.namespace}.svc{golden.route_of(example)}"
    container = {
        "name": POD,
        "image": settings.image.reference,
        "imagePullPolicy": settings.pull,
        "command": ["python", "-u", "-c", SCRIPT],
        "env": [{"name": "URL", "value": url}, {"name": "BODY", "value": example.body.decode()}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    confined = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    more = settings.environment("")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "containers": [container],
            "securityContext": confined,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "imagePullSecrets": [{"name": name} for name in more.get("image_pull_secrets", ())],
            "nodeSelector": more.get("node_selector", {}),
        },
    }


@contextmanager
def client(service: Service) -> Iterator[None]:
    """Runs as long as the block, in which every request must be answered."""
    admin = service.world.admin
    path = f"{admin.path('v1', 'pods', POD)}/log"

    def told() -> dict[str, Any]:
        try:
            lines = admin.request("GET", path, tailLines="1").splitlines()
        except Refused:  # it has not begun
            return {"good": 0}
        try:
            found: dict[str, Any] = json.loads(lines[-1]) if lines else {"good": 0}
        except ValueError:
            raise AssertionError(f"the image has no Python that a pod can run: {lines}") from None
        return found

    def goes_on() -> dict[str, Any]:
        before = told()["good"]
        found: dict[str, Any] = until(
            "the client gets answers", lambda: now if (now := told())["good"] > before + 20 else 0, 180
        )
        return found

    admin.create(pod(service))
    try:
        goes_on()
        yield
        seen = goes_on()
    finally:
        admin.request("DELETE", admin.path("v1", "pods", POD))
        until("the client has gone", lambda: POD not in {p["metadata"]["name"] for p in admin.items("pods")})
    assert seen["failed"] == [], seen


def test_nobody_in_the_cluster_notices(world: World) -> None:
    """A release, the way back to a colour that was scaled down, and a canary."""
    service = world.service("wired")
    service.deploy()
    with client(service):
        service.deploy()
        service.ekiben("rollback", service.name, "--env", ENV, "--no-alias")
        service.deploy(0, "--canary", "30%")
    assert service.live().epoch == 5
    service.remove()
