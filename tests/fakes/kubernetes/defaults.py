"""What the API server fills in (pkg/apis/*/v1/defaults.go), for the kinds whose defaults a client meets."""

from typing import Any

Json = dict[str, Any]


def fill(thing: Json) -> None:
    """Fills defaults in place."""
    made = _BY_KIND.get((thing["apiVersion"].split("/")[0], thing["kind"]))
    if made:
        made(thing)


def _default(where: Json, **values: Any) -> None:
    for key, value in values.items():
        if key not in where:
            where[key] = value


def _deployment(thing: Json) -> None:
    spec = thing.setdefault("spec", {})
    _default(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    _default(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _default(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _replica_set(thing: Json) -> None:
    spec = thing.setdefault("spec", {})
    _default(spec, replicas=1)
    _template(spec)


def _template(spec: Json) -> None:
    template = spec.get("template", {})
    if "spec" in template:
        _pod_spec(template["spec"])


def _pod(thing: Json) -> None:
    _pod_spec(thing.setdefault("spec", {}))
    _default(thing["spec"], enableServiceLinks=True)


def _pod_spec(spec: Json) -> None:
    _default(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if "serviceAccountName" in spec:
        _default(spec, serviceAccount=spec["serviceAccountName"])
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        _container(container)
    for volume in spec.get("volumes", ()):
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if source in volume:
                _default(volume[source], defaultMode=420)
        if volume.keys() == {"name"}:
            volume["emptyDir"] = {}
        for source in volume.get("projected", {}).get("sources", ()):
            if "serviceAccountToken" in source:
                _default(source["serviceAccountToken"], expirationSeconds=3600)
    for each in spec.get("ephemeralContainers", ()):
        _container(each)


def _container(container: Json) -> None:
    _default(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if _latest(container.get("image", "")) else "IfNotPresent",
    )
    for port in container.get("ports", ()):
        _default(port, protocol="TCP")
    limits = container["resources"].get("limits", {})
    if limits:
        container["resources"]["requests"] = {**limits, **container["resources"].get("requests", {})}
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])
    for hook in container.get("lifecycle", {}).values():
        if isinstance(hook, dict) and "httpGet" in hook:
            _default(hook["httpGet"], path="/", scheme="HTTP")
    for variable in container.get("env", ()):
        if "fieldRef" in variable.get("valueFrom", {}):
            _default(variable["valueFrom"]["fieldRef"], apiVersion="v1")


def _probe(probe: Json) -> None:
    _default(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if "httpGet" in probe:
        _default(probe["httpGet"], path="/", scheme="HTTP")


def _latest(image: str) -> bool:
    last = image.rsplit("/", 1)[-1]
    return "@" not in last and (":" not in last or last.endswith(":latest"))


def _service(thing: Json) -> None:
    spec = thing.setdefault("spec", {})
    _default(spec, type="ClusterIP", sessionAffinity="None")
    for port in spec.get("ports", ()):
        _default(port, protocol="TCP", targetPort=port["port"])
        if port["targetPort"] in (0, ""):
            port["targetPort"] = port["port"]
    if spec["type"] != "ExternalName":
        _default(spec, internalTrafficPolicy="Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _default(spec, externalTrafficPolicy="Cluster")


def _autoscaler(thing: Json) -> None:
    spec = thing.setdefault("spec", {})
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    _default(spec, minReplicas=1, metrics=[{"type": "Resource", "resource": cpu}])
    for name, policies in (
        ("scaleUp", [("Pods", 4), ("Percent", 100)]),
        ("scaleDown", [("Percent", 100)]),
    ):
        if "behavior" in spec:
            rules = spec["behavior"].setdefault(name, {})
            _default(
                rules,
                selectPolicy="Max",
                policies=[{"type": kind, "value": value, "periodSeconds": 15} for kind, value in policies],
            )
            if name == "scaleUp":
                _default(rules, stabilizationWindowSeconds=0)


def _secret(thing: Json) -> None:
    _default(thing, type="Opaque")


def _namespace(thing: Json) -> None:
    thing["metadata"].setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", thing["metadata"]["name"])
    _default(thing, spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})


def _network_policy(thing: Json) -> None:
    spec = thing.setdefault("spec", {})
    _default(spec, policyTypes=["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]:
        for port in rule.get("ports", ()):
            _default(port, protocol="TCP")


def _binding(thing: Json) -> None:
    _default(thing.get("roleRef", {}), apiGroup="rbac.authorization.k8s.io")
    for subject in thing.get("subjects", ()):
        if subject.get("kind") in ("User", "Group"):
            _default(subject, apiGroup="rbac.authorization.k8s.io")


_BY_KIND = {
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("v1", "Pod"): _pod,
    ("v1", "Service"): _service,
    ("v1", "Secret"): _secret,
    ("v1", "Namespace"): _namespace,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("rbac.authorization.k8s.io", "RoleBinding"): _binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _binding,
}
