"""The Kubernetes API server over HTTP: JSON in and out, its errors as ours.

lightkube brings TLS and credentials; what it does not know of them, kubeconfig.py and plugin.py do. Its typed objects
are not used: they drop on reading what they do not know, and have no proxy subresource.
"""

import json
import math
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import httpx2
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError

from ekiben.errors import ConflictError, EkibenError, NotFoundError, UnavailableError, UsageError
from ekiben.platforms.kubernetes.kubeconfig import Access
from ekiben.platforms.kubernetes.plugin import Plugin

Json = dict[str, Any]
APPLIER = "ekiben"
"""Field manager of every apply."""
SWITCH = "ekiben-switch"
"""Field manager of what only fenced patches write: selector, epoch, claims, fences, sizes."""
TIMEOUT_SECONDS = 10.0
WRITE_SECONDS = 30.0
"""A write waits for the cluster's admission webhooks, which may take so long one by one."""
FIRST_SECONDS = 1.5
"""How long is tried on with a server that has not answered yet: most likely it is the wrong one."""
OUTAGE_SECONDS = 60.0
"""… and with one that has: it restarts, or is too busy. Half as long as a claim lasts."""
ERROR_SECONDS = 10.0
"""… that answers 500: its database elects a leader, or it does not know how to go on."""
QUIET_SECONDS = 2.0
"""After which a person is told what is waited for."""
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"
_STRICT = {"fieldValidation": "Strict"}  # by default an unknown field is dropped with a warning that nobody sees

_NO_OBJECT = re.compile("failed to (create typed patch object|convert new object)")
_TEST_FAILED = "the server rejected our request due to an error in our request"
# What RBAC says; other refusals with 403 are admission's: quotas, policies, webhooks.
_RBAC = re.compile(r'cannot (\S+) resource "([^"]+)" in API group "([^"]*)"')


class NoAnswerError(UnavailableError):
    """A request may or may not have been carried out: only reading again tells."""


class AwayError(UnavailableError):
    """No connection came about, so that the request was surely not carried out."""


class AbsentError(NotFoundError):
    """The object is not there."""


def path(api_version: str, plural: str, namespace: str, name: str = "", sub: str = "") -> str:
    root = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
    parts = [root, "namespaces", namespace, plural, name, sub]
    return "/" + "/".join(part if part in (root, sub) else quote(part, safe=":") for part in parts if part)


