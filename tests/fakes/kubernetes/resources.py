"""The resources that the fake serves, and their discovery documents."""

from dataclasses import dataclass
from typing import Any

from tests.fakes.kubernetes.schema import VERSION, Type, kind_type

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

REVIEWS = ("selfsubjectaccessreviews", "selfsubjectreviews")
"""What everybody who is logged in may create; nothing is kept of them."""


@dataclass(frozen=True)
class Resource:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    custom: bool = False  # by a custom resource definition: no strategic merge patch, no schema here
    generation: bool = False  # keeps metadata.generation
    returns_deleted: bool = False  # DELETE answers with the object and not with a Status

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> tuple[str, str]:
        return (self.group, self.plural)

    @property
    def type(self) -> Type:
        return kind_type(self.group, self.version, self.kind)


def _core(plural: str, kind: str, **more: Any) -> Resource:
    return Resource("", "v1", plural, kind, **more)


_RBAC = "rbac.authorization.k8s.io"

BUILT_IN = (
    _core("namespaces", "Namespace", namespaced=False, subresources=("status",), short=("ns",)),
    _core("nodes", "Node", namespaced=False, subresources=("status",), short=("no",)),
    _core("services", "Service", subresources=("status", "proxy"), short=("svc",), returns_deleted=True),
    _core("pods", "Pod", subresources=("status", "log", "proxy"), short=("po",), generation=True),
    _core("events", "Event", short=("ev",)),
    _core("serviceaccounts", "ServiceAccount", subresources=("token",), short=("sa",), returns_deleted=True),
    _core("configmaps", "ConfigMap", short=("cm",)),
    _core("secrets", "Secret"),
    _core("resourcequotas", "ResourceQuota", subresources=("status",), short=("quota",), returns_deleted=True),
    Resource("apps", "v1", "deployments", "Deployment", True, ("status", "scale"), ("deploy",), generation=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", True, ("status", "scale"), ("rs",), generation=True),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("status",), ("hpa",)),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("status",), ("pdb",), False, True),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, (), ("netpol",), False, True),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False),
    Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
    Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False),
    Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False),
)


def _custom(group: str, version: str, plural: str, kind: str) -> Resource:
    return Resource(group, version, plural, kind, True, ("status",), custom=True, generation=True)


CUSTOM = {
    each.plural: each
    for each in (
        _custom("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
        _custom("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor"),
        _custom("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor"),
        _custom("monitoring.coreos.com", "v1", "prometheusrules", "PrometheusRule"),
        _custom("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject"),
    )
}

_SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale", ["get", "patch", "update"]),
    "status": ("", "", "", ["get", "patch", "update"]),
    "log": ("", "", "Pod", ["get"]),
    "proxy": ("", "", "", ["create", "delete", "get", "patch", "update"]),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ["create"]),
}


def version_document() -> dict[str, str]:
    major, minor, _ = VERSION.split(".")
    return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}", "platform": "linux/amd64"}


def group_list(resources: list[Resource]) -> dict[str, Any]:
    groups = {each.group: each.version for each in resources if each.group}
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups.items()]}


def _group(name: str, version: str) -> dict[str, Any]:
    served = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def group_document(name: str, resources: list[Resource]) -> dict[str, Any] | None:
    found = next((each.version for each in resources if each.group == name), None)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, found)} if found else None


def resource_list(group: str, version: str, resources: list[Resource]) -> dict[str, Any] | None:
    found = [each for each in resources if (each.group, each.version) == (group, version)]
    if not found:
        return None
    listed = []
    for each in found:
        only_create = each.plural in (*REVIEWS, "subjectaccessreviews")
        entry: dict[str, Any] = {
            "name": each.plural,
            "singularName": each.kind.lower(),
            "namespaced": each.namespaced,
            "kind": each.kind,
            "verbs": ["create"] if only_create else list(VERBS),
        }
        if each.short:
            entry["shortNames"] = list(each.short)
        listed.append(entry)
        for name in each.subresources:
            sub_group, sub_version, kind, verbs = _SUBRESOURCE_KINDS[name]
            sub: dict[str, Any] = {
                "name": f"{each.plural}/{name}",
                "singularName": "",
                "namespaced": each.namespaced,
                "kind": kind or each.kind,
                "verbs": verbs,
            }
            if sub_group:
                sub |= {"group": sub_group, "version": sub_version}
            listed.append(sub)
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}
