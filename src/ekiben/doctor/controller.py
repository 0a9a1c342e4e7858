"""How Argo's controller is set up, where that decides whether a workflow's pods start: its ConfigMap, and its account.

Its containers in each pod, init and wait, have the security context that the ConfigMap gives them and none otherwise;
memoized outputs are written by the controller itself, in its own namespace.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ekiben.doctor import argo, cluster, permissions
from ekiben.doctor.finding import Check, Finding, ok, unknown, wrong
from ekiben.errors import UsageError
from ekiben.platforms.kubernetes.api import Api, path

Json = dict[str, Any]
INSTANCE = "ARGO_INSTANCEID"
CONFIG = "workflow-controller-configmap"
_KEPT = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]}
CONFINED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def configuration(api: Api, deployment: Json) -> tuple[Json, bool]:
    """What its ConfigMap says, and whether it says it all in one document, under `config`: what else stands there is
    passed over then. Without, there is one under each key. Empty where there is no such ConfigMap."""
    container = argo.container_of(deployment)
    arguments = " ".join([*(container.get("command") or ()), *(container.get("args") or ())])
    named = re.search(r"--configmap[= ](\S+)", arguments)
    where = path("v1", "configmaps", deployment["metadata"]["namespace"], named[1] if named else CONFIG)
    data = (api.find(where) or {}).get("data") or {}
    try:
        read = {key: yaml.safe_load(value) for key, value in data.items()}
    except yaml.YAMLError:
        return {}, "config" in data
    return (read["config"] or {}, True) if "config" in read else (read, False)


def instance(configured: Json, chosen: str) -> Finding:
    """A controller with an instance ID takes up only what is labelled with it."""
    name, wanted = "Argo's instance", str(configured.get("instanceID") or "")
    if wanted == chosen:
        return ok(name, wanted or "none")
    seen = f"the controller takes up {f'only workflows of instance {wanted}' if wanted else 'workflows of no instance'}"
    step = f"export {INSTANCE}={wanted}" if wanted else f"unset {INSTANCE}"
    return wrong(name, f"{seen}; {INSTANCE} is {chosen or 'not set'} here", "the same of both", step)


def confinement(api: Api, configured: Json, nested: bool, namespace: str, where: str) -> Finding:
    """Whether pods with Argo's own containers in them may be created in the namespace."""
    name = "Argo's own containers"
    labels = (api.get(f"/api/v1/namespaces/{namespace}")["metadata"]).get("labels") or {}
    context = (configured.get("executor") or {}).get("securityContext") or {}
    if labels.get(cluster.ENFORCE) != "restricted":
        return ok(name, f"{namespace} does not enforce restricted")
    if context.get("allowPrivilegeEscalation") is False and "ALL" in (context.get("capabilities") or {}).get(
        "drop", ()
    ):
        return ok(name, "confined by executor.securityContext")
    place = f"the ConfigMap {CONFIG} of {where}{', within its key config' if nested else ''}"
    step = f"put what is printed below into {place}; or enforce baseline in {namespace}"
    executor = {"securityContext": CONFINED}
    told: Json = {"executor": executor} if nested else {"data": {"executor": yaml.safe_dump(executor, sort_keys=False)}}
    fix = yaml.safe_dump(told, sort_keys=False)
    seen = f"{namespace} enforces restricted, and they have no security context: every pod of a step is refused"
    return wrong(name, seen, "executor.securityContext in the controller's ConfigMap", step, fix)


def memory(api: Api, deployment: Json) -> Finding:
    """Whether the controller may keep memoized outputs: without, a step that is memoized ends as Error."""
    name, place = "memoized steps", deployment["metadata"]["namespace"]
    account = deployment["spec"]["template"]["spec"].get("serviceAccountName") or "default"
    user = f"system:serviceaccount:{place}:{account}"
    asked = permissions.attributes(_KEPT, place)
    lacking = [each["verb"] for each in asked if not permissions.may(api, place, account, each)]
    if not lacking:
        return ok(name, f"{user} may keep them in {place}")
    role = f"kubectl -n {place} create role ekiben-memoize --verb=get,create,update --resource=configmaps"
    bind = (
        f"kubectl -n {place} create rolebinding ekiben-memoize --role=ekiben-memoize --serviceaccount={place}:{account}"
    )
    seen = f"{user} may not {', '.join(lacking)} configmaps in {place}"
    return wrong(name, seen, "a controller that may: Argo's default Role does not let it", f"{role}\n{bind}")


def memoized(documents: Mapping[str, Sequence[Json]]) -> list[str]:
    """The workflows that have steps with `memoize`."""
    return [name for name, each in documents.items() if any("memoize" in held for held in _held(each))]


def _held(value: Any) -> Iterator[Json]:
    """Every mapping in a document."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from _held(each)


def checks(
    api: Api, namespace: str, documents: Mapping[str, Sequence[Json]], environ: Mapping[str, str]
) -> list[Check]:
    def settings() -> list[Finding]:
        deployment = argo.controller_of(api, namespace)
        if deployment is None:
            return []  # which the check of the controller itself tells
        where = deployment["metadata"]["namespace"]
        try:
            configured, nested = configuration(api, deployment)
        except UsageError:
            return [unknown("Argo's settings", f"not allowed to look at the ConfigMap {CONFIG} in {where}")]
        return [
            instance(configured, environ.get(INSTANCE, "")),
            confinement(api, configured, nested, namespace, where),
        ]

    def keeps() -> list[Finding]:
        deployment = argo.controller_of(api, namespace)
        if deployment is None or not memoized(argo.installed(api, namespace, documents)):
            return []
        return [memory(api, deployment)]

    return [Check("Argo's settings", settings), Check("memoized steps", keeps)]
