"""A namespace of a cluster, set up as the README tells an administrator, and a normal user's `ekiben` in it."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.kubernetes.admin import Admin, Refused, configured, until
from tests.e2e.kubernetes.service import ENV, Service
from tests.e2e.kubernetes.settings import Settings, toml

Json = dict[str, Any]
LABELS = {"ekiben.dev/e2e": "true", "pod-security.kubernetes.io/enforce": "restricted"}
GOLDEN = {
    "version": 1,
    "route": "/predict",
    "examples": [
        {
            "request": {"rows": [[0] * 64]},
            "response": None,
            "contract": {"type": "object", "required": ["classes"], "properties": {"classes": {"type": "array"}}},
        }
    ],
}


@dataclass
class World:
    """`launcher` is what runs the command line; in the fake, where time goes faster, its waits are shorter."""

    folder: Path
    settings: Settings
    admin: Admin
    launcher: tuple[str, ...]
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.admin.namespace

    def service(self, name: str, made: bool = True, created: bool = True) -> Service:
        """That service, with what an administrator gives it; `made`: its Services too, which were `created`, and not
        only applied."""
        if name not in self.services:
            service = Service(self, name)
            service.set_up(made, created)
            self.services[name] = service
        return self.services[name]

    def project(self, name: str, service: str, changed: Mapping[str, Any]) -> Path:
        """A folder to call `ekiben` in."""
        root = self.folder / name
        (root / "bentos" / service).mkdir(parents=True)
        (root / "bentofile.yaml").touch()
        (root / "bentos" / service / "recipe.py").touch()
        if self.settings.golden:
            shutil.copy(self.settings.golden, root / "golden.json")
        else:
            (root / "golden.json").write_text(json.dumps(GOLDEN))
        table = self.settings.environment(self.namespace, **changed)
        lines = [f"{key} = {toml(value)}" for key, value in table.items()]
        (root / "pyproject.toml").write_text("\n".join([f"[tool.ekiben.environments.{ENV}]", *lines, ""]))
        return root

    def environ(self, root: Path, kubeconfig: Path) -> dict[str, str]:
        """W&B is nowhere: no alias is to be moved, and nothing to be asked."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("EKIBEN_", "WANDB_"))}
        home = {"HOME": str(root), "BENTOML_HOME": str(root / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}
        nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_API_KEY": "0" * 40}
        return {**kept, **home, **nowhere, "KUBECONFIG": str(kubeconfig)}

    def told(self) -> str:
        """What runs in the namespace, for the message of a test that fails."""
        lines = [f"namespace {self.namespace}:"]
        for pod in self.admin.items("pods"):
            states = [each.get("state") for each in (pod.get("status") or {}).get("containerStatuses") or ()]
            lines.append(f"  pod {pod['metadata']['name']} {pod['status'].get('phase')} {json.dumps(states)}")
        events = self.admin.items("events")
        for event in sorted(events, key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")[-30:]:
            about = event["involvedObject"]
            lines.append(f"  {about['kind']} {about.get('name')}: {event.get('reason')}: {event.get('message')}")
        return "\n".join(lines)


@contextmanager
def opened(settings: Settings, folder: Path, launcher: tuple[str, ...] = ()) -> Iterator[World]:
    """A world in a namespace of its own, which is gone afterwards."""
    namespace = f"ekiben-e2e-{secrets.token_hex(4)}"
    admin = Admin(configured(settings.kubeconfig, settings.context), namespace)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": LABELS}}
    admin.request("POST", "/api/v1/namespaces", space)
    try:
        yield World(folder, settings, admin, launcher or (sys.executable, "-m", "ekiben.cli"))
    finally:
        admin.request("DELETE", f"/api/v1/namespaces/{namespace}")
        until(f"namespace {namespace} is gone", lambda: not _is_there(admin, namespace), 180)


def _is_there(admin: Admin, namespace: str) -> bool:
    try:
        admin.request("GET", f"/api/v1/namespaces/{namespace}")
    except Refused as refused:
        if refused.code == 404:
            return False
        raise
    return True
