"""The pod that serves a Bento: confined as the restricted Pod Security profile wants it, and ended in good order."""

from collections.abc import Sequence

from ekiben.environments import Environment
from ekiben.errors import UsageError
from ekiben.platforms.manifests.names import (
    CONTAINER,
    PORT,
    PORT_NAME,
    Delivery,
    Manifest,
    Target,
    bento_of,
    label_value,
    lineage,
)
from ekiben.types import BentoRef, ImageRef, Slot

USER = 10001
PRE_STOP_SECONDS = 5
"""How long a pod that is to end goes on as ever, until nobody sends to it any more. Measured: 2 s are enough."""
SPARE_SECONDS = 10  # for the service's own drain and the end of its process
BUNDLE = "/bundle"
FETCH_MEMORY = "512Mi"

_CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_ENV = {
    "HOME": "/tmp",
    "BENTOML_HOME": "/tmp/bh",
    "BENTOML_DO_NOT_TRACK": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def template(target: Target, slot: Slot, delivery: Delivery) -> Manifest:
    """The pod template. It holds nothing but what was asked for, so that the same release never restarts a pod."""
    settings = target.settings
    version = {"app.kubernetes.io/version": label_value(bento_of(delivery).version)}
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {"sizeLimit": settings.resources.scratch}}]
    spec: Manifest = {
        "serviceAccountName": target.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + settings.longest_request_seconds + SPARE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": target.selector(slot)},
                "matchLabelKeys": ["pod-template-hash"],
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "containers": [_server(settings, delivery)],
        "volumes": volumes,
    }
    if isinstance(delivery, BentoRef):
        spec["initContainers"] = [_fetcher(settings, delivery)]
        volumes.append({"name": "bundle", "emptyDir": {}})
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in dict.fromkeys(settings.image_pull_secrets)]
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    if tolerations := _tolerations(settings):
        spec["tolerations"] = tolerations
    labels = target.labels(slot) | version
    return {"metadata": {"labels": labels, "annotations": lineage(delivery)}, "spec": spec}


def _server(settings: Environment, delivery: Delivery) -> Manifest:
    bundle = isinstance(delivery, BentoRef)
    resources, ready = settings.resources, {"httpGet": {"path": "/readyz", "port": PORT_NAME}}
    requests: Manifest = {"cpu": resources.cpu, "memory": resources.memory}
    limits = _limits(settings, resources.memory)
    if resources.gpu:
        requests[resources.gpu_resource] = limits[resources.gpu_resource] = str(resources.gpu)
    serve = ["python", "-m", "bentoml", "serve", f"{BUNDLE}/bento", "--host", "0.0.0.0", "--port", str(PORT)]
    return {
        "name": CONTAINER,
        "image": _runtime(settings, delivery),
        **_pulled(settings),
        **({"command": serve} if bundle else {}),
        "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
        "env": _env({**_ENV, **settings.env}),
        "resources": {"requests": requests, "limits": limits},
        "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": settings.start_seconds},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 2},
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": PORT_NAME},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "securityContext": _CONFINED,
        "volumeMounts": _mounts(*([{"name": "bundle", "mountPath": BUNDLE, "readOnly": True}] if bundle else [])),
    }


def _limits(settings: Environment, memory: str) -> Manifest:
    """Each container has a CPU limit, or none: a quota of limits.cpu wants one of each."""
    limit = settings.resources.cpu_limit
    return {"memory": memory} | ({"cpu": limit} if limit else {})


def _runtime(settings: Environment, delivery: Delivery) -> str:
    if isinstance(delivery, ImageRef):
        return f"{delivery.repository}:{delivery.bento.version}" if settings.image_by == "tag" else str(delivery)
    if not settings.runtime_image:
        raise UsageError(
            f"{delivery} comes as a bundle, but the environment has no runtime image to serve it",
            wanted="an image with BentoML and the service's packages",
            next_step="set runtime_image in the environment's table in pyproject.toml, or deploy an image with --image",
        )
    return settings.runtime_image


def _pulled(settings: Environment) -> Manifest:
    return {"imagePullPolicy": settings.image_pull_policy} if settings.image_pull_policy else {}


def _fetcher(settings: Environment, bento: BentoRef) -> Manifest:
    """Brings the published Bento, and ends with an error unless its content digest is the one that is named here."""
    model, resources = bento.model, settings.resources
    exact = f"{model.entity}/{model.project}/{bento.tag}@{bento.digest}"
    key = {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": settings.wandb_secret, "key": "api-key"}}}
    # What it brings is there twice for a while, in a volume that has no limit: beyond `scratch` the pod is evicted.
    env = _env({"HOME": "/tmp", "TMPDIR": BUNDLE, "WANDB_BASE_URL": settings.wandb_base_url})
    return {
        "name": "fetch",
        "image": settings.fetch_image or settings.runtime_image,
        **_pulled(settings),
        "command": ["ekiben", "pull", "--bento", exact, "--into", f"{BUNDLE}/bento"],
        "env": [*env, key],
        "resources": {
            "requests": {"cpu": resources.cpu, "memory": FETCH_MEMORY},
            "limits": _limits(settings, FETCH_MEMORY),
        },
        "securityContext": _CONFINED,
        "volumeMounts": _mounts({"name": "bundle", "mountPath": BUNDLE}),
    }


def _mounts(*more: Manifest) -> list[Manifest]:
    return [{"name": "tmp", "mountPath": "/tmp"}, *more]


def _env(values: dict[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _tolerations(settings: Environment) -> Sequence[Manifest]:
    wanted = [toleration.model_dump(exclude_defaults=True) for toleration in settings.tolerations]
    tolerations: list[Manifest] = [{"operator": "Exists", **toleration} for toleration in wanted]
    if settings.resources.gpu:  # the taint that cluster set-ups give to GPU nodes
        tolerations.append({"key": settings.resources.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    return tolerations
