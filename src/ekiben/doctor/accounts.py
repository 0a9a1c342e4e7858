"""Service accounts, what binds them to their Roles, and Secrets. Of a Secret only the names of its keys are told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ekiben.doctor import permissions
from ekiben.doctor.finding import Check, Finding, missing, ok, unknown, wrong
from ekiben.errors import UsageError
from ekiben.platforms.kubernetes.api import Api, path
from ekiben.platforms.manifests import access
from ekiben.platforms.manifests.names import Target

Json = dict[str, Any]
WORKFLOW_ACCOUNTS = ("ekiben-train", "ekiben-build", "ekiben-loadtest", "ekiben-deploy")
EXECUTOR = "ekiben-executor"
_RESULTS = [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]
_RBAC = "rbac.authorization.k8s.io/v1"
_BASE = "deploy/base/workflow-accounts.yaml"


@dataclass
class Needed:
    """A Secret that something refers to: its keys, and what refers to it."""

    keys: dict[str, bool] = field(default_factory=dict)  # whether the key must be there
    by: dict[str, None] = field(default_factory=dict)


def accounts(api: Api, name: str, wanted: Sequence[str], namespace: str, step: str) -> Finding:
    listed = api.get(path("v1", "serviceaccounts", namespace)).get("items") or []
    there = {each["metadata"]["name"] for each in listed}
    if lacking := [each for each in wanted if each not in there]:
        return missing(name, f"not there: {', '.join(lacking)}", ", ".join(wanted), step)
    return ok(name, ", ".join(wanted))


def used(documents: Mapping[str, Json]) -> list[str]:
    """The accounts that steps run as: those that every project has, and what else the documents name."""
    return list(dict.fromkeys([*WORKFLOW_ACCOUNTS, *(name for each in documents.values() for name in _named(each))]))


def _named(value: Any) -> Iterator[str]:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _named(each)
    if isinstance(value, dict) and isinstance(name := value.get("serviceAccountName"), str) and "{{" not in name:
        yield name


def bindings(api: Api, target: Target, steps: Sequence[str]) -> list[Finding]:
    """Whether the steps' pods can report to Argo, and whether the deploying step may deploy the service."""
    namespace = target.settings.namespace
    found = api.get(path(_RBAC, "rolebindings", namespace)).get("items") or []

    def bound(account: str, role: str) -> bool:
        return any(
            each["roleRef"]["name"] == role
            and any(
                subject["kind"] == "ServiceAccount"
                and subject["name"] == account
                and subject.get("namespace", namespace) == namespace
                for subject in each.get("subjects") or ()
            )
            for each in found
        )

    name, lacking = "executor's rights", [each for each in steps if not bound(each, EXECUTOR)]
    wanted = f"the Role {EXECUTOR}, which lets a step's pod write its result for Argo"
    step = f"kubectl -n {namespace} apply -f {_BASE}"
    executor = (
        wrong(name, f"not bound to {EXECUTOR}: {', '.join(lacking)}", wanted, step)
        if lacking
        else ok(name, f"all {len(steps)} are bound to {EXECUTOR}")
    )
    name, account = "deployer's rights", "ekiben-deploy"
    if bound(account, target.deployer):
        return [executor, ok(name, f"{account} is bound to {target.deployer}")]
    step = (
        f"kubectl -n {namespace} create rolebinding {account}-{target.name} --role={target.deployer}"
        f" --serviceaccount={namespace}:{account}"
    )
    wanted = f"the Role that `ekiben render {target.service} --env {target.environment}` prints, bound to it"
    return [executor, wrong(name, f"{account} is not bound to {target.deployer}", wanted, step)]


def role(api: Api, name: str, called: str, rules: Sequence[Json], namespace: str, step: str) -> Finding:
    """Whether a Role is there and allows what this version of ekiben does; it may be of an older one."""
    wanted = f"the Role {called} of this version of ekiben"
    found = api.find(path(_RBAC, "roles", namespace, called))
    if found is None:
        return missing(name, f"no Role {called}", wanted, step)
    held = found.get("rules") or []

    def allowed(wished: Json) -> bool:
        single = permissions.attributes(wished, namespace)
        return all(any(permissions.covers(rule, one) for rule in held) for one in single)

    if lacking := [each for each in rules if not allowed(each)]:
        seen = "\n".join(f"{called} does not allow: {permissions.words(each)}" for each in lacking)
        return wrong(name, seen, wanted, step)
    return ok(name, f"{called} allows what is needed")


