"""Admission: what is refused with 403 although RBAC allows it."""

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes import access
from tests.fakes.kubernetes.access import User
from tests.fakes.kubernetes.objects import going
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.schema import canonical_quantity, quantity
from tests.fakes.kubernetes.statuses import forbidden, not_found

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

Json = dict[str, Any]


def admit(cluster: "Cluster", resource: Resource, thing: Json, old: Json | None, namespace: str, user: User) -> None:
    """Raises 403, or 404 for a namespace that is not there."""
    name = thing["metadata"].get("name", "")
    if resource.namespaced and old is None:
        space = cluster.store.get(("", "namespaces"), "", namespace)
        if space is None:
            raise not_found("", "namespaces", namespace)
        if going(space):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(resource.group, resource.plural, name, why)
        if resource.kind == "Pod":
            _pod(cluster, resource, thing, namespace, space)
    if resource.group == access.RBAC:
        _grant(cluster, resource, thing, namespace, user)


def _grant(cluster: "Cluster", resource: Resource, thing: Json, namespace: str, user: User) -> None:
    if resource.plural in ("roles", "clusterroles"):
        wanted = thing.get("rules") or []
    else:
        wanted = access.rules_of(cluster.store, thing["roleRef"], namespace)
    lacking = access.may_grant(cluster.store, user, namespace, wanted)
    if lacking:
        groups = " ".join(f'"{each}"' for each in user.groups)
        listed = "\n".join(_rule(each) for each in lacking)
        what = "is attempting to grant RBAC permissions not currently held"
        why = f'user "{user.name}" (groups=[{groups}]) {what}:\n{listed}'
        raise forbidden(resource.group, resource.plural, thing["metadata"].get("name", ""), why)


def _rule(rule: Json) -> str:
    parts = []
    for key, name in (
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    ):
        if rule.get(key):
            parts.append(f"{name}:[" + " ".join(f'"{each}"' for each in rule[key]) + "]")
    return "{" + ", ".join(parts) + "}"


def _pod(cluster: "Cluster", resource: Resource, pod: Json, namespace: str, space: Json) -> None:
    name = pod["metadata"].get("name", "")
    account = pod["spec"].get("serviceAccountName", "default")
    if cluster.store.get(("", "serviceaccounts"), namespace, account) is None:
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden("", "pods", name, why)
    enforced = space["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
    if enforced == "restricted" and (wrong := list(_restricted(pod["spec"]))):
        raise forbidden("", "pods", name, f'violates PodSecurity "restricted:latest": {", ".join(wrong)}')
    _quota(cluster, resource, pod, namespace, name)


def _restricted(spec: Json) -> Iterator[str]:
    """Where a pod breaks the restricted profile; the checks that a plain pod fails."""
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    of_pod = spec.get("securityContext", {})

    def breaking(test: Any) -> str:
        names = [each["name"] for each in containers if test(each.get("securityContext", {}))]
        quoted = ", ".join(f'"{each}"' for each in names)
        return f"container{'s' if len(names) > 1 else ''} {quoted}" if names else ""

    if who := breaking(lambda c: c.get("privileged", False)):
        yield f"privileged ({who} must not set securityContext.privileged=true)"
    if who := breaking(lambda c: c.get("allowPrivilegeEscalation") is not False):
        yield f"allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
    if who := breaking(lambda c: "ALL" not in c.get("capabilities", {}).get("drop", ())):
        yield f'unrestricted capabilities ({who} must set securityContext.capabilities.drop=["ALL"])'
    volumes = [each["name"] for each in spec.get("volumes", ()) if "hostPath" in each]
    if volumes:
        yield f'restricted volume types (volume "{volumes[0]}" uses restricted volume type "hostPath")'
    if who := breaking(lambda c: c.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True):
        yield f"runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"
    if who := breaking(lambda c: c.get("runAsUser", of_pod.get("runAsUser")) == 0):
        yield f"runAsUser=0 (pod or {who} must not set runAsUser=0)"
    good = ("RuntimeDefault", "Localhost")
    if who := breaking(lambda c: c.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") not in good):
        must = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {who} {must})"


def _quota(cluster: "Cluster", resource: Resource, pod: Json, namespace: str, name: str) -> None:
    quotas = cluster.store.ordered(("", "resourcequotas"), namespace)
    if not quotas:
        return
    pods = [each for each in cluster.store.ordered(resource.key, namespace) if each["status"]["phase"] != "Failed"]
    for quota in quotas:
        hard = quota["spec"].get("hard", {})
        asked, said = usage(pod), quota["metadata"]["name"]
        unknown = [key for key in sorted(hard) if key in asked and key not in quota.get("status", {}).get("hard", {})]
        if unknown:
            raise forbidden("", "pods", name, f"status unknown for quota: {said}, resources: {','.join(unknown)}")
        needed = [key for key in hard if key in _MUST_STATE and key not in asked]
        if needed:
            what = " ".join(
                f"must specify {','.join(sorted(needed))} for: {pod['spec']['containers'][0]['name']}".split()
            )
            raise forbidden("", "pods", name, f"failed quota: {said}: {what}")
        used = {key: sum((usage(each).get(key, Decimal(0)) for each in pods), Decimal(0)) for key in hard}
        over = [key for key in sorted(hard) if key in asked and used[key] + asked[key] > quantity(hard[key])]
        if over:
            shown = [",".join(f"{key}={_shown(amounts[key])}" for key in over) for amounts in (asked, used, hard)]
            why = f"exceeded quota: {said}, requested: {shown[0]}, used: {shown[1]}, limited: {shown[2]}"
            raise forbidden("", "pods", name, why)


_MUST_STATE = ("limits.cpu", "limits.memory", "requests.cpu", "requests.memory")


def usage(pod: Json) -> dict[str, Decimal]:
    """What a pod takes of each thing that a quota can limit."""
    taken = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        for part in ("requests", "limits"):
            for key, value in resources.get(part, {}).items():
                names = [f"{part}.{key}"] + ([key] if part == "requests" and key in ("cpu", "memory") else [])
                for each in names:
                    taken[each] = taken.get(each, Decimal(0)) + quantity(value)
    return taken


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else canonical_quantity(value)
