"""Service accounts, their Roles, and what binds the ones to the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ekiben.doctor import permissions
from ekiben.doctor.argo import installed
from ekiben.doctor.finding import Check, Finding, missing, ok, wrong
from ekiben.errors import EkibenError
from ekiben.platforms.kubernetes.api import Api, path
from ekiben.platforms.manifests import access
from ekiben.platforms.manifests.names import Target

Json = dict[str, Any]
WORKFLOW_ACCOUNTS = ("ekiben-train", "ekiben-build", "ekiben-loadtest", "ekiben-deploy")
EXECUTOR = "ekiben-executor"
_RESULTS = [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]
_RBAC = "rbac.authorization.k8s.io/v1"
_BASE = "deploy/base/workflow-accounts.yaml"


def accounts(api: Api, name: str, wanted: Sequence[str], namespace: str, step: str) -> Finding:
    listed = api.get(path("v1", "serviceaccounts", namespace)).get("items") or []
    there = {each["metadata"]["name"] for each in listed}
    if lacking := [each for each in wanted if each not in there]:
        return missing(name, f"not there: {', '.join(lacking)}", ", ".join(wanted), step)
    return ok(name, ", ".join(wanted))


def used(documents: Mapping[str, Sequence[Json]]) -> list[str]:
    """The accounts that steps run as: those that every project has, and what else the documents name."""
    return list(dict.fromkeys([*WORKFLOW_ACCOUNTS, *(name for each in documents.values() for name in _named(each))]))


def _named(value: Any) -> Iterator[str]:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _named(each)
    if isinstance(value, dict) and isinstance(name := value.get("serviceAccountName"), str) and "{{" not in name:
        yield name


def bindings(api: Api, target: Target, steps: Sequence[str]) -> list[Finding]:
    """Whether the steps' pods can report to Argo, and whether the deploying step may deploy the service."""
    namespace, pipelines = target.settings.namespace, target.settings.pipelines
    found = {
        place: api.get(path(_RBAC, "rolebindings", place)).get("items") or []
        for place in dict.fromkeys((pipelines, namespace))
    }

    def bound(account: str, role: str, place: str) -> bool:
        return any(
            each["roleRef"]["name"] == role
            and any(_is(subject, account, pipelines, place) for subject in each.get("subjects") or ())
            for each in found[place]
        )

    def allowed(account: str, rules: Sequence[Json], place: str) -> bool:
        """By whatever binding: for who may not ask that, only those to our own Roles count."""
        asked = [each for rule in rules for each in permissions.attributes(rule, place)]
        try:
            return all(permissions.may(api, pipelines, account, each) for each in asked)
        except EkibenError:
            return False

    def lacks(account: str) -> bool:
        return not bound(account, EXECUTOR, pipelines) and not allowed(account, _RESULTS, pipelines)

    name, lacking = "executor's rights", [each for each in steps if lacks(each)]
    wanted = f"the Role {EXECUTOR}, which lets a step's pod write its result for Argo"
    step = f"kubectl -n {pipelines} apply -f {_BASE}"
    executor = (
        wrong(name, f"not bound to {EXECUTOR}: {', '.join(lacking)}", wanted, step)
        if lacking
        else ok(name, f"all {len(steps)} may report to Argo")
    )
    name, account = "deployer's rights", "ekiben-deploy"
    if bound(account, target.deployer, namespace):
        return [executor, ok(name, f"{account} is bound to {target.deployer}")]
    if allowed(account, access.rules(target), namespace):
        return [executor, ok(name, f"{account} may do what {target.deployer} allows")]
    step = (
        f"kubectl -n {namespace} create rolebinding {account}-{target.name} --role={target.deployer}"
        f" --serviceaccount={pipelines}:{account}"
    )
    wanted = f"the Role that `ekiben render {target.service} --env {target.environment}` prints, bound to it"
    return [executor, wrong(name, f"{account} is not bound to {target.deployer}", wanted, step)]


def _is(subject: Json, account: str, namespace: str, binding: str) -> bool:
    """Whether the subject of a binding in the namespace `binding` is that account, or a group that it is in."""
    if subject["kind"] == "Group":
        return subject["name"] in permissions.groups(namespace)
    given = (subject["kind"], subject["name"], subject.get("namespace", binding))
    return given == ("ServiceAccount", account, namespace)


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


def checks(api: Api, target: Target, documents: Mapping[str, Sequence[Json]]) -> list[Check]:
    namespace, pipelines = target.settings.namespace, target.settings.pipelines
    render = f"ekiben render {target.service} --env {target.environment} | kubectl apply -f -"
    base, own = f"kubectl -n {pipelines} apply -f {_BASE}", f"have an administrator run: {render}"

    def steps() -> list[str]:
        return used(installed(api, pipelines, documents))

    def account(name: str, wanted: Callable[[], Sequence[str]], place: str, step: str) -> Check:
        return Check(name, lambda: [accounts(api, name, wanted(), place, step)])

    def rights(name: str, called: str, rules: Sequence[Json], place: str, step: str) -> Check:
        return Check(name, lambda: [role(api, name, called, rules, place, step)])

    return [
        account("workflows' accounts", steps, pipelines, base),
        account("service's accounts", lambda: (target.name, target.deployer), namespace, own),
        Check("accounts' rights", lambda: bindings(api, target, steps())),
        rights("executor's Role", EXECUTOR, _RESULTS, pipelines, base),
        rights("deployer's Role", target.deployer, access.rules(target), namespace, own),
    ]
