"""The fake over real HTTP: with lightkube, with kubectl where there is one, with real backends behind a Service."""

import http.client
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lightkube import ApiError, Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.types import PatchType

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, transport, write_kubeconfig
from tests.fakes.kubernetes.samples import DEPLOYMENTS, SERVICES, apply, deployment, patch, service
from tests.fakes.kubernetes.traffic import ServiceProxy


@pytest.fixture(params=["sockets", "in this process"])
def client(request: pytest.FixtureRequest, tmp_path: Path, cluster: Cluster) -> Iterator[Client]:
    if request.param == "sockets":
        with served(cluster) as url:
            config = KubeConfig.from_file(write_kubeconfig(tmp_path / "config", url))
            yield Client(config=config, field_manager="ekiben")
    else:
        config = KubeConfig.from_file(write_kubeconfig(tmp_path / "config", "http://cluster.invalid"))
        yield Client(config=config, field_manager="ekiben", transport=transport(cluster))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_blue_green_switch_with_lightkube(cluster: Cluster, client: Client) -> None:
    for slot in ("blue", "green"):
        client.apply(Deployment.from_dict(deployment(slot)))
    client.create(Service.from_dict(service(epoch="1")))
    cluster.advance(5)
    green = client.get(Deployment, "green")
    assert green.status and green.status.availableReplicas == 3
    assert len(list(client.list(Pod, labels={"slot": "green"}))) == 3
    fence = [{"op": "test", "path": "/metadata/annotations/epoch", "value": "1"}]
    move = [{"op": "replace", "path": "/spec/selector/slot", "value": "green"}]
    more = [{"op": "replace", "path": "/metadata/annotations/epoch", "value": "2"}]
    client.patch(Service, "web", [*fence, *move, *more], patch_type=PatchType.JSON)
    with pytest.raises(ApiError) as second:
        client.patch(Service, "web", [*fence, *move, *more], patch_type=PatchType.JSON)
    assert second.value.status.code == 422
    cluster.advance(1)
    (piece,) = client.list(EndpointSlice, labels={"kubernetes.io/service-name": "web"})
    assert {each.targetRef.name[:5] for each in piece.endpoints or [] if each.targetRef} == {"green"}
    with pytest.raises(ApiError) as conflict:
        client.apply(Service.from_dict(service(epoch="1")))
    assert conflict.value.status.code == 409 and conflict.value.status.reason == "Conflict"
    client.delete(Deployment, "blue")
    cluster.advance(40)
    assert len(list(client.list(Pod))) == 3


def test_lightkube_lists_in_chunks_and_sees_plain_errors(cluster: Cluster, client: Client) -> None:
    for index in range(5):
        client.create(ConfigMap(metadata=ObjectMeta(name=f"c{index}")))
    assert len(list(client.list(ConfigMap, chunk_size=2))) == 5
    cluster.fail("get configmaps", status=429, retry_after=3)
    with pytest.raises(httpx2.HTTPStatusError) as limited:
        client.get(ConfigMap, "c1")
    assert not isinstance(limited.value, ApiError) and limited.value.response.headers["Retry-After"] == "3"
    for effect in ({"reset": True}, {"lost": True}):
        cluster.fail("create configmaps", **effect)
        with pytest.raises(httpx2.HTTPError):
            client.create(ConfigMap(metadata=ObjectMeta(name=next(iter(effect)))))
    names = {each["metadata"]["name"] for each in cluster.objects("configmaps")}
    assert "lost" in names and "reset" not in names


def test_lightkube_waits_and_watches(tmp_path: Path, cluster: Cluster) -> None:
    with served(cluster, speed=50) as url:
        client = Client(config=KubeConfig.from_file(write_kubeconfig(tmp_path / "config", url)), field_manager="ekiben")
        client.apply(Deployment.from_dict(deployment()))
        done = client.wait(Deployment, "blue", for_conditions=["Available"])
        assert done.status and done.status.availableReplicas
        cluster.fail("watch pods", drop_after=1)
        seen = []
        with pytest.raises(httpx2.HTTPError):
            for event, pod in client.watch(Pod):
                seen.append((event, pod.metadata and pod.metadata.name))
        assert len(seen) == 1


def test_in_this_process_waiting_for_a_watch_lets_time_pass(tmp_path: Path, cluster: Cluster) -> None:
    config = KubeConfig.from_file(write_kubeconfig(tmp_path / "config", "http://cluster.invalid"))
    calls: list[str] = []
    client = Client(config=config, field_manager="e", transport=transport(cluster, lambda *call: calls.append(call[0])))
    client.apply(Deployment.from_dict(deployment()))
    done = client.wait(Deployment, "blue", for_conditions=["Available"])
    assert done.status and done.status.availableReplicas and cluster.clock.seconds >= 2
    assert calls[0] == "PATCH"


KUBECTL = shutil.which("kubectl")


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
def test_kubectl(tmp_path: Path, cluster: Cluster) -> None:
    with served(cluster, speed=50) as url:
        config = write_kubeconfig(tmp_path / "config", url)

        def kubectl(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
            arguments = [str(KUBECTL), f"--kubeconfig={config}", f"--cache-dir={tmp_path}", *command]
            return subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=60, check=False)

        manifest = tmp_path / "web.yaml"
        manifest.write_text(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n"
            "  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n"
            "    spec: {containers: [{name: web, image: 'web:1'}]}\n"
        )
        applied = kubectl("apply", "--server-side", "--validate=false", "-f", str(manifest))
        assert applied.stdout == "deployment.apps/web serverside-applied\n", applied.stderr
        assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=20s").stdout
        assert kubectl("scale", "deployment/web", "--replicas=3").stdout == "deployment.apps/web scaled\n"
        again = kubectl("apply", "--server-side", "--validate=false", "-f", str(manifest))
        assert again.returncode == 1 and 'conflict with "kubectl" with subresource "scale"' in again.stderr
        assert "deployment.apps/web\n" in kubectl("get", "deployments,pods", "-o", "name").stdout
        assert 'services "none" not found' in kubectl("get", "service", "none").stderr


class _Backend:
    """A real HTTP server that answers with its name."""

    def __init__(self, name: str) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


def test_connections_stay_and_new_ones_follow_the_selector(cluster: Cluster) -> None:
    backends: list[_Backend] = []

    def start(pod: dict[str, Any]) -> str:
        backends.append(_Backend(pod["metadata"]["labels"]["slot"]))
        return backends[-1].url

    cluster.kubelet.behave("", backend=start)
    cluster.create(service())
    for slot in ("blue", "green"):
        apply(cluster, DEPLOYMENTS, deployment(slot, replicas=2))
    cluster.advance(5)

    def ask(connection: http.client.HTTPConnection) -> str:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()

    try:
        with ServiceProxy(cluster, "web") as proxy:
            kept = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
            assert ask(kept) == "blue"
            patch(cluster, f"{SERVICES}/web", {"spec": {"selector": {"slot": "green"}}}, "merge")
            cluster.advance(1)
            assert ask(kept) == "blue"
            for _ in range(10):
                fresh = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
                assert ask(fresh) == "green"
                fresh.close()
            assert len(proxy.connections) == 3  # both green pods had some
            patch(cluster, f"{SERVICES}/web", {"spec": {"selector": {"slot": "red"}}}, "merge")
            cluster.advance(1)
            refused = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(refused)
            kept.close()
    finally:
        for each in backends:
            each.server.shutdown()
            each.server.server_close()
