"""What an API server would refuse, or what would quietly not work, found offline.

Types and unknown keys by kubernetes-validate's strict schemas; here what those do not see: enumerations, names,
labels, quantities, references between objects, probes against the grace period, the restricted Pod Security profile.
"""

import re
from functools import cache
from typing import Any

import jsonschema
from kubernetes_validate import utils
from referencing import Registry, Resource

Manifest = dict[str, Any]
OLDEST, NEWEST = "1.30.0", utils.latest_version()

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
ENUMS = {
    "whenUnsatisfiable": {"ScheduleAnyway", "DoNotSchedule"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "policyTypes": {"Ingress", "Egress"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "operator": {"Exists", "Equal", "In", "NotIn", "DoesNotExist"},
}
TYPES = {  # of a `type` key, by the key that holds it
    "spec": {"ClusterIP"}, "strategy": {"RollingUpdate", "Recreate"}, "seccompProfile": {"RuntimeDefault", "Localhost"},
    "metrics": {"ContainerResource", "Pods", "Resource"}, "target": {"Utilization", "AverageValue", "Value"},
    "triggers": {"prometheus"},
}  # fmt: skip
VERBS = {"get", "list", "watch", "create", "patch"}

TEXT, WHOLE, FLAG = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def _object(required: str = "", **properties: Any) -> Manifest:
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


def _list(items: Manifest) -> Manifest:
    return {"type": "array", "items": items, "minItems": 1}


_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_SECONDS = {"type": "string", "pattern": "^[0-9]+[smh]$"}
# Of the custom resources, the part that is used here, from the documentation of KEDA 2.16 and Prometheus operator 0.84.
CUSTOM = {
    "ScaledObject": ("keda.sh/v1alpha1", _object(
        "scaleTargetRef minReplicaCount maxReplicaCount triggers",
        scaleTargetRef=_object("name", apiVersion=TEXT, kind=TEXT, name=TEXT), minReplicaCount=WHOLE,
        maxReplicaCount=WHOLE, pollingInterval=WHOLE, cooldownPeriod=WHOLE,
        fallback=_object("failureThreshold replicas", failureThreshold=WHOLE, replicas=WHOLE,
                         behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher",
                                            "currentReplicasIfLower"]}),
        triggers=_list(_object("type metadata", type=TEXT, metricType={"enum": ["AverageValue", "Value"]},
                               metadata=_TEXTS)))),
    "ServiceMonitor": ("monitoring.coreos.com/v1", _object(
        "selector endpoints", selector=_object("matchLabels", matchLabels=_TEXTS), podTargetLabels=_list(TEXT),
        endpoints=_list(_object("port", port=TEXT, path=TEXT, interval=_SECONDS, scrapeTimeout=_SECONDS)))),
    "PrometheusRule": ("monitoring.coreos.com/v1", _object(
        "groups", groups=_list(_object("name rules", name=TEXT, rules=_list(_object(
            "alert expr", alert=TEXT, expr=TEXT, **{"for": _SECONDS}, labels=_TEXTS, annotations=_TEXTS)))))),
}  # fmt: skip


@cache
def _schema(kind: str, api_version: str, version: str) -> Any:
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = utils.schema_contents(f"{folder}/{kind.lower()}-{short}.json", version)
    definitions = Resource.from_contents(utils.schema_contents(f"{folder}/_definitions.json", version))
    registry: Any = definitions @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _custom(kind: str) -> Any:
    return jsonschema.Draft202012Validator(CUSTOM[kind][1])


def check(manifests: list[Manifest]) -> None:
    """AssertionError or jsonschema's ValidationError for the first thing that is wrong with a service's objects."""
    ids = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(ids) == len(set(ids)), "two objects of one name"
    for manifest in manifests:
        _check_schema(manifest)
        _check_metadata(manifest)
        _walk(manifest, manifest["kind"])
    of = {kind: [m for m in manifests if m["kind"] == kind] for kind, _ in ids}
    for deployment in of.get("Deployment", []):
        check_deployment(deployment)
    _check_references(of)
    for role in of.get("Role", []):
        check_role(role)


def _check_schema(manifest: Manifest) -> None:
    if manifest["kind"] in CUSTOM:
        assert manifest["apiVersion"] == CUSTOM[manifest["kind"]][0]
        assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
        _custom(manifest["kind"]).validate(manifest["spec"])
        return
    for version in (OLDEST, NEWEST):
        _schema(manifest["kind"], manifest["apiVersion"], version).validate(manifest)


def _check_metadata(manifest: Manifest) -> None:
    metadata = manifest["metadata"]
    pattern = DNS_LABEL if manifest["kind"] == "Service" else NAME
    assert pattern.fullmatch(metadata["name"]), metadata["name"]
    assert len(metadata["name"]) <= 253
    assert DNS_LABEL.fullmatch(metadata["namespace"]) or metadata["namespace"][0].isdigit()
    _check_labels(metadata["labels"])
    for key in metadata.get("annotations", {}):
        assert LABEL_KEY.fullmatch(key), key


def _check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        assert LABEL_KEY.fullmatch(key), key
        assert LABEL_VALUE.fullmatch(value), f"{key}={value}"


