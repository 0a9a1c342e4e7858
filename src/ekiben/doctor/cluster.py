"""The cluster that an environment names: API server, login, namespace, and custom resources of others that it uses."""

import re
from decimal import Decimal
from typing import Any

from ekiben.doctor.finding import Check, Finding, missing, ok, refused, silent, warn, wrong
from ekiben.environments import Environment
from ekiben.errors import EkibenError, NotFoundError, UnavailableError, UsageError
from ekiben.platforms.kubernetes.api import AbsentError, Api, path

Json = dict[str, Any]
OLDEST = (1, 30)
"""Of Kubernetes: pods sleep before they end (lifecycle.preStop.sleep), which is on by default since then."""
ENFORCE = "pod-security.kubernetes.io/enforce"
NEARLY_FULL = Decimal("0.9")
_UNITS = {"m": Decimal("0.001"), "k": Decimal(1000)}
_UNITS |= {prefix: Decimal(1000**power) for power, prefix in enumerate("MGTPE", 2)}
_UNITS |= {f"{prefix}i": Decimal(1024**power) for power, prefix in enumerate("KMGTPE", 1)}


def server(api: Api) -> Finding:
    """Whether it answers, and which version it is. All else on a cluster depends on it."""
    name, wanted = "API server", "Kubernetes {}.{} or newer".format(*OLDEST)
    try:
        told = str(api.get("/version").get("gitVersion", ""))
    except EkibenError as error:
        return refused(name, error, wanted)
    seen = f"{api.server}: {told}"
    match = re.match(r"v(\d+)\.(\d+)", told)
    if match is None:
        return silent(name, f"{api.server} answers, but names no version", wanted, "is it a Kubernetes API server?")
    if (int(match[1]), int(match[2])) < OLDEST:
        return wrong(name, seen, wanted, "upgrade the cluster, or take another one")
    return ok(name, seen)


def user_of(api: Api) -> str:
    """Whom the API server takes us for."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    told = api.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    return str(((told.get("status") or {}).get("userInfo") or {}).get("username", ""))


def login(api: Api) -> Finding:
    name = "login"
    try:
        user = user_of(api)
    except UsageError as error:
        return refused(name, error, "a user whom the cluster knows")
    if user == "system:anonymous":
        return wrong(name, user, "a user whom the cluster knows", "correct the context's user in the kubeconfig")
    return ok(name, user)


def space(api: Api, namespace: str, whose: str = "") -> list[Finding]:
    """Whether the namespace is there, and what its pods may be."""
    name, level = f"{whose}namespace", f"{whose}pod security"
    try:
        found = api.get(f"/api/v1/namespaces/{namespace}")
    except NotFoundError:
        step = f"kubectl create namespace {namespace}, or correct `namespace` in pyproject.toml"
        return [missing(name, f"no namespace {namespace}", "the environment's namespace", step)]
    if (found.get("status") or {}).get("phase") == "Terminating":
        return [wrong(name, f"{namespace} is being deleted", "one that stays", "wait until it is gone; create it anew")]
    enforced = (found["metadata"].get("labels") or {}).get(ENFORCE, "")
    if enforced in ("baseline", "restricted"):
        said = ok(level, f"{ENFORCE}: {enforced}")
    else:
        step = f"kubectl label namespace {namespace} {ENFORCE}=baseline"
        said = warn(level, f"{enforced or 'nothing'} is enforced", "baseline, or restricted", step)
    return [ok(name, namespace), said]


def quotas(api: Api, namespace: str, whose: str = "") -> Finding:
    name, nearly, seen = f"{whose}quotas", [], []
    for quota in api.get(path("v1", "resourcequotas", namespace)).get("items") or []:
        status = quota.get("status") or {}
        used = status.get("used") or {}
        for resource, hard in sorted((status.get("hard") or (quota.get("spec") or {}).get("hard") or {}).items()):
            line = f"{resource}: {used.get(resource, '0')} of {hard}"
            seen.append(line)
            if quantity(str(used.get(resource, "0"))) >= NEARLY_FULL * quantity(str(hard)):
                nearly.append(line)
    if nearly:
        step = "raise the ResourceQuota, or lower replicas or resources: a deploy runs both colours for a while"
        return warn(name, "\n".join(nearly), "room for a second colour", step)
    return ok(name, ", ".join(seen) or "none")


def quantity(text: str) -> Decimal:
    """Kubernetes' quantities as numbers: 500m, 1Gi, 1e3."""
    match = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)(m|[kMGTPE]i?|Ki)?", text)
    if match is None:
        raise UsageError(f"{text!r} is not a quantity")
    return Decimal(match[1]) * _UNITS.get(match[2] or "", 1)


