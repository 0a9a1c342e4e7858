"""Who asks, and what they may do: bearer tokens, and RBAC by the Roles and bindings in the cluster."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.fakes.kubernetes.faults import Call
from tests.fakes.kubernetes.store import Store

Json = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


def service_account(namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


def named(review: Json) -> User:
    """Whoever a review asks about: in the groups that it names, and in no others."""
    return User(review.get("user", ""), tuple(review.get("groups") or ()))


def allowed(store: Store, user: User, call: Call, group: str) -> bool:
    """Whether any rule that is bound to the user covers the call."""
    if "system:masters" in user.groups:
        return True
    return any(covers(rule, call.verb, group, call.resource, call.name) for rule in rules(store, user, call.namespace))


def rules(store: Store, user: User, namespace: str) -> Iterable[Json]:
    """All rules bound to the user in the namespace ("" for the cluster's scope alone)."""
    for binding in store.every((RBAC, "clusterrolebindings")):
        if any(_is(subject, user, "") for subject in binding.get("subjects", ())):
            yield from rules_of(store, binding["roleRef"], "")
    for binding in store.ordered((RBAC, "rolebindings"), namespace) if namespace else ():
        if any(_is(subject, user, namespace) for subject in binding.get("subjects", ())):
            yield from rules_of(store, binding["roleRef"], namespace)


def rules_of(store: Store, reference: Json, namespace: str) -> list[Json]:
    plural, where = ("roles", namespace) if reference["kind"] == "Role" else ("clusterroles", "")
    role = store.get((RBAC, plural), where, reference["name"])
    return list((role or {}).get("rules") or [])


def _is(subject: Json, user: User, namespace: str) -> bool:
    match subject["kind"]:
        case "ServiceAccount":
            return user.name == f"system:serviceaccount:{subject.get('namespace', namespace)}:{subject['name']}"
        case "Group":
            return subject["name"] in user.groups
    return bool(subject["name"] == user.name)


def covers(rule: Json, verb: str, group: str, resource: str, name: str) -> bool:
    names = rule.get("resourceNames") or []
    _, _, sub = resource.partition("/")
    resources = rule.get("resources") or []
    return (
        bool({"*", verb} & set(rule.get("verbs") or ()))
        and bool({"*", group} & set(rule.get("apiGroups") or ()))
        and (bool({"*", resource} & set(resources)) or bool(sub and f"*/{sub}" in resources))
        and (not names or name in names)
    )


def may_grant(store: Store, user: User, namespace: str, wanted: list[Json]) -> list[Json]:
    """The rules among `wanted` that the user lacks; nobody grants more than they have (escalation prevention)."""
    if "system:masters" in user.groups:
        return []
    held = list(rules(store, user, namespace))
    lacking = []
    for rule in wanted:
        single = [
            (verb, group, resource, name)
            for verb in rule.get("verbs") or ()
            for group in rule.get("apiGroups") or ()
            for resource in rule.get("resources") or ()
            for name in rule.get("resourceNames") or [""]
        ]
        if not all(any(covers(each, *one) for each in held) for one in single):
            lacking.append(rule)
    return lacking