def _walk(value: Any, holder: str) -> None:
    """Enumerations, quantities and label maps, wherever they stand."""
    for item in value if isinstance(value, list) else []:
        _walk(item, holder)
    for key, inner in value.items() if isinstance(value, dict) else []:
        if key in ENUMS and not isinstance(inner, dict):
            given = set(inner) if isinstance(inner, list) else {inner}
            assert given <= ENUMS[key], f"{key}: {inner}"
        if key == "type" and isinstance(inner, str) and holder in TYPES:
            assert inner in TYPES[holder], f"{holder}.type: {inner}"
        if key in ("matchLabels", "nodeSelector"):
            _check_labels(inner)
        if key in ("requests", "limits"):
            assert all(QUANTITY.fullmatch(quantity) for quantity in inner.values()), inner
        if key == "sizeLimit":
            assert QUANTITY.fullmatch(inner), inner
        _walk(inner, key)


def check_deployment(deployment: Manifest) -> None:
    spec = deployment["spec"]
    template = spec["template"]
    pod = template["spec"]
    _check_labels(template["metadata"]["labels"])
    selector = spec["selector"]["matchLabels"]
    assert selector
    assert selector.items() <= template["metadata"]["labels"].items(), "the Deployment does not select its own pods"
    for constraint in pod["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    check_restricted(pod)
    check_end(pod)
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, "a read-only root needs /tmp"
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in (container.get(f"{kind}Probe") for kind in ("startup", "readiness", "liveness")):
            assert probe is None or probe["httpGet"]["port"] in ports
        secrets = [secret["name"] for secret in pod.get("imagePullSecrets", [])]
        assert len(secrets) == len(set(secrets)), "server-side apply refuses the same key twice"
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names)), "a variable twice"
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests["memory"] == limits["memory"]
        assert {key for key in requests if "/" in key} == {key for key in limits if "/" in key}
    assert spec["progressDeadlineSeconds"] > pod["containers"][0]["startupProbe"]["failureThreshold"]


def check_end(pod: Manifest) -> None:
    """A longer preStop than the grace period is refused; and a request in flight must fit between."""
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 2 <= sleep < pod["terminationGracePeriodSeconds"]


def check_restricted(pod: Manifest) -> None:
    """The restricted profile of the Pod Security Standards, and what makes it checkable: a numeric user."""
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    whole = pod["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        own = container.get("securityContext", {})
        assert own.get("allowPrivilegeEscalation") is False
        assert own.get("readOnlyRootFilesystem") is True
        assert own.get("capabilities") == {"drop": ["ALL"]}
        assert not own.get("privileged")
        assert all("hostPort" not in port for port in container.get("ports", []))
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(volume.keys() - {"name"} <= allowed for volume in pod["volumes"])


def _check_references(of: dict[str, list[Manifest]]) -> None:
    names = {kind: {m["metadata"]["name"] for m in found} for kind, found in of.items()}
    pods = [m["spec"]["template"]["metadata"]["labels"] for m in of.get("Deployment", [])]
    numbers = {
        port["name"]: port["containerPort"]
        for m in of.get("Deployment", [])
        for port in m["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    ports = set(numbers)
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in of.get(kind, []):
            spec = scaler["spec"]
            assert spec["scaleTargetRef"]["kind"] == "Deployment"
            least, most = (
                spec.get("minReplicas", spec.get("minReplicaCount")),
                spec.get("maxReplicas", spec.get("maxReplicaCount")),
            )
            assert 1 <= least <= most, "an autoscaler must not take the live colour to 0"
            if "Deployment" in of:
                assert spec["scaleTargetRef"]["name"] in names["Deployment"]
                target = next(m for m in of["Deployment"] if m["metadata"]["name"] == spec["scaleTargetRef"]["name"])
                assert "replicas" not in target["spec"], "an apply would set back what the autoscaler has set"
    if "Deployment" not in of:
        return
    for budget in of.get("PodDisruptionBudget", []):
        selector = budget["spec"]["selector"]["matchLabels"].items()
        assert sum(selector <= labels.items() for labels in pods) == 1
    for policy in of.get("NetworkPolicy", []):
        selector = policy["spec"]["podSelector"]["matchLabels"].items()
        assert all(selector <= labels.items() for labels in pods)
        open_ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert open_ports <= set(numbers.values()), "by number: not every CNI knows names"
    for service in of.get("Service", []):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        if selector := service["spec"].get("selector"):
            assert any(selector.items() <= labels.items() for labels in pods)
    for monitor in of.get("ServiceMonitor", []):
        selected = monitor["spec"]["selector"]["matchLabels"].items()
        found = [m for m in of["Service"] if selected <= m["metadata"]["labels"].items()]
        assert len(found) == 1, "pods must be scraped once"
        assert {e["port"] for e in monitor["spec"]["endpoints"]} <= {port["name"] for port in found[0]["spec"]["ports"]}
    if "ServiceAccount" in of:
        assert {m["spec"]["template"]["spec"]["serviceAccountName"] for m in of["Deployment"]} <= names[
            "ServiceAccount"
        ]
        for binding in of.get("RoleBinding", []):
            assert binding["roleRef"]["name"] in names["Role"]
            assert {subject["name"] for subject in binding["subjects"]} <= names["ServiceAccount"]


def check_role(role: Manifest) -> None:
    """No wildcard, nothing secret, nothing that gives rights; whatever is changed is named."""
    for rule in role["rules"]:
        assert set(rule["verbs"]) <= VERBS
        assert not {"*", "secrets", "roles", "rolebindings", "serviceaccounts", "configmaps", "nodes"} & set(
            rule["resources"]
        )
        assert "*" not in rule["apiGroups"]
        assert "patch" not in rule["verbs"] or rule.get("resourceNames"), rule
        assert not ({"create", "list", "watch"} & set(rule["verbs"]) and rule.get("resourceNames")) or (
            rule["resources"] == ["services/proxy"]
        ), f"names do not limit these verbs: {rule}"
