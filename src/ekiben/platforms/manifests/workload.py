"""One colour of a service: its Deployment, and what sizes and protects it."""

from ekiben.platforms.manifests import pod
from ekiben.platforms.manifests.names import CONTAINER, Delivery, Manifest, Target, lineage, story
from ekiben.platforms.manifests.promql import IN_PROGRESS, in_progress
from ekiben.types import Release, Slot

_IMAGE_PULL_SECONDS = 600  # and to find a node for it


def deployment(target: Target, slot: Slot, delivery: Delivery, release: Release | None = None) -> Manifest:
    """The Deployment of that colour. Where an autoscaler sizes it, it has no `replicas`: an apply must not set it back.

    A `release` is told in annotations, which restart no pod.
    """
    settings = target.settings
    annotations = lineage(delivery) | (story(release) if release else {})
    sized = {"replicas": settings.replicas.min} if settings.autoscaling.kind == "none" else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": target.metadata(target.of(slot), slot) | {"annotations": annotations},
        "spec": {
            **sized,
            "selector": {"matchLabels": target.selector(slot)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "progressDeadlineSeconds": settings.start_seconds + _IMAGE_PULL_SECONDS,
            "revisionHistoryLimit": 2,
            "template": pod.template(target, slot, delivery),
        },
    }


def autoscaler(target: Target, slot: Slot, floor: int = 0) -> Manifest | None:
    """What sizes that colour: an HPA, a KEDA ScaledObject, or nothing.

    `floor` holds it at no fewer pods than the live colour has, while it is to take over; 0: the environment's `min`.
    """
    settings = target.settings
    scaling, least = settings.autoscaling, max(floor, settings.replicas.min)
    most = max(floor, settings.replicas.max)
    if scaling.kind == "none":
        return None
    if scaling.kind == "keda":
        return _scaled_object(target, slot, least, most)
    metric: Manifest = {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": CONTAINER,
            "target": {"type": "Utilization", "averageUtilization": scaling.target_or_default},
        },
    }
    if scaling.kind == "in-progress":
        average = {"type": "AverageValue", "averageValue": str(scaling.target_or_default)}
        metric = {"type": "Pods", "pods": {"metric": {"name": IN_PROGRESS}, "target": average}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": target.metadata(target.of(slot), slot),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target.of(slot)},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [metric],
        },
    }


def _scaled_object(target: Target, slot: Slot, least: int, most: int) -> Manifest:
    """Never to zero by itself: the live colour must not go there. The deployer pauses the idle one at 0 (PAUSED)."""
    settings = target.settings
    trigger = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": settings.prometheus,
            "query": in_progress(target, slot),
            "threshold": str(settings.autoscaling.target_or_default),
            "ignoreNullValues": "false",  # no data is no reason to scale down
        },
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": target.metadata(target.of(slot), slot),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target.of(slot)},
            "minReplicaCount": least,
            "maxReplicaCount": most,
            "pollingInterval": 15,
            "cooldownPeriod": 300,
            "fallback": {"failureThreshold": 3, "replicas": least, "behavior": "currentReplicasIfHigher"},
            "triggers": [trigger],
        },
    }


def disruption_budget(target: Target, slot: Slot) -> Manifest:
    """Nodes are drained one pod of a colour at a time; a pod that is not ready protects nobody."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": target.metadata(target.of(slot), slot),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": target.selector(slot)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
