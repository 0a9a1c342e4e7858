"""What the person at this machine may do on the cluster: asked of the API server, rule by rule."""

from collections.abc import Sequence
from typing import Any

from ekiben.doctor.cluster import user_of
from ekiben.doctor.finding import Check, Finding, ok, side_by_side, wrong
from ekiben.errors import EkibenError
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.manifests import access, text
from ekiben.platforms.manifests.names import Target

Json = dict[str, Any]
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
OTHERS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
AT_ONCE = 8
ARGO = "argoproj.io"
SECONDS = 30.0


def _rule(group: str, resources: Sequence[str], *verbs: str) -> Json:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


RUN = [
    _rule(ARGO, ["workflows"], "create", "get", "patch", "watch"),
    _rule(ARGO, ["workflowtemplates"], "get"),
    _rule("", ["pods", "events"], "list"),
    _rule("", ["pods/log"], "get"),
]
APPLY = [_rule(ARGO, ["workflowtemplates", "cronworkflows", "workfloweventbindings"], "create", "get", "patch")]


def attributes(rule: Json, namespace: str) -> list[Json]:
    """Each single thing that a rule allows, as a SelfSubjectAccessReview asks for it."""
    found = []
    for resource in rule["resources"]:
        plural, _, sub = resource.partition("/")
        for verb in rule["verbs"]:
            for name in rule.get("resourceNames") or [""]:
                asked = {"namespace": namespace, "group": rule["apiGroups"][0], "resource": plural, "verb": verb}
                found.append(asked | ({"subresource": sub} if sub else {}) | ({"name": name} if name else {}))
    return found


def covers(rule: Json, asked: Json) -> bool:
    """Whether a Role's rule allows a single thing, as RBAC reads it."""
    resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
    allowed = {
        "verbs": {asked["verb"], "*"},
        "apiGroups": {asked["group"], "*"},
        "resources": {resource, "*", *([f"*/{asked['subresource']}"] if "subresource" in asked else ())},
    }
    names = rule.get("resourceNames") or [asked.get("name", "")]
    return asked.get("name", "") in names and all(each & set(rule.get(key) or ()) for key, each in allowed.items())


def lacking(api: Api, rules: Sequence[Json], namespace: str) -> list[Json]:
    """The rules of which something is not allowed. EkibenError where the API server does not say."""
    asked = [(index, each) for index, rule in enumerate(rules) for each in attributes(rule, namespace)]

    def ask(share: list[tuple[int, Json]]) -> list[int]:
        return [index for index, each in share if not _allowed(api, each)]

    shares = [asked[start::AT_ONCE] for start in range(AT_ONCE)]
    refused: set[int] = set()
    for answer in side_by_side([lambda share=share: ask(share) for share in shares], SECONDS):  # type: ignore[misc]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise EkibenError(f"{api.server} takes too long to say what is allowed")
        refused.update(answer)
    return [rules[index] for index in sorted(refused)]


def _allowed(api: Api, asked: Json) -> bool:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    told = api.create(REVIEWS, review | {"spec": {"resourceAttributes": asked}})
    return bool((told.get("status") or {}).get("allowed"))


def groups(namespace: str) -> list[str]:
    """Those that every service account of the namespace is in."""
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def may(api: Api, namespace: str, account: str, asked: Json) -> bool:
    """Whether a service account may do a single thing, however it was granted. EkibenError for who may not ask."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    user = f"system:serviceaccount:{namespace}:{account}"  # the API server adds no groups of its own
    told = api.create(
        OTHERS, review | {"spec": {"user": user, "groups": groups(namespace), "resourceAttributes": asked}}
    )
    return bool((told.get("status") or {}).get("allowed"))


def permission(api: Api, command: str, role: str, rules: Sequence[Json], namespace: str) -> Finding:
    name = f"may {command}"
    found = lacking(api, rules, namespace)
    if not found:
        return ok(name, f"all {len(rules)} rules in {namespace}")
    seen = "\n".join(f"not: {words(rule)}" for rule in found)
    step = "have an administrator apply what is printed below"
    try:
        user = user_of(api)
    except EkibenError:
        user = "YOUR-USER"  # clusters before 1.28 do not say
    fix = text.to_yaml(_grant(role, found, namespace, user))
    return wrong(name, seen, "these rights, if you are to run it", step, fix)


def words(rule: Json) -> str:
    group, names = rule["apiGroups"][0], rule.get("resourceNames")
    resources = ", ".join(f"{each}.{group}" if group else each for each in rule["resources"])
    return f"{', '.join(rule['verbs'])} {resources}" + (f" ({', '.join(names)})" if names else "")


def _grant(role: str, rules: Sequence[Json], namespace: str, user: str) -> list[Json]:
    """A Role with the rules that are missing, and its binding to the user, which service accounts are too."""
    group, metadata = "rbac.authorization.k8s.io", {"name": role, "namespace": namespace}
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        },
    ]


def checks(api: Api, target: Target) -> list[Check]:
    settings = target.settings
    given = [
        ("run workflows", "ekiben-runs", RUN, settings.pipelines),
        ("apply workflows", "ekiben-applies", APPLY, settings.pipelines),
        (f"deploy {target.service}", f"{target.deployer}-user", access.rules(target), settings.namespace),
    ]

    def one(command: str, role: str, rules: Sequence[Json], namespace: str) -> Check:
        return Check(f"may {command}", lambda: [permission(api, command, role, rules, namespace)])

    return [one(*each) for each in given]