def served(api: Api, group_version: str) -> set[str] | None:
    """Plural names of what a group's version serves; None where the group, or that version, is not there."""
    try:
        found = api.get(f"/apis/{group_version}")
    except AbsentError:
        return None
    return {each["name"] for each in found.get("resources") or [] if "/" not in each["name"]}


def extensions(settings: Environment) -> list[tuple[str, str, tuple[str, ...], str]]:
    """What the environment's settings rely on: a name, group and version, resources, and what to do without."""
    found: list[tuple[str, str, tuple[str, ...], str]] = []
    match settings.autoscaling.kind:
        case "cpu":
            step = 'install metrics-server, or set autoscaling.kind = "none"'
            found.append(("metrics-server", "metrics.k8s.io/v1beta1", ("pods",), step))
        case "in-progress":
            step = 'install prometheus-adapter with that metric, or set autoscaling.kind = "cpu"'
            found.append(("metrics adapter", "custom.metrics.k8s.io/v1beta1", (), step))
        case "keda":
            step = 'install KEDA 2, or set autoscaling.kind = "cpu"'
            found.append(("KEDA", "keda.sh/v1alpha1", ("scaledobjects",), step))
    if settings.service_monitor:
        step = "install the Prometheus operator, or set service_monitor = false"
        needed = ("servicemonitors", "prometheusrules")
        found.append(("Prometheus operator", "monitoring.coreos.com/v1", needed, step))
    if settings.http_route:
        step = "install the Gateway API's definitions and a controller for them, or leave http_route empty"
        found.append(("Gateway API", "gateway.networking.k8s.io/v1", ("httproutes",), step))
    return found


def extension(api: Api, name: str, group_version: str, needed: tuple[str, ...], step: str) -> Finding:
    try:
        there = served(api, group_version)
    except UnavailableError as error:  # aggregated APIs answer 503 while what serves them is down
        return silent(name, f"{group_version} does not answer: {error.seen}", "what the environment uses", step)
    lacking = list(needed) if there is None else [each for each in needed if each not in there]
    if there is None or lacking:
        seen = f"{group_version} is not served" if there is None else f"{group_version} lacks {', '.join(lacking)}"
        return missing(name, seen, "what the environment uses", step)
    return ok(name, f"{group_version} is served")


def route(api: Api, settings: Environment, namespace: str) -> Finding:
    """The HTTPRoute that canary shares go to; ekiben makes it only where a gateway is named."""
    name = "HTTPRoute"
    found = api.find(path("gateway.networking.k8s.io/v1", "httproutes", namespace, settings.http_route))
    if found is not None:
        return ok(name, settings.http_route)
    if settings.gateway:
        return ok(name, f"{settings.http_route} is not there yet: a deploy makes it")
    return missing(name, f"no HTTPRoute {settings.http_route}", "the one that the environment names", "create it")


def checks(api: Api, settings: Environment) -> list[Check]:
    namespace = settings.namespace
    places = {namespace: ""} | ({settings.pipelines: "pipelines' "} if settings.pipelines != namespace else {})

    def about(place: str, whose: str) -> list[Check]:
        return [
            Check(f"{whose}namespace", lambda: space(api, place, whose)),
            Check(f"{whose}quotas", lambda: [quotas(api, place, whose)]),
        ]

    def of(each: tuple[str, str, tuple[str, ...], str]) -> Check:
        return Check(each[0], lambda: [extension(api, *each)])

    routes = [Check("HTTPRoute", lambda: [route(api, settings, namespace)])] if settings.http_route else []
    return [
        Check("login", lambda: [login(api)]),
        *(check for place in places.items() for check in about(*place)),
        *map(of, extensions(settings)),
        *routes,
    ]
