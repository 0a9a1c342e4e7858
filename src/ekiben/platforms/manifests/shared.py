"""What both colours of a service share: Services, who may connect, who watches.

The selector of a Service, and the epoch, belong to the switch alone. Server-side apply puts back what its own manager
once wrote: so Services are *created* with a selector, once, and every apply leaves it out.
"""

from urllib.parse import urlsplit

from ekiben.platforms.manifests import promql
from ekiben.platforms.manifests.names import EPOCH, PORT, PORT_NAME, SERVICE, SERVICE_PORT, SLOT, Manifest, Target
from ekiben.types import Slot, other

_SCRAPE = {"ekiben.dev/scrape": "true"}


def services(target: Target) -> list[Manifest]:
    """The active and the preview Service as every apply has them: without selector and epoch."""
    return [_service(target, target.name), _service(target, target.preview)]


def first_services(target: Target, live: Slot = "blue") -> list[Manifest]:
    """The same Services for their creation (POST, `kubectl create`), never for an apply."""
    active, preview = services(target)
    active["metadata"]["annotations"] = {EPOCH: "0"}
    active["spec"]["selector"] = target.selector(live)
    preview["spec"]["selector"] = target.selector(other(live))
    return [active, preview]


def _service(target: Target, name: str) -> Manifest:
    port = {"name": PORT_NAME, "port": SERVICE_PORT, "targetPort": PORT_NAME, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": target.metadata(name),
        "spec": {"type": "ClusterIP", "ports": [port]},
    }


def network_policy(target: Target) -> Manifest:
    """Who may connect to the pods, and where they may: to W&B only where they may have a bundle to fetch."""
    network = target.settings.network
    sources: list[Manifest] = [{"podSelector": {}}]
    if network.from_namespaces:
        names = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(network.from_namespaces)}
        sources.append({"namespaceSelector": {"matchExpressions": [names]}})
    sources += [{"ipBlock": {"cidr": cidr}} for cidr in network.from_addresses]
    egress: list[Manifest] = [{"ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]}]
    if target.settings.runtime_image:
        address = urlsplit(target.settings.wandb_base_url)
        port = address.port or (443 if address.scheme == "https" else 80)
        # W&B's cloud gives files out from storage of its own, by HTTPS.
        egress.append({"ports": [{"port": number, "protocol": "TCP"} for number in sorted({443, port})]})
        if space := _space_of(address.hostname or "", target.settings.namespace):
            # Policies see the ports of pods, which a Service's need not be.
            own = {"matchLabels": {"kubernetes.io/metadata.name": space}}
            egress.append({"to": [{"namespaceSelector": own}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": target.metadata(target.name),
        "spec": {
            "podSelector": {"matchLabels": target.selector()},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": sources, "ports": [{"port": PORT, "protocol": "TCP"}]}],
            "egress": [{}] if network.egress else egress,
        },
    }


def _space_of(host: str, own: str) -> str:
    """The namespace of a Service's name in the cluster; '' for any other host."""
    name, *rest = host.split(".")
    if not rest:
        return own if name != "localhost" else ""
    return rest[0] if rest[1:2] == ["svc"] else ""


def monitoring(target: Target) -> list[Manifest]:
    """A Service of all pods, ready or not, that only Prometheus uses; its ServiceMonitor, and alerts.

    The active and the preview Service would not do: while they select the same pods, those would be counted twice.
    """
    pods = _service(target, target.scraped)
    pods["metadata"]["labels"] |= _SCRAPE
    pods["spec"] |= {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": target.selector()}
    found = target.metadata(target.name)
    found = {**found, "labels": {**target.settings.monitor_labels, **found["labels"]}}
    monitor: Manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": found,
        "spec": {
            "selector": {"matchLabels": {SERVICE: target.name, **_SCRAPE}},
            "podTargetLabels": [SLOT],
            "endpoints": [{"port": PORT_NAME, "path": "/metrics", "interval": "15s", "scrapeTimeout": "10s"}],
        },
    }
    rules: Manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": found,
        "spec": {"groups": [{"name": f"ekiben.{target.name}", "rules": _alerts(target)}]},
    }
    return [pods, monitor, rules]


def _alerts(target: Target) -> list[Manifest]:
    watch, name = target.settings.watch, target.service
    return [
        _alert(
            target,
            "EkibenErrors",
            f"{promql.error_share(target)} > {watch.error_percent / 100:g}",
            f"More than {watch.error_percent:g} % of the requests to {name} {{{{ $labels.service_version }}}} fail",
        ),
        _alert(
            target,
            "EkibenSlow",
            f"{promql.p99(target)} > {watch.p99_ms / 1000:g}",
            f"p99 of {name} {{{{ $labels.service_version }}}} is above {watch.p99_ms:g} ms",
        ),
        _alert(target, "EkibenNotScraped", promql.scraped(target), f"No metrics of {name}: nobody can tell how it is"),
    ]


def _alert(target: Target, alert: str, expr: str, summary: str) -> Manifest:
    labels = {"severity": "critical", "ekiben_service": target.name}
    then = {"summary": summary, "description": f"ekiben status {target.service} --env {target.environment}"}
    return {"alert": alert, "expr": expr, "for": "5m", "labels": labels, "annotations": then}
