"""GET, POST … on pods/NAME/proxy and services/NAME/proxy: the request goes on to the pod's real backend."""

import http.client
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from tests.fakes.kubernetes.endpoints import target_port
from tests.fakes.kubernetes.faults import Answer, Call
from tests.fakes.kubernetes.statuses import ApiFailure, not_found

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

Json = dict[str, Any]
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length", "authorization"}


def _unavailable(message: str) -> ApiFailure:
    return ApiFailure(503, "ServiceUnavailable", message, {})


def proxied(cluster: "Cluster", call: Call, rest: str, headers: dict[str, str], body: Any) -> Answer:
    """Raises 404 for a pod or Service that is not there and 503 where nothing answers."""
    parts = call.name.split(":")
    name = parts[1] if len(parts) == 3 else parts[0]
    port = parts[-1] if len(parts) > 1 else ""
    plural = call.resource.partition("/")[0]
    with cluster.store.changed:
        found = cluster.writer.must(cluster.resource(plural), call.namespace, name)
        pod = found if plural == "pods" else _behind(cluster, found, port)
        backend = cluster.kubelet.backend(pod)
        address = pod["status"].get("podIP", "")
    number = port or "80"
    refused = _unavailable(f"error trying to reach service: dial tcp {address}:{number}: connect: connection refused")
    if backend is None:
        raise refused
    path = "/" + quote(rest, safe="/:@!$&'()*+,;=~") + (f"?{urlencode(call.params)}" if call.params else "")
    passed = {key: value for key, value in headers.items() if key not in _HOP}
    sent = body if isinstance(body, bytes) else (body or "").encode() if not isinstance(body, dict) else b""
    if callable(backend):
        status, given, content = backend(call.method, path, passed, sent)
        return Answer(status, content, given)
    target = urlsplit(backend)
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
    try:
        connection.request(call.method, path, sent or None, passed)
        response = connection.getresponse()
        content = response.read()
        given = {key: value for key, value in response.getheaders() if key.lower() not in _HOP}
        return Answer(response.status, content, given)
    except ConnectionRefusedError as error:
        raise refused from error
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(f"error trying to reach service: {error or 'EOF'}") from error
    finally:
        connection.close()


def _behind(cluster: "Cluster", service: Json, port: str) -> Json:
    """A ready pod of the Service, any."""
    at = service["metadata"]
    matching = [p for p in service["spec"]["ports"] if port in ("", p.get("name"), str(p["port"]))]
    if not matching:
        raise _unavailable(f'no service port {port} found for service "{at["name"]}"')
    label = ("kubernetes.io/service-name", at["name"])
    slices = cluster.store.ordered(("discovery.k8s.io", "endpointslices"), at["namespace"])
    if not any(label in each["metadata"].get("labels", {}).items() for each in slices):
        raise not_found("", "endpoints", at["name"])  # nobody has written them yet
    ready = ready_endpoints(cluster, at["namespace"], at["name"])
    if not ready:
        raise _unavailable(f'no endpoints available for service "{at["name"]}"')
    chosen = cluster.writer.chance.choice(ready)["targetRef"]["name"]
    pod = cluster.writer.must(cluster.resource("pods"), at["namespace"], chosen)
    assert target_port(matching[0], pod) is not None
    return pod


def ready_endpoints(cluster: "Cluster", namespace: str, service: str) -> list[Json]:
    """The endpoints of a Service's slices that get new connections."""
    found = []
    for each in cluster.store.ordered(("discovery.k8s.io", "endpointslices"), namespace):
        if each["metadata"].get("labels", {}).get("kubernetes.io/service-name") == service:
            found += [e for e in each["endpoints"] or () if e["conditions"]["ready"]]
    return found
