"""Argo Workflows on the cluster: its custom resources, and its controller."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ekiben.doctor.cluster import served
from ekiben.doctor.finding import Check, Finding, missing, ok, refused, silent, unknown, warn, wrong
from ekiben.errors import ConflictError, EkibenError
from ekiben.pipeline.argo.documents import API_VERSION
from ekiben.platforms.kubernetes.api import Api, path

Json = dict[str, Any]
NEEDED = ("workflows", "workflowtemplates", "cronworkflows", "workfloweventbindings")
OLDEST, ADVISED = (3, 6), (4, 0)
_IMAGE = re.compile(r"(^|/)(argo-)?workflow-controller(:(?P<tag>[^@]*))?(@.*)?$")
_SUBDOMAIN = re.compile(r'\\?"subdomain\\?": *\\?"([a-z0-9-]+)')
_INSTALL = "install Argo Workflows 4 with its full custom resource definitions (kubectl apply --server-side)"


def resources(api: Api) -> Finding:
    name, wanted = "Argo's resources", f"{API_VERSION} with {', '.join(NEEDED)}"
    there = served(api, API_VERSION)
    if there is None:
        return missing(name, f"{API_VERSION} is not served", wanted, _INSTALL)
    if lacking := [each for each in NEEDED if each not in there]:  # Argo CD and Rollouts share the group
        return missing(name, f"{API_VERSION} lacks {', '.join(lacking)}", wanted, _INSTALL)
    return ok(name, f"{API_VERSION} is served")


def controller(api: Api, namespace: str) -> Finding:
    """The workflow controller's version by its image's tag, whether it runs, and whether it sees the namespace."""
    name, wanted = "Argo's controller", "Argo Workflows {}.{}, 4 or newer by preference".format(*OLDEST)
    try:
        found = _controllers(api, namespace)
    except EkibenError as error:
        return _by_definitions(api, name, wanted, error)
    if not found:
        return missing(name, "no Deployment runs workflow-controller", wanted, _INSTALL)
    seeing = [each for each in found if _sees(each, namespace)]
    if not seeing:
        where = ", ".join(each["metadata"]["namespace"] for each in found)
        step = f"take away --namespaced or --managed-namespace, or install one in {namespace}"
        return wrong(name, f"those in {where} see only other namespaces", f"one that sees {namespace}", step)
    deployment = seeing[0]
    metadata, container = deployment["metadata"], container_of(deployment)
    where = f"{metadata['namespace']}/{metadata['name']}"
    seen = f"{where}: {container['image']}"
    if not (deployment.get("status") or {}).get("availableReplicas"):
        step = f"kubectl -n {metadata['namespace']} describe deployment {metadata['name']}; and its pods' logs"
        return silent(name, f"{seen}, of which no pod is available", "a controller that runs", step)
    version = version_of(container["image"], metadata.get("labels") or {})
    if version is None:
        step = "look at its log's first line; pin its image to a version"
        return unknown(name, f"{seen}, which tells no version", wanted, step)
    return _judged(name, seen, version)


def server(environ: Mapping[str, str], namespace: str) -> Finding:
    """The Argo Server that ARGO_SERVER names, by which runs are then started and read."""
    from ekiben.pipeline.argo.server import Server

    name = "Argo Server"
    try:
        found = Server.configured(namespace, environ)
        version = found.version()
    except EkibenError as error:
        return refused(name, error, "the server that ARGO_SERVER names, or no ARGO_SERVER")
    number = re.match(r"v?(\d+)\.(\d+)", version)
    if number is None:
        return unknown(name, f"{found.url} tells no version", "Argo Workflows {}.{} or newer".format(*OLDEST))
    return _judged(name, f"{found.url}: {version}", (int(number[1]), int(number[2])))


def templates(api: Api, namespace: str, documents: Mapping[str, Sequence[Json]]) -> Finding:
    """Whether what is installed of the project's workflows is what lies here, by a dry run of applying them.
    `documents` have their modules' names; not every one is meant for a cluster."""
    from ekiben.pipeline.argo.install import Place

    name, place = "workflows", Place(api, namespace)
    found: dict[str, list[str]] = {"created": [], "changed": [], "unchanged": []}
    for module, each in documents.items():
        applied = [document for document in each if document["kind"] != "Workflow"]
        try:
            whats = {change.what for change in place.planned(applied)}
        except ConflictError:  # somebody has changed it there
            whats = {"changed"}
        if whats:  # of several documents, some of which are there, the others are missing
            found[whats.pop() if len(whats) == 1 else "changed"].append(module)
    if stale := found["changed"]:
        step = f"ekiben workflow apply {' '.join(stale)}, first with --dry-run, which shows what changes"
        return warn(name, f"other than here: {', '.join(stale)}", "what lies in workflows/", step)
    if not found["unchanged"]:
        return warn(name, f"none is installed in {namespace}", "those that you run there", "ekiben workflow apply")
    more = f"; not installed: {', '.join(found['created'])}" if found["created"] else ""
    return ok(name, f"as here: {', '.join(found['unchanged'])}{more}")


