"""The API server as an object: `Cluster.request` answers what the real one answers over HTTP.

cluster = Cluster()
answer = cluster.request("GET", "/api/v1/namespaces/default/services")      # in this process, no sockets
with cluster.serve() as url: …                                                # or over HTTP, see http.py
cluster.advance(5)                                                            # controllers work when time passes
"""

import json
import random
import time as wall
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

import yaml

from tests.fakes.kubernetes import access, admission, managers, patches, proxying, selectors
from tests.fakes.kubernetes.access import ADMIN, User
from tests.fakes.kubernetes.clock import Clock
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes.faults import Answer, Call, ConnectionLost, Fault
from tests.fakes.kubernetes.managers import Manager
from tests.fakes.kubernetes.resources import (
    BUILT_IN,
    CUSTOM,
    Resource,
    group_document,
    group_list,
    resource_list,
    version_document,
)
from tests.fakes.kubernetes.statuses import (
    MODIFIED,
    ApiFailure,
    bad_request,
    cause,
    conflict,
    forbidden,
    invalid,
    no_such_path,
    not_found,
)
from tests.fakes.kubernetes.store import Change, Store
from tests.fakes.kubernetes.writes import Writer

Json = dict[str, Any]

_PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_CREATED_BY_PUT = {"services", "leases", "events", "roles", "rolebindings", "clusterroles", "clusterrolebindings"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Cluster:
    """`custom` names the installed custom resources (see resources.CUSTOM). Without `tokens` everybody is an
    administrator; with them a request needs one of theirs, and RBAC is enforced."""

    def __init__(self, custom: Iterable[str] = (), seed: int = 0) -> None:
        self.clock, self.store = Clock(), Store()
        self.writer = Writer(self.store, self.clock, random.Random(seed))
        self.served = [*BUILT_IN, *(CUSTOM[name] for name in custom)]
        self.tokens: dict[str, User] = {}
        self.faults: list[Fault] = []
        self.log: list[Call] = []
        self.driven = False  # whether real time drives the clock; else waiting for a watch's next event does
        self._by_path = {(each.group, each.version, each.plural): each for each in self.served}
        self._by_key = {each.key: each for each in self.served}
        self._snapshots: dict[str, tuple[int, list[Json]]] = {}
        self.controllers = Controllers(self)
        self.kubelet = self.controllers.kubelet
        for name in ("default", "kube-system"):
            self._namespace(name)

    # What a test does with it

    def advance(self, seconds: float) -> None:
        """Lets virtual time pass; the controllers work through it, event by event."""
        with self.store.changed:
            self.controllers.advance(seconds)

    def fail(self, match: str, **effect: Any) -> Fault:
        """Adds a Fault; see there."""
        self.faults.append(Fault(match, **effect))
        return self.faults[-1]

    def resource(self, plural: str) -> Resource:
        return next(each for each in self.served if each.plural == plural)

    def get(self, plural: str, name: str, namespace: str = "default") -> Json:
        """A copy of an object, past log, faults and access. Raises ApiFailure (404)."""
        resource = self.resource(plural)
        found = self.writer.must(resource, namespace if resource.namespaced else "", name)
        copy: Json = patches.copied(found)
        return copy

    def objects(self, plural: str, namespace: str | None = "default", labels: str = "") -> list[Json]:
        """Copies of objects, past log, faults and access."""
        resource = self.resource(plural)
        match = selectors.label_selector(labels)
        found = self.store.ordered(resource.key, namespace if resource.namespaced else None)
        return [patches.copied(each) for each in found if match(each)]

    def create(self, thing: Json, namespace: str = "default") -> Json:
        """Puts an object there as an administrator would, past log and faults. Raises ApiFailure."""
        resource = next(e for e in self.served if (e.api_version, e.kind) == (thing["apiVersion"], thing["kind"]))
        with self.store.changed:
            return self._create(resource, thing, namespace, Manager("setup", "Update", resource.api_version), ADMIN)

    def counts(self) -> dict[str, int]:
        """How many requests of each "verb resource" were made."""
        made: dict[str, int] = {}
        for call in self.log:
            made[f"{call.verb} {call.resource}"] = made.get(f"{call.verb} {call.resource}", 0) + 1
        return made

    # Requests

    def request(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """Answers one request; `body` is JSON as an object, or text or bytes. The answer's body is not to be changed.
        Raises ConnectionLost where a fault says so."""
        params = dict(params or {})
        lower = {key.lower(): value for key, value in (headers or {}).items()}
        call = Call(method, path, params, at=self.clock.seconds)
        resource, rest = self._route(call)
        self.log.append(call)
        met = [fault for fault in self.faults if fault.meets(call)]
        for fault in met:
            if fault.delay:
                self._pause(fault.delay)
            if fault.status:
                answer = fault.answer()
                call.status = answer.status
                return answer
            if fault.reset:
                raise ConnectionLost(committed=False)
        answer = self._answered(call, resource, rest, lower, body)
        call.status = answer.status
        for fault in met:
            if fault.lost:
                call.status = 0
                raise ConnectionLost(committed=True)
            if fault.drop_after is not None and call.verb == "watch":
                answer.body = _dropped(answer.body, fault.drop_after)
            if fault.gone and call.verb == "watch":
                answer.body = iter([_gone(params.get("resourceVersion", "0"), self.store.version)])
        return answer

    def _pause(self, seconds: float) -> None:
        if self.driven:
            wall.sleep(seconds)
        else:
            self.advance(seconds)

    def _answered(self, call: Call, resource: Resource | None, rest: str, headers: Json, body: Any) -> Answer:
        warnings: list[str] = []
        try:
            user = self._user(headers)
            call.user = user.name
            if resource is None:
                return self._document(call.path)
            if self.tokens and resource.plural != "selfsubjectaccessreviews":
                self._authorise(user, call, resource)
            if call.resource.endswith("/proxy"):
                return proxying.proxied(self, call, rest, headers, body)
            if call.verb == "watch":
                return Answer(200, self._watch(resource, call), {"Content-Type": "application/json"})
            with self.store.changed:
                answer = self._serve(resource, call, headers, body, user, warnings)
        except ApiFailure as failure:
            answer = Answer(failure.code, failure.body())
            if failure.details and "retryAfterSeconds" in failure.details:
                answer.headers["Retry-After"] = str(failure.details["retryAfterSeconds"])
        if warnings:
            answer.headers["Warning"] = ", ".join(f"299 - {json.dumps(each)}" for each in warnings)
        return answer

    def _route(self, call: Call) -> tuple[Resource | None, str]:
        """The resource that a path names, with what follows a proxy; fills in the call's verb, names and namespace."""
        parts = [unquote(part) for part in call.path.strip("/").split("/")]
        call.verb = call.method.lower()
        if parts[0] == "api" and len(parts) > 2:
            group, version, parts = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, parts = parts[1], parts[2], parts[3:]
        else:
            return None, ""
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            call.namespace, parts = parts[1], parts[2:]
        resource = self._by_path.get((group, version, parts[0]))
        call.resource = "/".join([parts[0], *parts[2:3]])
        call.name = parts[1] if len(parts) > 1 else ""
        if call.resource == "namespaces":
            call.namespace = call.name
        if call.method == "GET":
            watched = call.params.get("watch", "") in ("1", "true", "True")
            call.verb = "watch" if watched and not parts[2:] else "get" if call.name else "list"
        elif call.method in _VERBS:
            call.verb = _VERBS[call.method] if call.name or call.method == "POST" else "deletecollection"
        known = resource and (len(parts) < 3 or parts[2] in resource.subresources)
        return (resource if known else None), "/".join(parts[3:])

    def _document(self, path: str) -> Answer:
        parts = path.strip("/").split("/")
        found: Any = None
        match parts:
            case ["version"]:
                found = version_document()
            case ["healthz" | "livez" | "readyz"]:
                return Answer(200, "ok", {"Content-Type": "text/plain; charset=utf-8"})
            case ["api"]:
                found = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
            case ["apis"]:
                found = group_list(self.served)
            case ["api", "v1"]:
                found = resource_list("", "v1", self.served)
            case ["apis", group]:
                found = group_document(group, self.served)
            case ["apis", group, version]:
                found = resource_list(group, version, self.served)
        if found is not None:
            return Answer(200, found)
        group, version, *_ = [*parts[1:], "", ""] if parts[0] == "apis" else ["", *parts[1:], ""]
        if parts[0] in ("api", "apis") and resource_list(group, version, self.served):
            raise no_such_path()
        # A group that nobody serves is answered in plain text.
        return Answer(404, "404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})

    def _user(self, headers: Json) -> User:
        if not self.tokens:
            return ADMIN
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise ApiFailure(401, "Unauthorized", "Unauthorized")
        return self.tokens[token]

    def _authorise(self, user: User, call: Call, resource: Resource) -> None:
        if access.allowed(self.store, user, call, resource.group):
            return
        where = f'in the namespace "{call.namespace}"' if call.namespace else "at the cluster scope"
        why = (
            f'User "{user.name}" cannot {call.verb} resource "{call.resource}" in API group "{resource.group}" {where}'
        )
        raise forbidden(resource.group, resource.plural, call.name, why)

    def _serve(
        self, resource: Resource, call: Call, headers: Json, body: Any, user: User, warnings: list[str]
    ) -> Answer:
        params = call.params
        sub = call.resource.partition("/")[2]
        dry_run = params.get("dryRun") == "All"
        if params.get("dryRun", "All") != "All":
            field = cause(
                "NotSupported", "dryRun", f'Unsupported value: ["{params["dryRun"]}"]: supported values: "All"'
            )
            raise invalid("meta.k8s.io", "PatchOptions", "", [field])
        agent = headers.get("user-agent", "unknown").split("/")[0]
        manager = Manager(params.get("fieldManager") or agent, "Update", resource.api_version, sub)
        strict = params.get("fieldValidation") or "Warn"
        namespace = call.namespace if resource.namespaced else ""
        match call.verb:
            case "list":
                return Answer(200, self._listed(resource, call))
            case "get":
                if sub == "log":
                    return self.kubelet.log(self.writer.must(resource, namespace, call.name), params)
                found = self.writer.must(resource, namespace, call.name)
                return Answer(200, _scale(found) if sub == "scale" else found)
            case "create":
                thing = self._json(body)
                if resource.plural == "selfsubjectaccessreviews":
                    return Answer(201, self._reviewed(thing, user))
                decoded = self.writer.decoded(resource, thing, strict, warnings)
                return Answer(201, self._create(resource, decoded, namespace, manager, user, dry_run))
            case "update":
                return self._put(resource, call, self._json(body), manager, user, strict, warnings, dry_run)
            case "patch":
                return self._patch(resource, call, headers, body, manager, user, strict, warnings, dry_run)
            case "delete":
                options = {**_delete_options(params), **(self._json(body) if body else {})}
                found = self.writer.must(resource, namespace, call.name)
                return Answer(200, self._delete(resource, found, options, dry_run))
            case "deletecollection":
                listed = self._listed(resource, call)
                options = _delete_options(params)
                for each in listed["items"]:
                    at = each["metadata"]
                    self._delete(resource, self.writer.must(resource, namespace, at["name"]), options, dry_run)
                return Answer(200, listed)
        raise ApiFailure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})

    def _json(self, body: Any) -> Any:
        if isinstance(body, str | bytes):
            try:
                return json.loads(body)
            except ValueError as error:
                raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error
        return body

    def _create(
        self,
        resource: Resource,
        thing: Json,
        namespace: str,
        manager: Manager,
        user: User,
        dry_run: bool = False,
        applied: bool = False,
    ) -> Json:
        said = thing["metadata"].get("namespace", namespace)
        if resource.namespaced and said != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if resource.custom and "kind" not in thing:
            raise bad_request("Object 'Kind' is missing")
        thing = self.writer.decoded(resource, thing, "Ignore", [])
        admission.admit(self, resource, thing, None, namespace, user)
        made = self.writer.create(resource, thing, namespace, manager, applied, dry_run)
        if resource.kind == "Namespace" and not dry_run:
            self._service_account(made["metadata"]["name"])
        return made

    def _namespace(self, name: str) -> None:
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "")

    def _service_account(self, namespace: str) -> None:
        self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}, namespace)

    def _put(
        self,
        resource: Resource,
        call: Call,
        body: Json,
        manager: Manager,
        user: User,
        strict: str,
        warnings: list[str],
        dry_run: bool,
    ) -> Answer:
        sub = call.resource.partition("/")[2]
        namespace = call.namespace if resource.namespaced else ""
        old = self.store.get(resource.key, namespace, call.name)
        if old is None and not sub and resource.plural in _CREATED_BY_PUT:
            thing = self.writer.decoded(resource, body, strict, warnings)
            return Answer(201, self._create(resource, thing, namespace, manager, user, dry_run))
        old = self.writer.must(resource, namespace, call.name)
        if sub == "scale":
            return Answer(200, self._rescaled(resource, old, body, manager, dry_run))
        thing = self.writer.decoded(resource, body, strict, warnings)
        if resource.custom and not thing["metadata"].get("resourceVersion"):
            must = cause("Invalid", "metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
            raise invalid(resource.group, resource.kind, call.name, [must])
        return Answer(200, self._update(resource, old, thing, manager, user, sub, dry_run))

    def _update(
        self,
        resource: Resource,
        old: Json,
        thing: Json,
        manager: Manager,
        user: User,
        sub: str,
        dry_run: bool,
        applied: bool = False,
    ) -> Json:
        admission.admit(self, resource, thing, old, old["metadata"].get("namespace", ""), user)
        return self.writer.update(resource, old, thing, manager, sub, applied, dry_run)

    def _patch(
        self,
        resource: Resource,
        call: Call,
        headers: Json,
        body: Any,
        manager: Manager,
        user: User,
        strict: str,
        warnings: list[str],
        dry_run: bool,
    ) -> Answer:
        kind = _PATCHES.get(headers.get("content-type", "").split(";")[0].strip())
        sub = call.resource.partition("/")[2]
        namespace = call.namespace if resource.namespaced else ""
        if kind is None or (kind == "strategic" and resource.custom):
            accepted = [name for name, short in _PATCHES.items() if not (short == "strategic" and resource.custom)]
            message = "the body of the request was in an unknown format - accepted media types include: "
            raise ApiFailure(415, "UnsupportedMediaType", message + ", ".join(accepted), {})
        if kind == "apply":
            return self._apply(resource, call, body, manager, user, dry_run)
        if "force" in call.params:
            may_not = cause("Forbidden", "force", "Forbidden: may not be specified for non-apply patch")
            raise invalid("meta.k8s.io", "PatchOptions", "", [may_not])
        old = self.writer.must(resource, namespace, call.name)
        shown = _scale(old) if sub == "scale" else old
        patch = self._json(body)
        if kind == "json":
            changed = patches.json_patch(shown, patch)
        elif kind == "merge":
            changed = patches.merge_patch(shown, patch)
        else:
            changed = patches.strategic_merge(shown, patch, resource.type)
        if sub == "scale":
            return Answer(200, self._rescaled(resource, old, changed, manager, dry_run))
        try:
            thing = self.writer.decoded(resource, changed, strict, warnings)
        except ApiFailure as failure:
            said = failure.message.partition(" cannot be handled as a ")[2].partition(": ")[2] or failure.message
            text = body.decode() if isinstance(body, bytes) else body if isinstance(body, str) else json.dumps(body)
            wrong = cause("Invalid", "patch", f"Invalid value: {json.dumps(text)}: {said}")
            raise invalid("", "", "", [wrong]) from failure
        return Answer(200, self._update(resource, old, thing, manager, user, sub, dry_run))

    def _apply(self, resource: Resource, call: Call, body: Any, manager: Manager, user: User, dry_run: bool) -> Answer:
        sub = call.resource.partition("/")[2]
        namespace = call.namespace if resource.namespaced else ""
        if not call.params.get("fieldManager"):
            needed = cause("Required", "fieldManager", "Required value: is required for apply patch")
            raise invalid("meta.k8s.io", "PatchOptions", "", [needed])
        config = body if isinstance(body, dict) else _yaml(body)
        group_version, kind = config.get("apiVersion", ""), config.get("kind", "")
        if (group_version, kind) != (resource.api_version, resource.kind):
            raise bad_request(f"invalid object type: {group_version}, Kind={kind}")
        metadata = config.get("metadata") or {}
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if metadata.get("name", call.name) != call.name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({call.name})"
            )
        if metadata.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        config = {
            **config,
            "metadata": {**metadata, "name": call.name, **({"namespace": namespace} if namespace else {})},
        }
        old = self.store.get(resource.key, namespace, call.name)
        if sub and old is None:
            raise not_found(resource.group, resource.plural, call.name)
        wanted = metadata.get("resourceVersion")
        if wanted and (old or {"metadata": {"resourceVersion": ""}})["metadata"]["resourceVersion"] != wanted:
            raise conflict(resource.group, resource.plural, call.name, MODIFIED)
        applier = Manager(manager.name, "Apply", resource.api_version, sub)
        force = call.params.get("force", "") in ("true", "1", "True")
        ignored = (("f:spec",), ("f:metadata", "f:labels")) if sub == "status" else (("f:status",),)
        merged = managers.apply(old or {}, config, resource.type, applier, self.clock.stamp(), force, ignored)
        thing = self.writer.decoded(resource, merged, "Ignore", [])
        if old is None:
            made = self._create(resource, thing, namespace, applier, user, dry_run, applied=True)
            return Answer(201, made)
        return Answer(200, self._update(resource, old, thing, applier, user, sub, dry_run, applied=True))

    def _rescaled(self, resource: Resource, old: Json, scale: Json, manager: Manager, dry_run: bool) -> Json:
        metadata, replicas = scale.get("metadata") or {}, (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise bad_request(
                'Scale in version "v1" cannot be handled as a Scale: json: cannot unmarshal '
                "string into Go struct field ScaleSpec.spec.replicas of type int32"
            )
        name = old["metadata"]["name"]
        if replicas < 0:
            negative = cause(
                "Invalid", "spec.replicas", f"Invalid value: {replicas}: must be greater than or equal to 0"
            )
            raise invalid("autoscaling", "Scale", name, [negative])
        wanted = metadata.get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise conflict(resource.group, resource.plural, name, MODIFIED)
        thing = {**old, "spec": {**old["spec"], "replicas": replicas}}
        return _scale(self.writer.update(resource, old, thing, manager, "scale", dry_run=dry_run))

    def _delete(self, resource: Resource, found: Json, options: Json, dry_run: bool) -> Json:
        left, gone = self.writer.delete(resource, found, options, dry_run)
        if not gone or resource.returns_deleted:
            return left
        about = {
            "name": found["metadata"]["name"],
            "group": resource.group,
            "kind": resource.plural,
            "uid": found["metadata"]["uid"],
        }
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in about.items() if value},
        }

    def _reviewed(self, thing: Json, user: User) -> Json:
        asked = (thing.get("spec") or {}).get("resourceAttributes") or {}
        resource = "/".join(filter(None, (asked.get("resource", ""), asked.get("subresource", ""))))
        call = Call("", "", {}, asked.get("verb", ""), resource, asked.get("name", ""), asked.get("namespace", ""))
        allowed = not self.tokens or access.allowed(self.store, user, call, asked.get("group", ""))
        return {**thing, "status": {"allowed": allowed}}

    # Lists and watches

    def _selected(self, resource: Resource, params: dict[str, str]) -> Callable[[Json], bool]:
        labels = selectors.label_selector(params.get("labelSelector", ""))
        fields = selectors.field_selector(params.get("fieldSelector", ""), resource.kind)
        return lambda thing: labels(thing) and fields(thing)

    def _listed(self, resource: Resource, call: Call) -> Json:
        params = call.params
        limit = int(params.get("limit") or 0)
        version = self.store.version
        if params.get("continue"):
            if params["continue"] not in self._snapshots or self._snapshots[params["continue"]][0] < self.store.oldest:
                raise ApiFailure(
                    410,
                    "Expired",
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter.",
                )
            version, items = self._snapshots[params["continue"]]
        else:
            match = self._selected(resource, params)
            namespace = call.namespace or None if resource.namespaced else None
            items = [each for each in self.store.ordered(resource.key, namespace) if match(each)]
        metadata: Json = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            token = f"{version}-{len(self._snapshots)}-{self.writer.suffix()}"
            self._snapshots[token] = (version, items[limit:])
            metadata["continue"] = token
            if not params.get("labelSelector") and not params.get("fieldSelector"):
                metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        bare = items if resource.custom else [_untyped(each) for each in items]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": bare,
        }

    def _watch(self, resource: Resource, call: Call) -> Iterator[Json]:
        """Events; between them the clock advances unless something else drives it."""
        params = call.params
        match = self._selected(resource, params)
        within = int(params.get("timeoutSeconds") or 1800)
        bookmarks = params.get("allowWatchBookmarks") in ("true", "1")
        initial = params.get("sendInitialEvents") == "true"
        wanted = params.get("resourceVersion") or "0"
        namespace = call.namespace if resource.namespaced else ""
        if not wanted.isdigit():
            raise bad_request(
                f'invalid resource version "{wanted}": strconv.ParseUint: parsing "{wanted}": invalid syntax'
            )

        def chosen(thing: Json | None) -> bool:
            if thing is None:
                return False
            at = thing["metadata"]
            here = namespace in ("", at.get("namespace")) and call.name in ("", at["name"])
            return here and match(thing)

        with self.store.changed:
            seen = int(wanted)
            first: list[Json] = []
            if not seen or initial:
                seen = self.store.version
                first = [each for each in self.store.ordered(resource.key, namespace or None) if chosen(each)]
        return self._events(resource, chosen, seen, first, within, bookmarks, initial)

    def _events(
        self,
        resource: Resource,
        chosen: Callable[[Json | None], bool],
        seen: int,
        first: list[Json],
        within: float,
        bookmarks: bool,
        initial: bool,
    ) -> Iterator[Json]:
        for each in first:
            yield {"type": "ADDED", "object": each}
        if initial:
            yield _bookmark(resource, seen, {"k8s.io/initial-events-end": "true"})
        started, real = self.clock.seconds, wall.monotonic()
        marked = started
        while True:
            with self.store.changed:
                if seen < self.store.oldest:
                    yield _gone(str(seen), self.store.oldest)
                    return
                changes = [each for each in self.store.changes if each.version > seen and each.key == resource.key]
                seen = self.store.version
            for change in changes:
                if event := _event(change, chosen):
                    yield event
            over = self.clock.seconds - started >= within or (self.driven and wall.monotonic() - real >= within)
            if bookmarks and (over or self.clock.seconds - marked >= 60):
                marked = self.clock.seconds
                yield _bookmark(resource, seen)
            if over:
                return
            self._await_change(seen)

    def _await_change(self, seen: int) -> None:
        if self.driven:
            with self.store.changed:
                self.store.changed.wait_for(lambda: self.store.version > seen, timeout=0.25)
        else:
            self.advance(0.1)


