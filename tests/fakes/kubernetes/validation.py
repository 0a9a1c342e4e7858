"""What the API server refuses with 422, for the kinds and mistakes that a deployer meets (pkg/apis/*/validation)."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.fakes.kubernetes.schema import Mistake, quantity
from tests.fakes.kubernetes.selectors import matches
from tests.fakes.kubernetes.statuses import cause

Json = dict[str, Any]
Causes = Iterator[dict[str, str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SERVICE_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"
_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

_SAY_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_SAY_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SAY_SERVICE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_SERVICE_NAME}')"
)
_SAY_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)
_SAY_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_KEY}')"
)


def shown(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)


def bad(field: str, value: Any, message: str) -> dict[str, str]:
    return cause("Invalid", field, f"Invalid value: {shown(value)}: {message}")


def missing(field: str, message: str = "") -> dict[str, str]:
    return cause("Required", field, f"Required value: {message}" if message else "Required value")


def refused(field: str, message: str) -> dict[str, str]:
    return cause("Forbidden", field, f"Forbidden: {message}")


def one_of(field: str, value: Any, *supported: str) -> Causes:
    if value not in supported:
        listed = ", ".join(f'"{each}"' for each in sorted(supported))
        yield cause("NotSupported", field, f"Unsupported value: {shown(value)}: supported values: {listed}")


def _at_least(field: str, value: Any, least: int) -> Causes:
    if value is not None and value < least:
        yield bad(field, value, f"must be greater than or equal to {least}")


def validate(new: Json, old: Json | None) -> list[dict[str, str]]:
    """The causes for which the object is invalid; none for a valid one."""
    causes = list(_metadata(new))
    of_kind = _BY_KIND.get(new["kind"])
    if of_kind:
        causes += of_kind(new, old)
    return causes


def _metadata(thing: Json) -> Causes:
    metadata, kind = thing["metadata"], thing["kind"]
    name = metadata.get("name", "")
    if not name:
        yield missing("metadata.name", "name or generateName is required")
    elif kind == "Service":
        if not re.fullmatch(_SERVICE_NAME, name):
            yield bad("metadata.name", name, _SAY_SERVICE)
    elif kind == "Namespace":
        if not re.fullmatch(_LABEL, name):
            yield bad("metadata.name", name, _SAY_LABEL)
    elif "Role" not in kind and not re.fullmatch(_SUBDOMAIN, name):
        yield bad("metadata.name", name, _SAY_SUBDOMAIN)
    longest = 63 if kind in ("Service", "Namespace") else 253
    if len(name) > longest:
        yield cause("TooLong", "metadata.name", f"Too long: may not be more than {longest} bytes")
    yield from _labels(metadata.get("labels", {}), "metadata.labels")
    for key in metadata.get("annotations", {}):
        if not re.fullmatch(rf"({_SUBDOMAIN}/)?{_KEY}", key.lower()):
            yield bad("metadata.annotations", key, _SAY_KEY)
    if sum(len(k.encode()) + len(v.encode()) for k, v in metadata.get("annotations", {}).items()) > 256 * 1024:
        yield cause("TooLong", "metadata.annotations", "Too long: may not be more than 262144 bytes")


def _labels(labels: Json, field: str) -> Causes:
    for key, value in labels.items():
        if not re.fullmatch(rf"({_SUBDOMAIN}/)?{_KEY}", key):
            yield bad(field, key, _SAY_KEY)
        if len(value) > 63:
            yield bad(field, value, "must be no more than 63 bytes")
        elif not re.fullmatch(_VALUE, value):
            yield bad(field, value, _SAY_VALUE)


def _deployment(new: Json, old: Json | None) -> Causes:
    spec = new["spec"]
    yield from _replicated(spec, old)
    yield from _at_least("spec.minReadySeconds", spec.get("minReadySeconds"), 0)
    if spec["progressDeadlineSeconds"] <= spec.get("minReadySeconds", 0):
        yield bad(
            "spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], "must be greater than minReadySeconds"
        )
    strategy = spec["strategy"]
    yield from one_of("spec.strategy.type", strategy["type"], "Recreate", "RollingUpdate")
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling is not None:
        yield refused("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    elif rolling and rolling["maxUnavailable"] in (0, "0%") and rolling["maxSurge"] in (0, "0%"):
        at = "spec.strategy.rollingUpdate.maxUnavailable"
        yield bad(at, rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0")


def _replicated(spec: Json, old: Json | None) -> Causes:
    yield from _at_least("spec.replicas", spec["replicas"], 0)
    selector, template = spec.get("selector"), spec.get("template", {})
    labels = template.get("metadata", {}).get("labels", {})
    if selector is None:
        yield missing("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield bad("spec.selector", selector, "empty selector is invalid for deployment")
    elif not matches(selector, labels):
        at = "spec.template.metadata.labels"
        yield bad(at, labels, "`selector` does not match template `labels`")
    if old is not None and selector != old["spec"]["selector"]:
        yield bad("spec.selector", selector, "field is immutable")
    yield from _labels(labels, "spec.template.labels")
    yield from _pod_spec(template.get("spec", {}), "spec.template.spec", template=True)


def _pod_spec(spec: Json, at: str, template: bool = False) -> Causes:
    if not spec.get("containers"):
        yield missing(f"{at}.containers")
    if template and spec.get("restartPolicy", "Always") != "Always":
        yield from one_of(f"{at}.restartPolicy", spec["restartPolicy"], "Always")
    volumes = {each.get("name") for each in spec.get("volumes", ())}
    names: set[str] = set()
    grace = spec.get("terminationGracePeriodSeconds", 30)
    for part in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(part, ())):
            here = f"{at}.{part}[{index}]"
            yield from _container(container, here, volumes, grace)
            if container.get("name") in names:
                yield cause("Duplicate", f"{here}.name", f"Duplicate value: {shown(container['name'])}")
            names.add(container.get("name", ""))


def _container(container: Json, at: str, volumes: set[Any], grace: int) -> Causes:
    if not container.get("name"):
        yield missing(f"{at}.name")
    elif not re.fullmatch(_LABEL, container["name"]):
        yield bad(f"{at}.name", container["name"], _SAY_LABEL)
    if not container.get("image"):
        yield missing(f"{at}.image")
    yield from one_of(f"{at}.imagePullPolicy", container["imagePullPolicy"], "Always", "IfNotPresent", "Never")
    for index, port in enumerate(container.get("ports", ())):
        yield from _port(f"{at}.ports[{index}].containerPort", port.get("containerPort"))
        yield from one_of(f"{at}.ports[{index}].protocol", port["protocol"], "SCTP", "TCP", "UDP")
        if len(port.get("name", "")) > 15:
            yield bad(f"{at}.ports[{index}].name", port["name"], "must be no more than 15 characters")
    for index, variable in enumerate(container.get("env", ())):
        if not variable.get("name"):
            yield missing(f"{at}.env[{index}].name")
    for index, mount in enumerate(container.get("volumeMounts", ())):
        if mount.get("name") not in volumes:
            yield cause("NotFound", f"{at}.volumeMounts[{index}].name", f"Not found: {shown(mount.get('name'))}")
    limits = container["resources"].get("limits", {})
    for name, value in container["resources"].get("requests", {}).items():
        if name in limits and quantity(value) > quantity(limits[name]):
            message = f"must be less than or equal to {name} limit of {limits[name]}"
            yield bad(f"{at}.resources.requests", value, message)
    for name in ("livenessProbe", "startupProbe"):
        if container.get(name, {}).get("successThreshold", 1) != 1:
            yield bad(f"{at}.{name}.successThreshold", container[name]["successThreshold"], "must be 1")
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep")
    if sleep is not None and not 0 <= sleep["seconds"] < grace:
        message = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        yield bad(f"{at}.lifecycle.preStop.sleep", sleep["seconds"], message)


def _port(field: str, value: Any) -> Causes:
    if value is None:
        yield missing(field)
    elif not 1 <= value <= 65535:
        yield bad(field, value, "must be between 1 and 65535, inclusive")


def _pod(new: Json, old: Json | None) -> Causes:
    if old is None:
        yield from _pod_spec(new["spec"], "spec")


def _service(new: Json, old: Json | None) -> Causes:
    spec = new["spec"]
    ports = spec.get("ports", ())
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        yield missing("spec.ports")
    yield from one_of("spec.type", spec["type"], "ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    yield from _labels(spec.get("selector", {}), "spec.selector")
    seen = set()
    for index, port in enumerate(ports):
        yield from _port(f"spec.ports[{index}].port", port.get("port"))
        yield from one_of(f"spec.ports[{index}].protocol", port["protocol"], "SCTP", "TCP", "UDP")
        if len(ports) > 1 and not port.get("name"):
            yield missing(f"spec.ports[{index}].name")
        if (key := (port.get("port"), port["protocol"])) in seen:
            yield cause("Duplicate", f"spec.ports[{index}]", f"Duplicate value: {shown(port)}")
        seen.add(key)
    before = (old or {}).get("spec", {}).get("clusterIP")
    if before and spec.get("clusterIP") != before:
        yield bad("spec.clusterIPs[0]", [spec.get("clusterIP", "")], "may not change once set")


def _autoscaler(new: Json, old: Json | None) -> Causes:
    spec = new["spec"]
    for name in ("kind", "name"):
        if not spec.get("scaleTargetRef", {}).get(name):
            yield missing(f"spec.scaleTargetRef.{name}")
    yield from _at_least("spec.minReplicas", spec["minReplicas"], 1)
    most = spec.get("maxReplicas", 0)
    if most < 1:
        yield bad("spec.maxReplicas", most, "must be greater than 0")
    elif most < spec["minReplicas"]:
        yield bad("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")


def _disruption_budget(new: Json, old: Json | None) -> Causes:
    if "minAvailable" in new["spec"] and "maxUnavailable" in new["spec"]:
        yield bad("spec", new["spec"], "minAvailable and maxUnavailable cannot be both set")


def _binding(new: Json, old: Json | None) -> Causes:
    if old is not None and new["roleRef"] != old["roleRef"]:
        yield bad("roleRef", new["roleRef"], "cannot change roleRef")


def _quota(new: Json, old: Json | None) -> Causes:
    for name, value in new["spec"].get("hard", {}).items():
        try:
            quantity(value)
        except Mistake as error:
            yield bad(f"spec.hard[{name}]", value, str(error))


_BY_KIND: dict[str, Callable[[Json, Json | None], Causes]] = {
    "Deployment": _deployment,
    "ReplicaSet": lambda new, old: _replicated(new["spec"], old),
    "Pod": _pod,
    "Service": _service,
    "HorizontalPodAutoscaler": _autoscaler,
    "PodDisruptionBudget": _disruption_budget,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "ResourceQuota": _quota,
}
