"""The Kubernetes API server over HTTP: JSON in and out, its errors as ours.

lightkube brings kubeconfigs, credentials and TLS. Its typed objects are not used: they drop on reading what they do
not know, and have no proxy subresource.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx2
from lightkube import KubeConfig
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError

from ekiben.errors import ConflictError, EkibenError, NotFoundError, UnavailableError, UsageError

Json = dict[str, Any]
APPLIER = "ekiben"
"""Field manager of every apply."""
SWITCH = "ekiben-switch"
"""Field manager of what only fenced patches write: selector, epoch, claims, fences, sizes."""
TRIES = 4  # of what may be repeated
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"
_STRICT = {"fieldValidation": "Strict"}  # by default an unknown field is dropped with a warning that nobody sees


class NoAnswerError(UnavailableError):
    """A request may or may not have been carried out: only reading again tells."""


class AbsentError(NotFoundError):
    """The object is not there."""


def path(api_version: str, plural: str, namespace: str, name: str = "", sub: str = "") -> str:
    root = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
    parts = [root, "namespaces", namespace, plural, name, sub]
    return "/" + "/".join(part if part in (root, sub) else quote(part, safe=":") for part in parts if part)


def configured(context: str) -> SingleConfig:
    """The kubeconfig's context of that name; '' for the current one. In a pod without KUBECONFIG it is the pod's own
    account, whatever contexts are called elsewhere. UsageError if there is none."""
    try:
        named = os.environ.get("KUBECONFIG")
        config = KubeConfig.from_file(named) if named else KubeConfig.from_env()
    except (ConfigError, OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"no kubeconfig: {error}",
            wanted="a kubeconfig that names the cluster",
            next_step="set KUBECONFIG, or put it into ~/.kube/config",
        ) from None
    try:
        found = config.get((context if config.fname else "") or None)
    except (ConfigError, KeyError):
        found = None
    if found is None:
        raise UsageError(
            f"the kubeconfig has no context {context!r}" if context else "the kubeconfig has no current context",
            wanted=f"one of {', '.join(sorted(config.contexts)) or 'none is there'}",
            next_step="correct `context` in the environment's table in pyproject.toml, or KUBECONFIG",
        )
    return found


class Api:
    """Requests to one API server. `transport` and `sleep` are for tests."""

    def __init__(
        self,
        config: SingleConfig,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server = config.cluster.server
        self._sleep = sleep
        try:
            self._client = Client(config, ConnectionParams(timeout=httpx2.Timeout(10), transport=transport))
        except (ConfigError, OSError, AssertionError) as error:
            raise UsageError(
                f"the kubeconfig's context cannot be used: {error}", wanted="a user who can log in"
            ) from None

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Json:
        """AbsentError if it is not there."""
        return self._json("GET", path, params)

    def find(self, path: str) -> Json | None:
        """The object, or None."""
        try:
            return self.get(path)
        except AbsentError:
            return None

    def create(self, path: str, thing: Json, manager: str = SWITCH, strict: bool = False) -> Json:
        """ConflictError if it is there; `strict`: UsageError for a field that the server does not know."""
        params = {"fieldManager": manager, **(_STRICT if strict else {})}
        return self._json("POST", path, params, thing, "application/json")

    def patch(self, path: str, operations: list[Json], manager: str = SWITCH) -> Json:
        """A JSON patch. ConflictError when one of its tests fails; NoAnswerError when nobody knows."""
        return self._json("PATCH", path, {"fieldManager": manager}, operations, _JSON_PATCH)

    def apply(self, path: str, thing: Json, force: bool = True, *, dry_run: bool = False, strict: bool = False) -> Json:
        """Server-side apply. Without `force`, ConflictError where somebody else owns a field; `strict`: UsageError for
        a field that the server does not know. A dry run changes nothing, and returns what would be there."""
        params = {"fieldManager": APPLIER, **({"force": "true"} if force else {})}
        params |= {**({"dryRun": "All"} if dry_run else {}), **(_STRICT if strict else {})}
        return self._json("PATCH", path, params, thing, _APPLY)

    def text(self, path: str, params: Mapping[str, str] | None = None) -> str:
        return self._sent("GET", path, params).text

    def proxied(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """GET, or POST of a JSON body, through a `proxy` subresource: the status and the body of what answered.
        The API server's own refusals raise; 503 is nobody there, and comes back as it is."""
        content = None if body is None else "application/json"
        try:
            answer = self._once("GET" if body is None else "POST", path, None, body, content)
        except NoAnswerError as error:
            return 0, str(error).encode()
        if answer.status_code in (401, 403) and _status(answer):
            raise self._error(answer)
        return answer.status_code, answer.content

    def watch(self, path: str, name: str, version: str, seconds: int) -> Iterator[Json]:
        """Each state of one object after `version`, for at most so long. It may end early: what breaks off just
        ends."""
        params = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        try:
            timeout = httpx2.Timeout(10, read=seconds + 10)
            with self._client.stream("GET", path, params=params, timeout=timeout) as answer:
                if answer.status_code != 200:
                    self._sleep(1)  # the caller looks again; not at once
                    return
                for line in answer.iter_lines():
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]
                    elif event["type"] != "BOOKMARK":
                        return
        except (httpx2.HTTPError, ValueError):
            self._sleep(1)

    def _json(
        self, method: str, path: str, params: Mapping[str, str] | None, body: Any = None, content: str | None = None
    ) -> Json:
        try:
            found: Json = self._sent(method, path, params, body, content).json()
        except ValueError:
            raise UnavailableError(
                f"{self.server} does not answer as an API server does",
                wanted="JSON",
                next_step="look at the server's address in the kubeconfig, and at proxies between",
            ) from None
        return found

    def _sent(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content: str | None = None,
    ) -> httpx2.Response:
        """The answer, if it is a good one. What reads or applies is tried again; other writes only where they were
        surely not carried out."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        repeatable = method == "GET" or (content == _APPLY and "force" in (params or {}))  # twice is as good as once
        for attempt in range(TRIES):
            last = attempt + 1 == TRIES
            try:
                answer = self._once(method, path, params, data, content)
            except NoAnswerError:
                if last or not repeatable:
                    raise
                self._sleep(0.2 * 2**attempt)
                continue
            if answer.is_success:
                return answer
            # Flow control answers 429 before anything is done.
            again = answer.status_code == 429 or (repeatable and answer.status_code >= 500)
            if last or not again:
                raise self._error(answer)
            self._sleep(_retry_after(answer) or 0.2 * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def _once(
        self, method: str, path: str, params: Mapping[str, str] | None, data: bytes | None, content: str | None
    ) -> httpx2.Response:
        try:
            return self._client.request(
                method, path, params=params, content=data, headers={"Content-Type": content} if content else None
            )
        except httpx2.ConnectError as error:
            raise UnavailableError(
                f"{self.server} cannot be reached: {error}",
                wanted="the cluster's API server",
                next_step="is it the right context? `kubectl config get-contexts`; and is it up?",
            ) from None
        except ConfigError as error:
            raise UsageError(
                f"no credentials: {error}", wanted="a user of the cluster", next_step="log in again"
            ) from None
        except httpx2.HTTPError as error:
            raise NoAnswerError(
                f"{self.server} did not answer {_VERBS[method]} {path}: {error}",
                wanted="an answer",
                next_step="look at `ekiben status`, then run the command again",
            ) from None

    def _error(self, answer: httpx2.Response) -> EkibenError:
        status = _status(answer)
        said = str(status.get("message") or answer.text[:200].strip() or answer.reason_phrase)
        code, details = answer.status_code, status.get("details") or {}
        match code:
            case 401:
                return UsageError(
                    f"{self.server} does not accept the credentials: {said}",
                    wanted="a user whom the cluster knows",
                    next_step="log in again, or correct the user of this context in the kubeconfig",
                )
            case 403 if "exceeded quota" in said:
                return UnavailableError(f"no room: {said}", next_step="raise the ResourceQuota, or ask for less")
            case 403:
                return _forbidden(answer.request, said)
            case 404 if details.get("kind") == "namespaces":
                return NotFoundError(
                    f"no namespace {details.get('name')} in {self.server}",
                    wanted="the environment's namespace",
                    next_step="create it, or correct `namespace` (or `context`) in pyproject.toml",
                )
            case 404:
                return AbsentError(said, next_step="is it the right context and namespace? `ekiben render` shows all")
            case 409:
                return ConflictError(said, next_step="run the command again")
            case 422 if not details.get("causes"):  # a `test` of the patch failed; the API server does not say which
                return ConflictError(
                    f"{answer.request.url.path.rpartition('/')[2]} has been changed by somebody else meanwhile",
                    wanted="what was planned for",
                    next_step="look at `ekiben status`, then run the command again",
                )
            case 400 | 415 | 422:
                return UsageError(f"the API server refuses it: {said}", next_step="correct the environment's settings")
            case 429:
                return UnavailableError(f"{self.server} is overloaded: {said}", next_step="try again later")
        return NoAnswerError(f"{self.server} answers {code}: {said}", next_step="try again later")


def _status(answer: httpx2.Response) -> Json:
    """The Status object that the API server answered with; empty if it is none."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def _retry_after(answer: httpx2.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 30.0) if text.isdigit() else 0.0


def _forbidden(request: httpx2.Request, said: str) -> EkibenError:
    """Says which verb on which resource is not allowed, with the rule that would allow it."""
    parts = request.url.path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    rest = parts[3 if group else 2 :] or parts
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:3]])
    names = f", resourceNames: [{rest[1]}]" if len(rest) > 1 and request.method != "POST" else ""
    verb = _VERBS[request.method]
    if request.method == "GET" and len(rest) == 1:
        verb = "watch" if "watch" in request.url.params else "list"
    return UsageError(
        f"not allowed to {verb} {resource}{f'.{group}' if group else ''}: {said}",
        wanted=f"a Role with this rule: {{apiGroups: ['{group}'], resources: [{resource}], verbs: [{verb}]{names}}}",
        next_step="have an administrator add this rule to a Role of yours"
        if group == "argoproj.io"
        else "have an administrator bind the Role that `ekiben render SERVICE --env ENV` prints to you",
    )
