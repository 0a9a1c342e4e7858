"""Which resource a path names, and the documents that name no resource: discovery, version, health."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from tests.fakes.kubernetes.faults import Answer, Call
from tests.fakes.kubernetes.resources import (
    Resource,
    group_document,
    group_list,
    resource_list,
    version_document,
)
from tests.fakes.kubernetes.statuses import no_such_path

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Router:
    def __init__(self, served: Iterable[Resource]) -> None:
        self.served = list(served)
        self._by_path = {(each.group, each.version, each.plural): each for each in self.served}

    def route(self, call: Call) -> tuple[Resource | None, str]:
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

    def document(self, path: str) -> Answer:
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
