"""Argo by way of the Argo Server's HTTP API: where ARGO_SERVER names one, as for Argo's own command.

ARGO_SERVER (host:port, or an address), ARGO_TOKEN, ARGO_NAMESPACE, ARGO_BASE_HREF, ARGO_SECURE (true),
ARGO_INSECURE_SKIP_VERIFY (false).
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ekiben.errors import ConflictError, EkibenError, NotFoundError, UnavailableError, UsageError
from ekiben.pipeline.argo import status as statuses
from ekiben.pipeline.argo import suspension
from ekiben.pipeline.argo.client import Shutdown
from ekiben.pipeline.argo.documents import SUBMISSION
from ekiben.pipeline.argo.status import Status, Step

Json = dict[str, Any]
TRIES = 4
TIME_OUT_S = 10.0
_NO = ("false", "0", "no", "off")
_PERMISSION_DENIED = 7  # gRPC's code, which an answer of status 200 may end with


class Server:
    """Argo in one namespace, through an Argo Server. `transport` and `sleep` are for tests."""

    def __init__(
        self,
        url: str,
        namespace: str,
        token: str = "",
        verify: bool = True,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.namespace, self._sleep = url.rstrip("/"), namespace, sleep
        self.where = f"the Argo Server {self.url}, namespace {namespace}"
        scheme = "" if " " in token else "Bearer "
        headers = {"Authorization": f"{scheme}{token}"} if token else {}
        self._client = httpx.Client(headers=headers, timeout=TIME_OUT_S, verify=verify, transport=transport)

    @classmethod
    def configured(cls, namespace: str = "", given: Mapping[str, str] = os.environ) -> "Server":
        """As the ARGO_* variables say. UsageError for what is no address."""
        name = given["ARGO_SERVER"]
        scheme = "http" if given.get("ARGO_SECURE", "true").lower() in _NO else "https"
        address = urlsplit(name if "://" in name else f"{scheme}://{name}")
        if address.scheme not in ("http", "https") or not address.hostname or address.username or address.query:
            raise UsageError("ARGO_SERVER is no address", wanted="HOST:PORT or http(s)://HOST:PORT[/BASE]")
        base = "/".join(part.strip("/") for part in (address.path, given.get("ARGO_BASE_HREF", "")) if part.strip("/"))
        verify = given.get("ARGO_INSECURE_SKIP_VERIFY", "false").lower() in ("", *_NO)
        where = namespace or given.get("ARGO_NAMESPACE") or "default"
        return cls(f"{address.scheme}://{address.netloc}/{base}", where, given.get("ARGO_TOKEN", ""), verify)

    def create(self, workflow: Json) -> Json:
        name, ours = workflow["metadata"]["name"], workflow["metadata"]["labels"][SUBMISSION]
        body = {"namespace": self.namespace, "workflow": workflow}
        for attempt in range(TRIES):
            try:
                return self._json("POST", self._path("workflows"), body)
            except ConflictError:
                found = self.get(name)
                if (found["metadata"].get("labels") or {}).get(SUBMISSION) == ours:
                    return found
                raise
            except UnavailableError:
                # Nobody knows whether it was created: with its own name, a second one is refused.
                self._sleep(0.3 * 2**attempt)
                if attempt + 1 == TRIES:
                    raise
        raise AssertionError("the last try returns or raises")

    def get(self, name: str) -> Json:
        return self._json("GET", self._path("workflows", name))

    def version(self) -> str:
        """The server's own, such as v4.1.2."""
        return str(self._json("GET", f"{self.url}/api/v1/version").get("version", ""))

    def template(self, name: str) -> Json:
        try:
            return self._json("GET", self._path("workflow-templates", name))
        except NotFoundError as error:
            raise NotFoundError(error.seen, next_step=f"ekiben workflow apply {name}") from None

    def watch(self, status: Status, seconds: int) -> Iterator[Json]:
        params = {
            "listOptions.fieldSelector": f"metadata.name={status.name}",
            "listOptions.resourceVersion": status.version,
        }
        until = time.monotonic() + seconds
        try:
            for event in self._stream(self._path("workflow-events"), params, seconds):
                if event.get("type") not in ("ADDED", "MODIFIED") or time.monotonic() > until:
                    return
                found = event.get("object") or {}
                if (found.get("metadata") or {}).get("name") == status.name:
                    yield found
        except EkibenError:  # who may read but not watch looks again and again
            self._sleep(1)

    def reasons(self, name: str) -> Mapping[str, str]:
        return {}  # pods are not to be had through this server; nodes say most of it themselves

    def log(self, status: Status, step: Step, tail: int | None, since: str) -> list[tuple[str, str]]:
        lines: list[tuple[str, str]] = []
        for node in step.attempts:
            params = {
                "podName": statuses.pod_name(status, step, node),
                "logOptions.container": "main",
                "logOptions.timestamps": "true",
                **({} if tail is None else {"logOptions.tailLines": str(tail)}),
            }
            for entry in self._stream(self._path("workflows", status.name, "log"), params, TIME_OUT_S, told=True):
                stamp, _, line = str(entry.get("content", "")).partition(" ")
                lines.append((stamp, line))
        if lines or not (step.finished and step.attempts and status.pod_gc):
            return lines
        if step.archived:
            return self._archived(status.name, step.attempts[-1], tail)
        raise status.without_log(step)  # or it wrote nothing: the server tells the one from the other as little

    def _archived(self, name: str, node: str, tail: int | None) -> list[tuple[str, str]]:
        """What Argo has kept of the step's log; it has no time stamps."""
        parts = (self.namespace, "workflows", name, node, "outputs", statuses.LOG)
        text = self._answered(
            "GET", f"{self.url}/artifact-files/" + "/".join(quote(part, safe="") for part in parts)
        ).text
        lines = text.splitlines()
        return [("", line) for line in (lines if tail is None else lines[len(lines) - min(tail, len(lines)) :])]

    def resume_step(self, name: str, step: Step, outputs: Mapping[str, str], message: str) -> None:
        for _ in range(TRIES):
            node = next((each for each in statuses.nodes(self.get(name)).values() if each["id"] == step.id), None)
            if node is None or not suspension.waits(node):
                if node and suspension.done(node, outputs, message):
                    return  # by an earlier try, whose answer was lost
                raise ConflictError(
                    f"{step.name} of {name} waits no longer: {(node or {}).get('message') or 'it was resumed'}",
                    next_step=f"ekiben workflow watch {name}",
                )
            values = suspension.supplied(node, outputs)
            try:
                self._act(name, "set", {
                    "nodeFieldSelector": f"id={step.id}", "phase": "Succeeded", "message": message,
                    **({"outputParameters": json.dumps(values)} if values else {}),
                })  # fmt: skip
                return
            except (ConflictError, UnavailableError):
                self._sleep(0.3)  # somebody wrote meanwhile, or the answer was lost: look again
        raise ConflictError(f"{name} cannot be resumed at {step.name}", next_step="run the command again")

    def unsuspend(self, name: str) -> None:
        self._repeated(name, "resume")

    def shut_down(self, name: str, how: Shutdown) -> None:
        self._repeated(name, how.lower())

    def annotate(self, name: str, key: str, value: str, instead_of: str | None) -> bool:
        return False  # this server writes no annotations

    def _repeated(self, name: str, verb: str) -> None:
        """What may be done twice, so it is tried again without an answer."""
        for attempt in range(TRIES):
            try:
                self._act(name, verb, {})
                return
            except (ConflictError, UnavailableError):
                if attempt + 1 == TRIES:
                    raise
                self._sleep(0.3 * 2**attempt)

    def _act(self, name: str, verb: str, more: Json) -> None:
        self._json("PUT", self._path("workflows", name, verb), {"name": name, "namespace": self.namespace, **more})

    def _path(self, kind: str, name: str = "", verb: str = "") -> str:
        parts = [kind, self.namespace, *(part for part in (name, verb) if part)]
        return f"{self.url}/api/v1/" + "/".join(quote(part, safe="") for part in parts)

    def _json(self, method: str, url: str, body: Json | None = None) -> Json:
        return self._parsed(self._answered(method, url, body))

    def _answered(self, method: str, url: str, body: Json | None = None) -> httpx.Response:
        """A good answer. Reading is tried again; other requests where they were surely not carried out."""
        for attempt in range(TRIES):
            last = attempt + 1 == TRIES
            try:
                answer = self._client.request(method, url, json=body)
            except httpx.HTTPError as error:
                if last or (method != "GET" and not isinstance(error, httpx.ConnectError)):
                    raise self._unreachable(error) from None
                self._sleep(0.2 * 2**attempt)
                continue
            if answer.is_success:
                return answer
            again = answer.status_code == 429 or (method == "GET" and answer.status_code >= 500)
            if last or not again:
                raise self._error(answer)
            self._sleep(_retry_after(answer) or 0.2 * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def _parsed(self, answer: httpx.Response) -> Json:
        try:
            found = answer.json()
            if not isinstance(found, dict):
                raise ValueError("no object")
        except ValueError:
            raise UnavailableError(
                f"{self.url} does not answer as an Argo Server does",
                wanted="JSON",
                next_step="look at ARGO_SERVER and ARGO_BASE_HREF, and at proxies between",
            ) from None
        return found

    def _stream(self, url: str, params: Mapping[str, str], seconds: float, told: bool = False) -> Iterator[Json]:
        """The results of a streamed answer. What breaks off just ends; a refusal raises, and with `told` one that comes
        after the stream has begun."""
        timeout = httpx.Timeout(TIME_OUT_S, read=seconds + TIME_OUT_S)
        try:
            with self._client.stream("GET", url, params=dict(params), timeout=timeout) as answer:
                if answer.status_code in (429, *range(500, 600)):
                    self._sleep(1)  # the caller looks again; not at once
                    return
                if not answer.is_success:
                    answer.read()
                    raise self._error(answer)
                for line in answer.iter_lines():
                    event = json.loads(line.removeprefix("data:").strip() or "{}") if line[:1] in "{d" else {}
                    if error := event.get("error"):
                        if told and _PERMISSION_DENIED in (error.get("code"), error.get("grpc_code")):
                            raise self._refused(str(error.get("message")))
                        return
                    if event.get("result"):
                        yield event["result"]
        except (httpx.HTTPError, ValueError):
            self._sleep(1)

    def _unreachable(self, error: httpx.HTTPError) -> UnavailableError:
        return UnavailableError(
            f"{self.url} does not answer: {error or type(error).__name__}",
            wanted="the Argo Server that ARGO_SERVER names",
            next_step="is it up, and is ARGO_SECURE right? Without ARGO_SERVER, Kubernetes' API is used",
        )

    def _refused(self, said: str) -> UsageError:
        return UsageError(
            f"not allowed: {said}",
            wanted=f"a Role in {self.namespace} that allows it",
            next_step="have an administrator bind one to the account whose token ARGO_TOKEN is",
        )

    def _error(self, answer: httpx.Response) -> EkibenError:
        said = _said(answer)
        match answer.status_code:
            case 401:
                return UsageError(
                    f"{self.url} does not accept the token: {said}",
                    wanted="ARGO_TOKEN: 'Bearer …' of an account that Argo knows",
                    next_step="make a new one: kubectl create token ACCOUNT",
                )
            case 403:
                return self._refused(said)
            case 404:
                return NotFoundError(f"{said} in {self.where}", next_step="is it the right namespace?")
            case 409:
                return ConflictError(said, next_step="run the command again")
            case 400:
                return UsageError(f"Argo refuses it: {said}", next_step="ekiben workflow lint")
        return UnavailableError(f"{self.url} answers {answer.status_code}: {said}", next_step="try again later")


def _said(answer: httpx.Response) -> str:
    """What an error says; an Argo Server's has a `message`, a proxy's need not."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    said = found.get("message") if isinstance(found, dict) else None
    return str(said or answer.text[:200].strip() or answer.reason_phrase)


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 30.0) if text.isdigit() else 0.0
