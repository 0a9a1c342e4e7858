"""Pods that really do what their step says: each in a copy of the project of its own, as a container has its own disk.

The controller and the API server are fakes; the steps, the tracker and the model servers behind the pods are real.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ekiben.processes import free_port
from tests.contract.conftest import KEY, client_environment
from tests.fakes.argo.controller import Done

ROOT = Path(__file__).parents[3]
PARTS = ("bentos", "service", "workflows", "loadtests")
MODELS = "models-staging"
SETTINGS = """
[tool.ekiben.environments.staging]
context = "fake"
namespace = "models-staging"
runtime_image = "{runtime}"
replicas = {min = 1, max = 2}
autoscaling = {kind = "none"}
watch = {seconds = 4, min_requests = 20, error_percent = 1.0, p99_ms = 10000}
"""
SLO = """
[load]
rate = 60
arrivals = "poisson"
warm_up = "1s"
duration = "6s"
timeout = "5s"
seed = 1

[slo]
p99 = "3s"
error_rate = "2%"
achieved_rate = "80%"
"""


@dataclass
class Pods:
    """`names` are addresses inside the cluster and where they are here."""

    folder: Path
    tracker: str
    kubeconfig: Path
    names: dict[str, str] = field(default_factory=dict)
    runtime: str = "registry.example/runtime:1"  # the image that Bentos are appended to
    servers: dict[str, str] = field(default_factory=dict)  # by the Bento's tag
    logs: list[tuple[str, int, str]] = field(default_factory=list)  # step, exit code, what it wrote
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def project(self, name: str) -> Path:
        root = self.folder / name / "project"
        for part in PARTS:
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("bentofile.yaml", "requirements.lock"):
            shutil.copy(ROOT / file, root)
        settings = (ROOT / "pyproject.toml").read_text()
        head, _, rest = settings.partition("[tool.ekiben.environments.staging]")
        (root / "pyproject.toml").write_text(
            head
            + SETTINGS.replace("{runtime}", self.runtime)
            + rest[rest.index("[tool.ekiben.environments.production]") :]
        )
        (root / "loadtests" / "slo.toml").write_text(SLO)
        return root

    def work(self, template: dict[str, Any], inputs: dict[str, str], run: str) -> Done:
        """Carries the step out as its container would: Hera's runner in a fresh copy of the project."""
        with self._lock:
            name = f"{len(self.logs):02}-{template['name']}-{time.monotonic_ns()}"
        root = self.project(name)
        script, outputs = template["script"], self.folder / name / "outputs"
        assert script["args"][:3] == ["-m", "hera.workflows.runner", "-e"], script
        assert script["source"] == "{{inputs.parameters}}", script  # which Argo fills in as this list
        given = [{"name": key, "value": self._here(value)} for key, value in inputs.items()]
        arguments = self.folder / name / "arguments.json"
        arguments.write_text(json.dumps(given))
        env = {
            **client_environment(self.folder / name / "client", self.tracker, KEY),
            "KUBECONFIG": str(self.kubeconfig),
            "BENTOML_HOME": str(self.folder / name / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "true",
            **{e["name"]: e["value"] for e in script["env"] if e["name"].startswith("hera__")},
            "hera__outputs_directory": str(outputs),
        }
        (self.folder / name / "bentoml").mkdir()
        done = subprocess.run(
            [sys.executable, *script["args"][:4], str(arguments)],
            cwd=root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400,
        )  # fmt: skip
        made = {path.name: path.read_text() for path in (outputs / "parameters").glob("*")}
        if "bento" in made and done.returncode == 0:
            self._serve(json.loads(made["bento"]), Path(env["BENTOML_HOME"]))
        self.logs.append((template["name"], done.returncode, done.stdout))
        return Done(done.returncode, made, done.stdout)

    def _here(self, value: str) -> str:
        for name, url in self.names.items():
            value = value.replace(name, url)
        return value

    def _serve(self, bento: dict[str, Any], home: Path) -> None:
        """What the pods of this Bento answer: one real server for all of them."""
        tag, port = f"{bento['name']}:{bento['version']}", free_port()
        if tag in self.servers:
            return
        env = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
        address = ["--host", "127.0.0.1", "--port", str(port)]
        command = [sys.executable, "-m", "bentoml", "serve", tag, *address]
        with (self.folder / f"server-{port}.log").open("w") as log:
            self._processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=self.folder))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    self.servers[tag] = f"http://127.0.0.1:{port}"
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise AssertionError(f"{tag} did not become ready: {self.folder / f'server-{port}.log'}")

    def backend(self, pod: dict[str, Any]) -> str:
        tag = pod["metadata"].get("annotations", {}).get("ekiben.dev/bento", "")
        return self.servers.get(tag, "http://127.0.0.1:1")

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def asking(url: str, body: Any) -> Iterator[list[int]]:
    """A client that asks the service all the time; the statuses of its answers, 0 for none."""
    seen: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            try:
                seen.append(httpx.post(f"{url}/predict", json=body, timeout=10).status_code)
            except httpx.HTTPError:
                seen.append(0)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
