"""Who may do what: the pods nothing, the deployer what a blue-green deploy of this one service takes."""

from ekiben.platforms.manifests.names import PORT_NAME, Manifest, Target
from ekiben.types import SLOTS

_SEE = ["get", "list", "watch"]


def accounts(target: Target) -> list[Manifest]:
    """ServiceAccounts of the pods and of the deployer; the pods' token is never mounted."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": target.metadata(name),
            "automountServiceAccountToken": name != target.name,
        }
        for name in (target.name, target.deployer)
    ]


def deployer(target: Target) -> list[Manifest]:
    """Role and RoleBinding. An administrator applies them: nobody can give what he has not."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": target.deployer}
    account = {"kind": "ServiceAccount", "name": target.deployer, "namespace": target.settings.namespace}
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": target.metadata(target.deployer),
            "rules": rules(target),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": target.metadata(target.deployer),
            "roleRef": role,
            "subjects": [account],
        },
    ]


def rules(target: Target) -> list[Manifest]:
    """What the deployer may: see what runs; change this service's own objects, by name; create, which has no names.

    Nothing of Secrets, ConfigMaps, Roles or nodes, and no other service's objects.
    """
    settings = target.settings
    colours = [target.of(slot) for slot in SLOTS]
    services = [target.name, target.preview, *([target.scraped] if settings.service_monitor else [])]
    granted = [
        _rule("", ["pods", "events"], _SEE),
        _rule("", ["pods/log"], ["get"]),
        _rule("apps", ["deployments", "replicasets"], _SEE),
        _rule("discovery.k8s.io", ["endpointslices"], _SEE),
        _rule("", ["services"], ["create"]),
        _rule("", ["services"], ["get", "patch"], services),
        # The smoke test goes through the API server, so that it needs no way into the cluster's network.
        _rule("", ["services/proxy"], ["get", "create"], [target.preview, f"{target.preview}:{PORT_NAME}"]),
        _rule("apps", ["deployments"], ["create"]),
        _rule("apps", ["deployments", "deployments/scale"], ["get", "patch"], colours),
        *_own("policy", "poddisruptionbudgets", colours),
    ]
    if settings.autoscaling.kind in ("cpu", "in-progress"):
        granted += _own("autoscaling", "horizontalpodautoscalers", colours)
    if settings.autoscaling.kind == "keda":
        granted += _own("keda.sh", "scaledobjects", colours)
    if settings.network.policy:
        granted += _own("networking.k8s.io", "networkpolicies", [target.name])
    if settings.service_monitor:
        for resource in ("servicemonitors", "prometheusrules"):
            granted += _own("monitoring.coreos.com", resource, [target.name])
    if settings.http_route:
        granted.append(_rule("gateway.networking.k8s.io", ["httproutes"], ["get", "patch"], [settings.http_route]))
    if not settings.prometheus:
        granted.append(_rule("", ["pods/proxy"], ["get"]))  # metrics; pods' names are not known
    return granted


def _own(group: str, resource: str, names: list[str]) -> list[Manifest]:
    return [_rule(group, [resource], ["create"]), _rule(group, [resource], ["get", "patch"], names)]


def _rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> Manifest:
    rule: Manifest = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": names} if names else {})
