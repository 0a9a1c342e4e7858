"""A fake Argo Server (4.1) over the fake API server: its routes, its errors (gRPC codes as JSON), its streams.

It reads and writes through the API server, as the real one does, so faults put there come through as its own errors;
`fail` adds faults of the Argo Server itself. `served` puts it on a socket.
"""

import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.argo import nodes
from tests.fakes.argo.operation import GROUP, VERSION
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.faults import Answer, ConnectionLost

Json = dict[str, Any]
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 503: 14}  # else 13: internal


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class ArgoServer:
    """`tokens` maps a token to the namespaces it may work in; without any, everybody may do everything. `base` is the
    path below which it answers; `archive` has the archived logs, by node id."""

    def __init__(
        self,
        cluster: Cluster,
        base: str = "",
        tokens: dict[str, tuple[str, ...]] | None = None,
        archive: dict[str, str] | None = None,
    ) -> None:
        self.cluster, self.base, self.tokens = cluster, base.rstrip("/"), tokens or {}
        self.archive = archive or {}
        self.log: list[str] = []
        self._faults: list[Json] = []

    def fail(self, match: str, times: int = 1, **effect: Any) -> None:
        """The next calls that match ("PUT .*/stop") fail: `status` with `body` (bytes) or as its own error,
        `retry_after` seconds, `delay` in real seconds, `lost` (done, then no answer), `reset` (no answer at all),
        `broken` (a gRPC code with which a stream ends after its status was sent)."""
        self._faults.append({"match": match, "left": times, **effect})

    def request(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """Raises ConnectionLost where a fault says so."""
        parts = urlsplit(target)
        self.log.append(f"{method} {parts.path}")
        fault = self._met(f"{method} {parts.path}")
        if fault.get("delay"):
            time.sleep(fault["delay"])
        if fault.get("reset"):
            raise ConnectionLost(committed=False)
        if fault.get("status"):
            made = _refusal(Refused(fault["status"], "a fault"))
            made.body = fault.get("body", made.body)
            if "retry_after" in fault:
                made.headers = {**made.headers, "Retry-After": str(fault["retry_after"])}
            return made
        try:
            found = self._answered(method, parts.path, dict(parse_qsl(parts.query)), headers, body)
        except Refused as refused:
            found = _refusal(refused)
        if fault.get("broken"):
            error = {"grpc_code": fault["broken"], "http_code": 403, "message": "pods is forbidden", "details": []}
            found.body = iter([json.dumps({"error": error}).encode() + b"\n"])
        if fault.get("lost"):
            raise ConnectionLost(committed=True)
        return found

    def _met(self, call: str) -> Json:
        for fault in self._faults:
            if fault["left"] and re.search(fault["match"], call):
                fault["left"] -= 1
                return fault
        return {}

    def _answered(self, method: str, path: str, params: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        if path.startswith(f"{self.base}/artifact-files/"):
            return self._artifact(path.removeprefix(f"{self.base}/artifact-files/").split("/"), headers)
        if not path.startswith(f"{self.base}/api/v1/"):
            return Answer(200, b"<!doctype html><title>Argo</title>", {"Content-Type": "text/html"})  # its page
        if path == f"{self.base}/api/v1/version":
            if self.tokens:
                self._authenticate(headers)
            return Answer(200, {"version": "v4.1.2", "platform": "linux/amd64", "gitTreeState": "clean"})
        kind, namespace, *rest = [unquote(part) for part in path.removeprefix(f"{self.base}/api/v1/").split("/")]
        self._authorise(headers, namespace)
        given = json.loads(body) if body else {}
        match method, kind, rest:
            case "POST", "workflows", []:
                if given.get("namespace") != namespace or "workflow" not in given:
                    raise Refused(400, "namespace and workflow are needed")
                return Answer(200, self._kube("POST", "workflows", namespace, body=given["workflow"]))
            case "GET", "workflows", [name]:
                return Answer(200, self._workflow(namespace, name))
            case "GET", "workflow-templates", [name]:
                return Answer(200, self._kube("GET", "workflowtemplates", namespace, name))
            case "GET", "workflow-events", []:
                return Answer(200, self._events(namespace, params))
            case "GET", "workflows", [name, "log"]:
                self._workflow(namespace, name)
                return Answer(200, self._logs(namespace, name, params))
            case "PUT", "workflows", [name, verb]:
                return Answer(200, self._changed(namespace, name, verb, given))
        raise Refused(404, "Not Found")

    def _artifact(self, parts: list[str], headers: dict[str, str]) -> Answer:
        """NAMESPACE/workflows/NAME/NODE/outputs/ARTIFACT; what is refused here is told in plain text."""
        namespace, kind, name, node, way, artifact = [unquote(part) for part in parts]
        self._authorise(headers, namespace)
        self._workflow(namespace, name)
        if (kind, way, artifact) != ("workflows", "outputs", "main-logs") or node not in self.archive:
            return Answer(404, b"artifact not found", {"Content-Type": "text/plain"})
        return Answer(200, self.archive[node].encode(), {"Content-Type": "text/plain"})

    def _authorise(self, headers: dict[str, str], namespace: str) -> None:
        if not self.tokens:
            return
        if namespace not in self.tokens[self._authenticate(headers)]:
            raise Refused(403, f'workflows.argoproj.io is forbidden: User "x" in the namespace "{namespace}"')

    def _authenticate(self, headers: dict[str, str]) -> str:
        token = {key.lower(): value for key, value in headers.items()}.get("authorization", "")
        if not token.startswith("Bearer ") or token.removeprefix("Bearer ") not in self.tokens:
            raise Refused(401, "token not valid. see https://argo-workflows.readthedocs.io/en/latest/faq/")
        return token.removeprefix("Bearer ")

    def _kube(self, method: str, plural: str, namespace: str, name: str = "", body: Any = None) -> Any:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}{f'/{name}' if name else ''}"
        try:
            found = self.cluster.request(method, path, {}, {"content-type": "application/json"}, body)
        except ConnectionLost:
            raise Refused(500, "unexpected EOF") from None
        if found.status >= 400:
            told = found.body if isinstance(found.body, dict) else {}
            raise Refused(found.status, told.get("message", "too many requests"))
        return found.body

    def _workflow(self, namespace: str, name: str) -> Json:
        """As stored, with node statuses unpacked."""
        found: Json = json.loads(json.dumps(self._kube("GET", "workflows", namespace, name)))
        packed = found.get("status", {}).pop("compressedNodes", None)
        if packed:
            found["status"]["nodes"] = nodes.unpacked(packed)
        return found

    def _events(self, namespace: str, params: dict[str, str]) -> Iterator[bytes]:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/workflows"
        watched = {"watch": "true", "fieldSelector": params.get("listOptions.fieldSelector", "")}
        watched |= {"resourceVersion": params.get("listOptions.resourceVersion", ""), "timeoutSeconds": "30"}
        answer = self.cluster.request("GET", path, watched)
        if answer.status >= 400:
            raise Refused(answer.status, "cannot watch")
        return self._results(answer.body)

    def _results(self, events: Iterator[Json]) -> Iterator[bytes]:
        for event in events:
            if event["type"] == "ERROR":
                told = {"grpc_code": 13, "http_code": 500, "message": event["object"]["message"]}
                yield json.dumps({"error": told}).encode() + b"\n"
                return
            if event["type"] != "BOOKMARK":
                packed = event["object"].get("status", {}).get("compressedNodes")
                if packed:
                    status = {**event["object"]["status"], "nodes": nodes.unpacked(packed)}
                    event = {**event, "object": {**event["object"], "status": status}}
                yield json.dumps({"result": event}).encode() + b"\n"

    def _logs(self, namespace: str, name: str, params: dict[str, str]) -> Iterator[bytes]:
        label = f"workflows.argoproj.io/workflow={name}"
        wanted = {key.removeprefix("logOptions."): value for key, value in params.items() if "logOptions." in key}
        wanted.pop("follow", None)
        for pod in self.cluster.objects("pods", namespace, label):
            if params.get("podName") in (None, "", pod["metadata"]["name"]):
                path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log"
                answer = self.cluster.request("GET", path, wanted)
                for line in str(answer.body).splitlines() if answer.status == 200 else ():
                    entry = {"content": line, "podName": pod["metadata"]["name"]}
                    yield json.dumps({"result": entry}).encode() + b"\n"

    def _changed(self, namespace: str, name: str, verb: str, given: Json) -> Json:
        for _ in range(5):
            workflow = self._workflow(namespace, name)
            match verb:
                case "set":
                    self._set(workflow, given)
                case "resume":
                    workflow["spec"].pop("suspend", None)
                    for node in workflow.get("status", {}).get("nodes", {}).values():
                        if (node["type"], node["phase"]) == ("Suspend", "Running"):
                            node |= {"phase": "Succeeded", "finishedAt": self.cluster.clock.stamp()}
                case "stop" | "terminate":
                    if workflow.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error"):
                        raise Refused(400, f'cannot shutdown a completed workflow: workflow: "{name}"')
                    workflow["spec"]["shutdown"] = verb.capitalize()
                case _:
                    raise Refused(404, "Not Found")
            if "compressedNodes" in self.cluster.get("workflows", name, namespace).get("status", {}):
                workflow["status"]["compressedNodes"] = nodes.packed(workflow["status"].pop("nodes"))
            try:
                return self._kube("PUT", "workflows", namespace, name, workflow)  # type: ignore[no-any-return]
            except Refused as refused:
                if refused.status != 409:
                    raise
        raise Refused(500, "timed out waiting for the condition")

    def _set(self, workflow: Json, given: Json) -> None:
        """As `updateSuspendedNode` does it: only what waits, only what is asked for."""
        key, _, value = given.get("nodeFieldSelector", "").partition("=")
        hit = False
        for node in workflow.get("status", {}).get("nodes", {}).values():
            if (node["type"], node["phase"]) != ("Suspend", "Running") or node.get(key) != value:
                continue
            hit = True
            for name, each in json.loads(given.get("outputParameters") or "{}").items():
                asked = node.get("outputs", {}).get("parameters", ())
                found = next((p for p in asked if p["name"] == name), None)
                if found is None:
                    raise Refused(500, f"node is not expecting output parameter '{name}'")
                if "supplied" not in (found.get("valueFrom") or {}):
                    why = "because it does not use valueFrom.raw or it was already set"
                    raise Refused(500, f"cannot set output parameter '{name}' {why}")
                found["value"] = each
                del found["valueFrom"]
            node |= {"phase": given["phase"], "finishedAt": self.cluster.clock.stamp()}
            if given.get("message"):
                node["message"] = given["message"]
        if not hit:
            text = "currently, set only targets suspend nodes: no suspend nodes matching nodeFieldSelector: "
            raise Refused(500, text + given.get("nodeFieldSelector", ""))


def _refusal(refused: Refused) -> Answer:
    return Answer(refused.status, {"code": _CODES.get(refused.status, 13), "message": refused.message})


def encoded(answer: Answer) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()


def transport(server: ArgoServer) -> Any:
    """An httpx transport that asks the server in this process."""
    import httpx

    class Transport(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            target = request.url.raw_path.decode()
            try:
                answer = server.request(request.method, target, dict(request.headers), request.read())
            except ConnectionLost as error:
                raise httpx.RemoteProtocolError("Server disconnected", request=request) from error
            if isinstance(answer.body, Iterator):
                return httpx.Response(200, stream=_Stream(answer.body))
            return httpx.Response(answer.status, headers=answer.headers, content=encoded(answer))

    class _Stream(httpx.SyncByteStream):
        def __init__(self, events: Iterator[bytes]) -> None:
            self.events = events

        def __iter__(self) -> Iterator[bytes]:
            try:
                yield from self.events
            except ConnectionLost as error:
                raise httpx.RemoteProtocolError("peer closed connection") from error

    return Transport()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    argo: ArgoServer

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            answer = self.argo.request(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
            if isinstance(answer.body, Iterator):
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for each in answer.body:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(each), each))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
                return
            content = encoded(answer)
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except (ConnectionLost, ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Threads(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone


@contextmanager
def served(server: ArgoServer) -> Iterator[str]:
    """Its address, HOST:PORT, as long as the block runs. Time must pass in the cluster: see kubernetes.http.served."""
    listening = _Threads(("127.0.0.1", 0), type("Handler", (_Handler,), {"argo": server}))
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"127.0.0.1:{listening.server_address[1]}"
    finally:
        listening.shutdown()
        listening.server_close()