def needed(documents: Mapping[str, Json], target: Target) -> dict[str, Needed]:
    """The Secrets that the workflows' documents (by their names) and the environment refer to."""
    found: dict[str, Needed] = {}

    def add(secret: str, key: str, by: str, required: bool = True) -> None:
        if "{{" in secret or "{{" in key:
            return  # a parameter's value, known only when it runs
        entry = found.setdefault(secret, Needed())
        entry.by[by] = None
        if key:
            entry.keys[key] = entry.keys.get(key, False) or required
        elif required:
            entry.keys.setdefault("", True)

    for name, document in documents.items():
        for secret, key, required in _references(document):
            add(secret, key, name, required)
    environment = f"environment {target.environment}"
    if target.settings.runtime_image:
        add(target.settings.wandb_secret, "api-key", environment)
    for secret in target.settings.image_pull_secrets:
        add(secret, ".dockerconfigjson", environment)
    return found


def _references(value: Any) -> Iterator[tuple[str, str, bool]]:
    """Secret, key ('' for the whole) and whether it is required, of all references in a document."""
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        match key, inner:
            case "secretKeyRef" | "accessKeySecret" | "secretKeySecret", {"name": str(name), "key": str(of)}:
                yield name, of, not inner.get("optional")
            case "secretRef", {"name": str(name)}:
                yield name, "", not inner.get("optional")
            case "secret", {"secretName": str(name)}:
                items = [item["key"] for item in inner.get("items") or ()] or [""]
                yield from ((name, of, not inner.get("optional")) for of in items)
            case "imagePullSecrets", list():
                yield from ((each["name"], ".dockerconfigjson", True) for each in inner)
            case _:
                yield from _references(inner)


def secret(api: Api, namespace: str, called: str, wanted: Needed) -> Finding:
    """Whether it is there with its keys, none empty. No value leaves this function."""
    name, by = f"secret {called}", ", ".join(wanted.by)
    required = [key for key, must in wanted.keys.items() if must and key]
    literals = "".join(f" --from-file={key}=FILE" for key in required)
    step = f"kubectl -n {namespace} create secret generic {called}{literals}"
    if ".dockerconfigjson" in required:
        step = f"kubectl -n {namespace} create secret docker-registry {called} --docker-server=… --docker-username=…"
    says = f"keys {', '.join(required)}, for {by}" if required else f"for {by}"
    try:
        found = api.find(path("v1", "secrets", namespace, called))
    except UsageError:
        ask = f"ask an administrator: kubectl -n {namespace} describe secret {called}"
        return unknown(name, "not allowed to look at it", says, ask)
    if found is None:
        if not any(wanted.keys.values()):
            return ok(name, f"not there; optional, for {by}")
        return missing(name, "not there", says, step)
    filled = {key for key, value in (found.get("data") or {}).items() if value}
    if lacking := [key for key in required if key not in filled]:
        there = ", ".join(sorted(filled)) or "nothing"
        return missing(name, f"has {there}; lacks {', '.join(lacking)}", says, f"add the key; or anew: {step}")
    return ok(name, f"has {', '.join(sorted(filled)) or 'no keys'}")


def checks(api: Api, target: Target, documents: Mapping[str, Json]) -> list[Check]:
    namespace = target.settings.namespace
    render = f"ekiben render {target.service} --env {target.environment} | kubectl apply -f -"
    own, steps = (target.name, target.deployer), used(documents)
    given = [
        ("workflows' accounts", steps, f"kubectl -n {namespace} apply -f {_BASE}"),
        ("service's accounts", own, f"have an administrator run: {render}"),
    ]

    def account(name: str, wanted: Sequence[str], step: str) -> Check:
        return Check(name, lambda: [accounts(api, name, wanted, namespace, step)])

    def one(called: str, wanted: Needed) -> Check:
        return Check(f"secret {called}", lambda: [secret(api, namespace, called, wanted)])

    def rights(name: str, called: str, rules: Sequence[Json], step: str) -> Check:
        return Check(name, lambda: [role(api, name, called, rules, namespace, step)])

    return [
        *(account(*each) for each in given),
        Check("accounts' rights", lambda: bindings(api, target, steps)),
        rights("executor's Role", EXECUTOR, _RESULTS, given[0][2]),
        rights("deployer's Role", target.deployer, access.rules(target), given[1][2]),
        *(one(*each) for each in needed(documents, target).items()),
    ]