def _untyped(thing: Json) -> Json:
    """Items of built-in lists come without apiVersion and kind."""
    return {key: value for key, value in thing.items() if key not in ("apiVersion", "kind")}


def _scale(thing: Json) -> Json:
    metadata = thing["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = thing["spec"]["selector"].get("matchLabels") or {}
    replicas = thing["spec"]["replicas"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept},
        "spec": {"replicas": replicas} if replicas else {},  # omitempty: a patch that replaces it then fails
        "status": {
            "replicas": (thing.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(selector.items())),
        },
    }


def _delete_options(params: dict[str, str]) -> Json:
    options: Json = {}
    if "propagationPolicy" in params:
        options["propagationPolicy"] = params["propagationPolicy"]
    if "gracePeriodSeconds" in params:
        options["gracePeriodSeconds"] = int(params["gracePeriodSeconds"])
    return options


def _yaml(body: Any) -> Json:
    try:
        try:
            config = json.loads(body)
        except ValueError:
            config = yaml.safe_load(body)
        if not isinstance(config, dict):
            raise ValueError("no mapping")
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"error decoding YAML: {error}") from error
    return config


def _event(change: Change, chosen: Callable[[Json | None], bool]) -> Json | None:
    before, after = chosen(change.old), chosen(change.new)
    if after:
        return {"type": "MODIFIED" if before else "ADDED", "object": change.new}
    if before:
        # An object that no longer fits the selector is as good as deleted: with its old content and the new version.
        last = change.last
        if change.new is not None and change.old is not None:
            metadata = {**change.old["metadata"], "resourceVersion": str(change.version)}
            last = {**change.old, "metadata": metadata}
        return {"type": "DELETED", "object": last}
    return None


def _bookmark(resource: Resource, version: int, annotations: dict[str, str] | None = None) -> Json:
    metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "type": "BOOKMARK",
        "object": {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata},
    }


def _gone(asked: str, oldest: int) -> Json:
    failure = ApiFailure(410, "Expired", f"too old resource version: {asked} ({oldest})")
    return {"type": "ERROR", "object": failure.body()}


def _dropped(events: Iterator[Json], after: int) -> Iterator[Json]:
    for _ in range(after):
        try:
            yield next(events)
        except StopIteration:
            return
    raise ConnectionLost(committed=False)
