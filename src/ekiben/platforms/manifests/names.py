"""What objects of a service are called, labelled and annotated.

Labels select, so they never change; exact values that may be long stand in annotations.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ekiben.environments import Environment
from ekiben.types import BentoRef, ImageRef, Release, Slot

Manifest = dict[str, Any]
Delivery = ImageRef | BentoRef
"""What is deployed: an image of a Bento, or the Bento itself, which is then fetched as a bundle."""

SERVICE, SLOT, ENVIRONMENT = "ekiben.dev/service", "ekiben.dev/slot", "ekiben.dev/environment"
"""Labels. SERVICE alone selects the pods of both colours, with SLOT those of one."""
EPOCH = "ekiben.dev/epoch"
"""Annotation of the active Service: how often the selector has moved. Only the switch writes it."""
MODEL, MODEL_DIGEST = "ekiben.dev/model", "ekiben.dev/model-digest"
BENTO, BENTO_DIGEST, IMAGE = "ekiben.dev/bento", "ekiben.dev/bento-digest", "ekiben.dev/image"
"""Annotations of Deployments and pods: W&B's version and digest, the Bento's tag and content digest, the image."""
LOAD_REPORT, RUN, BY, TIME = "ekiben.dev/load-report", "ekiben.dev/run", "ekiben.dev/by", "ekiben.dev/time"
"""Annotations of Deployments: how the release came there."""

PORT_NAME, PORT, SERVICE_PORT = "http", 3000, 80
CONTAINER = "bento"
PAUSED = "autoscaling.keda.sh/paused-replicas"
"""Annotation that holds a ScaledObject, and so the idle colour, at a number of pods. Only the deployer writes it."""

LONGEST = 40
"""Of a service's name in Kubernetes: with a colour and two hashes behind it, pod names are not cut."""


@dataclass(frozen=True)
class Target:
    """One service in one environment; `settings` are those of the service."""

    service: str
    environment: str
    settings: Environment

    @cached_property
    def name(self) -> str:
        """The service's name as Kubernetes takes it, of the active Service too."""
        return object_name(self.service)

    @property
    def preview(self) -> str:
        return f"{self.name}-preview"

    @property
    def scraped(self) -> str:
        """Service of all pods, that only Prometheus uses."""
        return f"{self.name}-pods"

    @property
    def deployer(self) -> str:
        """ServiceAccount and Role of who deploys it."""
        return f"{self.name}-deployer"

    def of(self, slot: Slot) -> str:
        """Name of the Deployment of that colour, and of what belongs to it."""
        return f"{self.name}-{slot}"

    def selector(self, slot: Slot | None = None) -> dict[str, str]:
        """What selects the pods of a colour, or of both."""
        return {SERVICE: self.name} | ({SLOT: slot} if slot else {})

    def labels(self, slot: Slot | None = None) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/component": "model-server",
            "app.kubernetes.io/managed-by": "ekiben",
            ENVIRONMENT: label_value(self.environment),
            **self.selector(slot),
        }

    def metadata(self, name: str, slot: Slot | None = None) -> Manifest:
        return {"name": name, "namespace": self.settings.namespace, "labels": self.labels(slot)}


def object_name(text: str) -> str:
    """A DNS label of at most 40 characters: `text` with what is not allowed as '-', hashed where it is too long."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    name = name if name[:1].isalpha() else f"s-{name}".rstrip("-")
    return name if len(name) <= LONGEST else _hashed(name, text, LONGEST)


def label_value(text: str) -> str:
    """A label's value: at most 63 characters, hashed where it is longer; '-' for what is not allowed."""
    value = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")
    return value if len(value) <= 63 else _hashed(value, text, 63)


def _hashed(name: str, text: str, longest: int) -> str:
    return f"{name[: longest - 9].rstrip('-_.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def bento_of(delivery: Delivery) -> BentoRef:
    return delivery.bento if isinstance(delivery, ImageRef) else delivery


def lineage(delivery: Delivery) -> dict[str, str]:
    """Annotations that say exactly what is deployed."""
    bento = bento_of(delivery)
    made = {MODEL: str(bento.model), MODEL_DIGEST: bento.model.digest, BENTO: bento.tag, BENTO_DIGEST: bento.digest}
    return made | ({IMAGE: str(delivery)} if isinstance(delivery, ImageRef) else {})


def story(release: Release) -> dict[str, str]:
    """Annotations that say how a release came there. Not for pods: another run must not restart them."""
    told = {LOAD_REPORT: release.load_report, RUN: release.run, BY: release.by, TIME: release.time.isoformat()}
    return {key: value for key, value in told.items() if value}
