"""A world on fakes: the API server and Argo's controller are (tests/fakes), tracker, steps and model servers are not.

A step's pod does what its container would: Hera's runner, in a copy of the project of its own as a container has its
own disk, with the token of the step's own account.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ekiben.processes import free_port
from tests.contract.conftest import client_environment, start_tracker, stop
from tests.e2e.argo.world import World, copied
from tests.fakes.argo import controller as fake
from tests.fakes.argo.controller import Controller, Done
from tests.fakes.kubernetes.access import ADMIN
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.routing import Router
from tests.fakes.kubernetes.samples import deployment
from tests.fakes.kubernetes.traffic import ServiceProxy

SPEED = 5.0
VOLUMES = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
TABLE = {"watch": {"seconds": 4}}
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

    world: World
    names: dict[str, str] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)  # by the Bento's tag
    _made: int = 0
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, template: dict[str, Any], inputs: dict[str, str], run: str, say: Callable[[str], None]) -> Done:
        """Carries the step out as its container would."""
        with self._lock:
            self._made += 1
            folder = self.world.folder / "pods" / f"{self._made:02}-{template['name']}"
            account = template["serviceAccountName"]
            if account not in self.world.users:
                self.world.user(account, self.world.at_pipelines.token(account))
        root = copied(folder / "project")
        (root / "loadtests" / "slo.toml").write_text(SLO)  # the image's
        script, outputs = template["script"], folder / "outputs"
        assert script["args"][:3] == ["-m", "hera.workflows.runner", "-e"], script
        assert script["source"] == "{{inputs.parameters}}", script  # which Argo fills in as this list
        given = [{"name": key, "value": self._here(value)} for key, value in inputs.items()]
        arguments = folder / "arguments.json"
        arguments.write_text(json.dumps(given))
        env = {
            **client_environment(folder / "client", self.world.tracker, self.world.key),
            "KUBECONFIG": str(self.world.users[account]),
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "true",
            **{each["name"]: each["value"] for each in script["env"] if "value" in each and each["name"] != "HOME"},
            "hera__outputs_directory": str(outputs),
        }
        (folder / "bentoml").mkdir()
        started = subprocess.Popen(
            [sys.executable, "-u", *script["args"][:4], str(arguments)],
            cwd=root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        over = threading.Timer(400, started.kill)
        over.start()
        assert started.stdout
        with (folder / "log").open("w") as log:
            for line in started.stdout:
                log.write(line)
                say(line.rstrip("\n"))
        code = started.wait()
        over.cancel()
        made = {path.name: path.read_text() for path in (outputs / "parameters").glob("*")}
        if "bento" in made and code == 0:
            self._serve(json.loads(made["bento"]), Path(env["BENTOML_HOME"]))
        return Done(code, made)

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
        written = self.world.folder / f"server-{port}.log"
        with written.open("w") as log:
            self._processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=self.world.folder))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    self.servers[tag] = f"http://127.0.0.1:{port}"
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise AssertionError(f"{tag} did not become ready: {written}")

    def backend(self, pod: dict[str, Any]) -> str:
        if pod["metadata"]["labels"].get("app.kubernetes.io/name") == "ekiben-tracker":
            return self.world.tracker
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
def world(folder: Path) -> Iterator[World]:
    cluster = fake.cluster()
    cluster.served += (VOLUMES,)
    cluster.router = Router(cluster.served)
    cluster.tokens["admin"] = ADMIN
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argo"}}, "")
    cluster.create(deployment("workflow-controller", 1, "quay.io/argoproj/workflow-controller:v4.1.2"), "argo")
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]}]
    group, metadata = "rbac.authorization.k8s.io", {"name": "memoize"}
    cluster.create({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules}, "argo")
    bound = {"kind": "RoleBinding", "roleRef": {"apiGroup": group, "kind": "Role", "name": "memoize"}}
    bound |= {"subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "argo"}]}
    cluster.create({"apiVersion": f"{group}/v1", "metadata": metadata, **bound}, "argo")
    controller = Controller(cluster)
    key = secrets.token_hex(20)
    create = [sys.executable, "-m", "ekiben.cli", "tracker", "key", "create", "team", "--stdin"]  # as in tracker.yaml
    subprocess.run([*create, "--data", str(folder / "tracker")], input=key, text=True, check=True, capture_output=True)
    tracker, url = start_tracker(folder / "tracker")
    try:
        with served(cluster, speed=SPEED) as server:
            kubeconfig = write_kubeconfig(folder / "admin.kubeconfig", server, token="admin")
            image = "registry.example/pipeline:1"
            made = World(folder, kubeconfig, image, "IfNotPresent", TABLE, 600.0, key=key, tracker=url)
            pods = Pods(made)
            controller.work = pods.work
            cluster.kubelet.behave("", backend=pods.backend)
            try:
                made.make()
                with ServiceProxy(cluster, "digits-preview", made.models) as preview:
                    pods.names[f"http://digits-preview.{made.models}.svc"] = preview.url
                    yield made
            finally:
                pods.close()
    finally:
        stop(tracker)
