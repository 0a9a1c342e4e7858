"""deploy/base/tracker.yaml: what it says is what the command line understands, and the commands in it work."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.tracker.keys import list_keys

FILE = Path(__file__).parents[2] / "deploy" / "base" / "tracker.yaml"
DOCUMENTS: dict[str, Any] = {document["kind"]: document for document in yaml.safe_load_all(FILE.read_text())}
POD = DOCUMENTS["Deployment"]["spec"]["template"]["spec"]


def test_it_is_valid_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in DOCUMENTS.values():
        validate.validate(document, "1.33", strict=True)


def test_names_fit_together() -> None:
    labels = DOCUMENTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert DOCUMENTS["Service"]["spec"]["selector"].items() <= labels.items()
    claims = [v["persistentVolumeClaim"]["claimName"] for v in POD["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [DOCUMENTS["PersistentVolumeClaim"]["metadata"]["name"]]
    assert POD["securityContext"]["runAsNonRoot"]


def test_the_init_container_makes_the_key_and_can_be_repeated(tmp_path: Path) -> None:
    command = [part.replace("/data", str(tmp_path)) for part in POD["initContainers"][0]["command"]]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for _ in range(2):
        env = {**os.environ, "PATH": path, "KEY": "k" * 40}
        done = subprocess.run(command, env=env, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert "k" * 40 not in done.stdout + done.stderr
    assert [key.name for key in list_keys(tmp_path)] == ["team"]
    other = subprocess.run(
        command, env={**os.environ, "PATH": path, "KEY": "other" * 8}, text=True, capture_output=True
    )
    assert other.returncode == 2, "another key under that name is not taken silently"


def test_the_container_serves_on_all_addresses_only_with_a_key(tmp_path: Path) -> None:
    command = [part.replace("/data", str(tmp_path)) for part in POD["containers"][0]["command"]]
    command[0] = str(Path(sys.executable).parent / command[0])
    done = subprocess.run(command, text=True, capture_output=True, timeout=30)
    assert done.returncode == 2
    assert "key" in done.stderr