class Api:
    """Requests to one API server. `say` is told when one that has answered before is waited for; `transport` and
    `sleep` are for tests."""

    def __init__(
        self,
        config: SingleConfig,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.server = config.cluster.server
        self._sleep, self._say = sleep, say
        self._answered = False  # once it has answered well, it is the right server, and will be back
        try:
            self._client = _client(config, transport)
        except (ConfigError, OSError, ValueError, AssertionError, httpx2.InvalidURL, ImportError) as error:
            raise UsageError(
                f"the kubeconfig's context cannot be used: {error}",
                wanted="a server that can be reached, and a user who can log in",
                next_step="`kubectl config view --minify` shows it; for a SOCKS proxy, `pip install socksio`",
            ) from None

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Json:
        """AbsentError if it is not there."""
        return self._json("GET", path, params, repeatable=True)

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

    def patch(self, path: str, operations: list[Json], manager: str = SWITCH, *, repeatable: bool = False) -> Json:
        """A JSON patch. ConflictError when one of its tests fails; NoAnswerError when nobody knows. `repeatable`: made
        twice it is as good as once, so that it is made again where nobody knows."""
        return self._json("PATCH", path, {"fieldManager": manager}, operations, _JSON_PATCH, repeatable)

    def apply(self, path: str, thing: Json, force: bool = True, *, dry_run: bool = False, strict: bool = False) -> Json:
        """Server-side apply. Without `force`, ConflictError where somebody else owns a field; `strict`: UsageError for
        a field that the server does not know. A dry run changes nothing, and returns what would be there."""
        params = {"fieldManager": APPLIER, **({"force": "true"} if force else {})}
        params |= {**({"dryRun": "All"} if dry_run else {}), **(_STRICT if strict else {})}
        return self._json("PATCH", path, params, thing, _APPLY, repeatable=force)

    def text(self, path: str, params: Mapping[str, str] | None = None, seconds: float = math.inf) -> str:
        """`seconds`: after which no further try begins, and none waits on for a word."""
        return self._sent("GET", path, params, repeatable=True, seconds=seconds).text

    def proxied(self, path: str, body: bytes | None = None, seconds: float = TIMEOUT_SECONDS) -> tuple[int, bytes]:
        """GET, or POST of a JSON body, through a `proxy` subresource: the status and the body of what answered.
        The API server's own refusals raise; 503 is nobody there, and comes back as it is."""
        content = None if body is None else "application/json"
        try:
            answer = self._once("GET" if body is None else "POST", path, None, body, content, seconds)
        except (NoAnswerError, AwayError) as error:
            return 0, str(error).encode()
        if answer.status_code in (401, 403) and _status(answer):
            raise self._error(answer)
        if answer.status_code == 404 and (_status(answer).get("details") or {}).get("kind") == "endpoints":
            return 503, answer.content  # the Service is so new that nobody has written its endpoints yet
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
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Any = None,
        content: str | None = None,
        repeatable: bool = False,
    ) -> Json:
        try:
            found: Json = self._sent(method, path, params, body, content, repeatable).json()
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
        repeatable: bool = False,
        seconds: float = math.inf,
    ) -> httpx2.Response:
        """The answer, if it is a good one. What is repeatable is tried again; else only what was surely not carried
        out."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        longest, pause, spent, begun = WRITE_SECONDS if data else TIMEOUT_SECONDS, 0.2, 0.0, time.monotonic()
        silent = True
        while True:
            left = seconds - (time.monotonic() - begun)
            patience, tried, advised = OUTAGE_SECONDS if self._answered else FIRST_SECONDS, time.monotonic(), 0.0
            problem: EkibenError
            try:
                answer = self._once(method, path, params, data, content, min(max(0.05, left), longest))
            except AwayError as error:
                problem, again = error, self._answered
            except NoAnswerError as error:
                problem, again = error, repeatable
            else:
                self._answered |= answer.status_code < 500 and answer.status_code != 429
                if answer.is_success:
                    return answer
                problem, advised = self._error(answer), _retry_after(answer)
                # Flow control answers 429 before anything is done.
                again = answer.status_code == 429 or (repeatable and isinstance(problem, NoAnswerError))
                patience = min(patience, ERROR_SECONDS) if answer.status_code == 500 else patience
            wait, pause = advised or pause, min(2 * pause, 5.0)
            spent += time.monotonic() - tried + wait
            if not again or spent > patience or time.monotonic() - begun >= seconds:
                raise problem
            if silent and spent > QUIET_SECONDS:
                silent = False
                self._say(f"{problem.seen}; trying again, for {patience:.0f} s at most")
            self._sleep(wait)

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        content: str | None,
        seconds: float = TIMEOUT_SECONDS,
    ) -> httpx2.Response:
        headers = {"Content-Type": content} if content else None
        try:
            return self._client.request(
                method, path, params=params, content=data, headers=headers, timeout=httpx2.Timeout(seconds)
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if _is_tls(error) and not self._answered:
                raise UnavailableError(
                    f"no TLS with {self.server}: {error}",
                    wanted="a server whose certificate the kubeconfig's authority has signed",
                    next_step="correct `server` or `certificate-authority-data` of this cluster in the kubeconfig",
                ) from None
            raise AwayError(
                f"{self.server} cannot be reached: {str(error) or type(error).__name__}",
                wanted="the cluster's API server",
                next_step="is it the right context? `kubectl config get-contexts`; and is it up?",
            ) from None
        except (ConfigError, OSError, ValueError, KeyError) as error:  # the kubeconfig's credential plugin
            raise UsageError(
                f"no credentials: {error}", wanted="a user of the cluster", next_step="log in again"
            ) from None
        except httpx2.HTTPError as error:
            raise NoAnswerError(
                f"{self.server} did not answer {_VERBS[method]} {path}: {str(error) or type(error).__name__}",
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
            case 403 if "because it is being terminated" in said:
                return NotFoundError(
                    f"the namespace is being deleted: {said}",
                    wanted="the environment's namespace",
                    next_step="wait until it has gone and create it anew, or correct `namespace` in pyproject.toml",
                )
            case 403 if rbac := _RBAC.search(said):
                return _forbidden(answer.request, said, *rbac.groups())
            case 403:
                return UsageError(
                    f"the API server refuses it: {said}",
                    next_step="a policy of the cluster forbids it: change the settings, or ask its administrator",
                )
            case 404 if details.get("kind") == "namespaces":
                return NotFoundError(
                    f"no namespace {details.get('name')} in {self.server}",
                    wanted="the environment's namespace",
                    next_step="create it, or correct `namespace` (or `context`) in pyproject.toml",
                )
            case 404 if not status and answer.request.url.path.startswith("/apis/"):
                group = answer.request.url.path.split("/")[2]
                return AbsentError(
                    f"{self.server} knows nothing of {group}: {said}",
                    wanted=f"a cluster with the custom resource definitions of {group}",
                    next_step="install what brings them, or correct the environment's table in pyproject.toml",
                )
            case 404:
                return AbsentError(said, next_step="is it the right context and namespace? `ekiben render` shows all")
            case 409:
                return ConflictError(said, next_step="run the command again")
            case 422 if said == _TEST_FAILED and not details.get("causes"):  # the API server does not say which test
                return ConflictError(
                    f"{answer.request.url.path.rpartition('/')[2]} has been changed by somebody else meanwhile",
                    wanted="what was planned for",
                    next_step="look at `ekiben status`, then run the command again",
                )
            case 400 | 415 | 422:
                return UsageError(f"the API server refuses it: {said}", next_step="correct the environment's settings")
            case 500 if _NO_OBJECT.match(said):  # that is how an apply is told of a field that there is not
                return UsageError(f"the API server refuses it: {said}", next_step="correct the field that it names")
            case 500 if "failed calling webhook" in said:
                next_step = "have an administrator look at this webhook of the cluster: it does not answer"
                return NoAnswerError(f"{self.server} answers 500: {said}", next_step=next_step)
            case 429:
                return UnavailableError(f"{self.server} is overloaded: {said}", next_step="try again later")
        return NoAnswerError(f"{self.server} answers {code}: {said}", next_step="try again later")


def _client(config: SingleConfig, transport: httpx2.BaseTransport | None) -> httpx2.Client:
    """As lightkube makes it, with what it does not know of kubeconfigs."""
    more = config.more if isinstance(config, Access) else {}
    params = ConnectionParams(httpx2.Timeout(TIMEOUT_SECONDS), transport=transport, proxy=more.get("proxy-url") or None)
    made = params.httpx_params(config)
    # From 3.13 on Python refuses authorities without key identifiers, as many clusters have them; kubectl never did.
    made["verify"].verify_flags &= ~ssl.VERIFY_X509_STRICT
    if more.get("exec"):
        plugin = made["auth"] = Plugin(more)
        plugin.certify(made["verify"])
    as_whom = [("Impersonate-User", more["as"])] if more.get("as") else []
    as_whom += [("Impersonate-Group", group) for group in more.get("as-groups") or ()]
    client = httpx2.Client(**made, headers=as_whom)
    if name := more.get("tls-server-name"):
        client.event_hooks = {"request": [lambda request: request.extensions.update(sni_hostname=name)]}
    return client


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


def _is_tls(error: BaseException | None) -> bool:
    while error:
        if isinstance(error, ssl.SSLError) or "SSL" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _forbidden(request: httpx2.Request, said: str, verb: str, resource: str, group: str) -> EkibenError:
    """Says which verb on which resource is not allowed, with the rule that would allow it."""
    place, _, rest = request.url.path.partition("/namespaces/")[2].partition("/")
    name = unquote(rest.partition("/")[2].partition("/")[0])
    if resource == "namespaces":  # RBAC takes it to be within itself
        place, name = "", place
    # Whoever creates has no name yet, and pods' names are not known beforehand.
    nameless = not name or resource.partition("/")[0] == "pods" or (verb == "create" and "/" not in resource)
    names = "" if nameless or verb in ("list", "watch") else f", resourceNames: ['{name}']"
    return UsageError(
        f"not allowed to {verb} {resource}{f'.{group}' if group else ''}{f' in {place}' if place else ''}: {said}",
        wanted=f"a Role with this rule: {{apiGroups: ['{group}'], resources: [{resource}], verbs: [{verb}]{names}}}",
        next_step="have an administrator add this rule to a Role of yours"
        if group == "argoproj.io"
        else "have an administrator bind the Role that `ekiben render SERVICE --env ENV` prints to you",
    )
