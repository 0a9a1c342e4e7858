"""What the API server does with a request for a resource: get, create, update, patch, apply, delete."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from tests.fakes.kubernetes import access, admission, managers, patches
from tests.fakes.kubernetes.access import User
from tests.fakes.kubernetes.faults import Answer, Call
from tests.fakes.kubernetes.managers import Manager
from tests.fakes.kubernetes.reads import Reads
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.statuses import MODIFIED, ApiFailure, bad_request, cause, conflict, invalid, not_found

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

Json = dict[str, Any]

_PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_CREATED_BY_PUT = {"services", "leases", "events", "roles", "rolebindings", "clusterroles", "clusterrolebindings"}


class Verbs:
    def __init__(self, cluster: "Cluster", reads: Reads) -> None:
        self.cluster, self.store, self.writer, self.reads = cluster, cluster.store, cluster.writer, reads

    def serve(
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
                return Answer(200, self.reads.listed(resource, call))
            case "get":
                if sub == "log":
                    return self.cluster.kubelet.log(self.writer.must(resource, namespace, call.name), params)
                found = self.writer.must(resource, namespace, call.name)
                return Answer(200, _scale(found) if sub == "scale" else found)
            case "create":
                thing = self._json(body)
                if sub == "token":
                    account = self.writer.must(resource, namespace, call.name)
                    return Answer(201, self.cluster.issued.issue(account, thing, self.writer, self.cluster.clock))
                if resource.plural == "selfsubjectaccessreviews":
                    return Answer(201, self._reviewed(thing, user))
                if resource.plural == "subjectaccessreviews":
                    return Answer(201, self._reviewed(thing, access.named(thing.get("spec") or {})))
                if resource.plural == "selfsubjectreviews":
                    info = {"username": user.name, "groups": list(user.groups)}
                    return Answer(201, {**thing, "status": {"userInfo": info}})
                decoded = self.writer.decoded(resource, thing, strict, warnings)
                return Answer(201, self.create(resource, decoded, namespace, manager, user, dry_run))
            case "update":
                return self._put(resource, call, self._json(body), manager, user, strict, warnings, dry_run)
            case "patch":
                return self._patch(resource, call, headers, body, manager, user, strict, warnings, dry_run)
            case "delete":
                options = {**_delete_options(params), **(self._json(body) if body else {})}
                found = self.writer.must(resource, namespace, call.name)
                return Answer(200, self._delete(resource, found, options, dry_run))
            case "deletecollection":
                listed = self.reads.listed(resource, call)
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

    def create(
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
        admission.admit(self.cluster, resource, thing, None, namespace, user)
        made = self.writer.create(resource, thing, namespace, manager, applied, dry_run)
        if resource.kind == "Namespace" and not dry_run:
            self.cluster.add_service_account(made["metadata"]["name"])
        return made

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
            return Answer(201, self.create(resource, thing, namespace, manager, user, dry_run))
        old = self.writer.must(resource, namespace, call.name)
        if sub == "scale":
            return Answer(200, self._rescaled(resource, old, body, manager, dry_run))
        thing = self.writer.decoded(resource, body, strict, warnings)
        if (said := thing["metadata"].get("uid")) not in (None, uid := old["metadata"]["uid"]):
            why = f"Precondition failed: UID in precondition: {said}, UID in object meta: {uid}"
            raise conflict(resource.group, resource.plural, call.name, why)
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
        admission.admit(self.cluster, resource, thing, old, old["metadata"].get("namespace", ""), user)
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
            raise ApiFailure(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
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
            text = json.dumps(changed, separators=(",", ":"))  # the whole object, as patched
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
        if old is None and metadata.get("uid"):
            why = f"the provided object specified uid {metadata['uid']}, and no existing object was found"
            raise conflict(resource.group, resource.plural, call.name, f"uid mismatch: {why}")
        if old is None:  # a version alone keeps nobody from creating it
            config["metadata"].pop("resourceVersion", None)
        elif metadata.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
            raise conflict(resource.group, resource.plural, call.name, MODIFIED)
        applier = Manager(manager.name, "Apply", resource.api_version, sub)
        force = call.params.get("force", "") in ("true", "1", "True")
        ignored = (("f:spec",), ("f:metadata", "f:labels")) if sub == "status" else (("f:status",),)
        merged = managers.apply(old or {}, config, resource.type, applier, self.cluster.clock.stamp(), force, ignored)
        try:
            thing = self.writer.decoded(resource, merged, "Ignore", [])
        except ApiFailure as failure:
            said = failure.message.partition(f" as a {resource.kind}: ")[2] or failure.message
            which = f"{namespace}/{call.name}; {resource.api_version}, Kind={resource.kind}"
            said = f"unable to convert unstructured object to {resource.api_version}, Kind={resource.kind}: {said}"
            raise ApiFailure(500, "", f"failed to convert new object ({which}) to proper version: {said}") from failure
        if old is None:
            self.cluster.authorise(user, replace(call, verb="create"), resource)
            made = self.create(resource, thing, namespace, applier, user, dry_run, applied=True)
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
        allowed = access.allowed(self.store, user, call, asked.get("group", ""))
        return {**thing, "status": {"allowed": allowed}}


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