def installed(api: Api, namespace: str, documents: Mapping[str, Sequence[Json]]) -> dict[str, Sequence[Json]]:
    """Those of which something is in the cluster; what nobody has installed needs nothing there."""
    from ekiben.pipeline.argo.install import Place

    place = Place(api, namespace)
    return {module: each for module, each in documents.items() if any(map(place.holds, each))}


def headless(api: Api, namespace: str, documents: Mapping[str, Sequence[Json]]) -> list[Finding]:
    """Whether there is a Service for each `subdomain` in which pods of the installed workflows are to have a name."""
    there = installed(api, namespace, documents)
    names = sorted({name for each in there.values() for name in _SUBDOMAIN.findall(json.dumps(each))})
    found = []
    for name in names:
        called = f"Service {name}"
        if api.find(path("v1", "services", namespace, name)):
            found.append(ok(called, "gives pods of workflows their names"))
        else:
            step = f"kubectl -n {namespace} apply -f deploy/base/loadtest.yaml"
            found.append(missing(called, f"no Service {name}", "the headless one by which pods find each other", step))
    return found


def _judged(name: str, seen: str, version: tuple[int, int]) -> Finding:
    upgrade = "upgrade Argo Workflows: server, controller and custom resource definitions together"
    if version < OLDEST:
        return wrong(name, seen, "Argo Workflows {}.{}, 4 or newer by preference".format(*OLDEST), upgrade)
    return warn(name, seen, "4 or newer: what is tested", upgrade) if version < ADVISED else ok(name, seen)


def _by_definitions(api: Api, name: str, wanted: str, error: EkibenError) -> Finding:
    """Who may not look at the controller may still read what the API server publishes of its definitions: Argo 4 took
    `schedule` out of CronWorkflow. Minimal definitions name no fields at all."""
    try:
        told = api.get(f"/openapi/v3/apis/{API_VERSION}")
    except EkibenError:
        told = {}
    kinds = (told.get("components") or {}).get("schemas") or {}
    cron: Json = next((each for key, each in kinds.items() if key.endswith(".CronWorkflow")), {})
    fields = ((cron.get("properties") or {}).get("spec") or {}).get("properties") or {}
    if "schedule" in fields:
        return _judged(name, "by its resources' definitions older than 4", (3, 6))
    if "schedules" in fields:
        return ok(name, "by its resources' definitions 4 or newer; not allowed to look at its Deployment")
    step = "ask who runs Argo: kubectl get deployments -A -o wide | grep workflow-controller"
    return unknown(name, f"cannot look for it: {error.seen.partition(': ')[0]}", wanted, step)


def version_of(image: str, labels: dict[str, str]) -> tuple[int, int] | None:
    """(major, minor) by the image's tag, or else by the label that Helm's chart sets."""
    match = _IMAGE.search(image)
    tags = (match and match["tag"]) or "", labels.get("app.kubernetes.io/version", "")
    for tag in tags:
        if number := re.match(r"v?(\d+)\.(\d+)", tag):
            return int(number[1]), int(number[2])
    return None


def _controllers(api: Api, namespace: str) -> list[Json]:
    """Deployments of the workflow controller: anywhere, or where one may look."""
    try:
        listed = api.get("/apis/apps/v1/deployments").get("items") or []
    except EkibenError:
        listed = []
        refusals = []
        for place in dict.fromkeys((namespace, "argo")):
            try:
                listed += api.get(path("apps/v1", "deployments", place)).get("items") or []
            except EkibenError as error:
                refusals.append(error)
        if refusals and not any(map(container_of, listed)):
            raise refusals[-1] from None
    return [each for each in listed if container_of(each)]


def controller_of(api: Api, namespace: str) -> Json | None:
    """The Deployment of the controller that sees the namespace; None where nobody knows of one."""
    try:
        return next((each for each in _controllers(api, namespace) if _sees(each, namespace)), None)
    except EkibenError:
        return None


def container_of(deployment: Json) -> Json:
    """The controller's container; empty for a Deployment of something else."""
    containers: list[Json] = deployment["spec"]["template"]["spec"]["containers"]
    return next((each for each in containers if _IMAGE.search(each.get("image", ""))), {})


def _sees(deployment: Json, namespace: str) -> bool:
    container = container_of(deployment)
    arguments = " ".join([*(container.get("command") or ()), *(container.get("args") or ())])
    if match := re.search(r"--managed-namespace[= ](\S+)", arguments):
        return match[1] == namespace
    own = bool(deployment["metadata"]["namespace"] == namespace)
    return own or re.search(r"--namespaced(?!=false)\b", arguments) is None


def checks(
    api: Api, namespace: str, documents: Mapping[str, Sequence[Json]], environ: Mapping[str, str]
) -> list[Check]:
    servers = [Check("Argo Server", lambda: [server(environ, namespace)], late="fail")]
    return [
        *(servers if environ.get("ARGO_SERVER") else []),
        Check("Argo's resources", lambda: [resources(api)]),
        Check("Argo's controller", lambda: [controller(api, namespace)]),
        Check("workflows", lambda: [templates(api, namespace, documents)]),
        Check("workflows' Services", lambda: headless(api, namespace, documents)),
    ]
