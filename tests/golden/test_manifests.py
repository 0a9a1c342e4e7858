"""The YAML of three typical services, committed: reviewers read the diff. EKIBEN_WRITE_GOLDEN=1 writes it anew."""

import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ekiben.environments import Environment
from ekiben.platforms.manifests import groups, shared, text
from ekiben.platforms.manifests.names import Target
from ekiben.types import BentoRef, ImageRef, ModelVersion
from tests.manifest_checks import CUSTOM, check

FOLDER = Path(__file__).parent / "manifests"
MODEL = ModelVersion.parse("acme/vision/digits:v3", "0123456789abcdef0123456789abcdef")
BENTO = BentoRef(name="digits", version="v3-1a2b3c4d", digest="1a2b3c4d" * 8, model=MODEL)
IMAGE = ImageRef(repository="registry.example/team/digits", digest=f"sha256:{'5e' * 32}", bento=BENTO)

PLAIN = Target("digits", "production", Environment(namespace="models", network={"from_namespaces": ["gateway"]}))
FULL = Target("digits_cnn", "production", Environment.model_validate({
    "namespace": "models",
    "runtime_image": "registry.example/team/runtime:1",
    "image_pull_secrets": ["registry"],
    "replicas": {"min": 3, "max": 30},
    "resources": {"cpu": "2", "cpu_limit": "4", "memory": "8Gi", "gpu": 1},
    "autoscaling": {"kind": "keda", "target": 6},
    "prometheus": "http://prometheus.monitoring:9090",
    "service_monitor": True,
    "monitor_labels": {"release": "prometheus"},
    "http_route": "digits",
    "network": {"from_namespaces": ["gateway", "monitoring"], "from_addresses": ["10.0.0.0/28"]},
    "node_selector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "cloud.example/spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
    "env": {"OMP_NUM_THREADS": "1"},
    "start_seconds": 300,
    "longest_request_seconds": 60,
}))  # fmt: skip
CASES: dict[str, list[dict[str, Any]]] = {
    "image": groups.everything(PLAIN, IMAGE),
    "bundle": groups.everything(FULL, BENTO),
    "create": shared.first_services(PLAIN),
}


@pytest.mark.parametrize("name", CASES)
def test_the_committed_yaml_is_current(name: str) -> None:
    path, rendered = FOLDER / f"{name}.yaml", text.to_yaml(CASES[name])
    if os.environ.get("EKIBEN_WRITE_GOLDEN"):
        path.write_text(rendered)
    assert path.read_text() == rendered, "stale: run EKIBEN_WRITE_GOLDEN=1 pytest tests/golden, and read the diff"


@pytest.mark.parametrize("name", CASES)
def test_the_committed_yaml_is_valid_kubernetes(name: str) -> None:
    documents = list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))
    assert documents == CASES[name]
    check(documents)
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, "1.33", strict=True)
