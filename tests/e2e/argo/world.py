"""A cluster with a team's two namespaces in it, made as an administrator makes them by the README, and the people who
work there. Whether the cluster is real does not show here: see fake.py and real.py for how one is had.
"""

import json
import secrets
import shutil
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml
from lightkube import KubeConfig

from ekiben.doctor.permissions import RUN
from ekiben.pipeline import argo
from ekiben.pipeline.argo.cluster import Cluster
from ekiben.platforms.kubernetes.api import Api
from tests.contract.conftest import client_environment
from tests.e2e.kubernetes.admin import Admin, Refused, until

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
PARTS = ("bentos", "service", "workflows", "loadtests")
WORKFLOWS = ("release_on_cluster", "rollback_on_cluster", "retrain")
ENV, STRICT = "e2e", "strict"
"""Environments of the same place; no release that STRICT watches is seen by enough."""
TTL_S = 60
SLO = '["p99=3s", "error_rate=2%", "achieved_rate=80%"]'  # what a small and busy cluster holds
ZERO = {"rows": [[0] * 64]}


def copied(root: Path) -> Path:
    """The project, as an image holds it."""
    for part in PARTS:
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("bentofile.yaml", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / file, root)
    return root


def fitted(document: Json, image: str, pull: str, environments: str) -> Json:
    """A workflow as this team changes it: its image, its environments, pods that fit a small cluster."""
    spec = document["spec"].get("workflowSpec") or document["spec"]
    for each in spec["arguments"]["parameters"]:
        if each["name"] == "image":
            each["value"] = image
    for script in (each["script"] for each in spec["templates"] if "script" in each):
        script["imagePullPolicy"] = pull
        script["env"].append({"name": "EKIBEN_ENVIRONMENTS", "value": environments})
        script["resources"] = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
    spec["podGC"]["deleteDelayDuration"] = "30s"  # time to read what they wrote
    if document["metadata"]["name"] == "rollback-on-cluster":
        spec["ttlStrategy"]["secondsAfterSuccess"] = TTL_S
    if document["kind"] == "CronWorkflow":
        document["spec"]["suspend"] = True  # the clock plays no part here
    return document


@dataclass
class World:
    """`kubeconfig` has one context, an administrator's. `tracker` is its address here, `table` what is set otherwise in
    the environment; a workflow takes `longest` seconds at most."""

    folder: Path
    kubeconfig: Path
    image: str
    pull: str
    table: Json
    longest: float
    name: str = field(default_factory=lambda: f"ekiben-e2e-{secrets.token_hex(4)}")
    key: str = field(default_factory=lambda: secrets.token_hex(20))
    tracker: str = ""

    def __post_init__(self) -> None:
        self.pipelines, self.models = f"{self.name}-pipelines", f"{self.name}-models"
        config = KubeConfig.from_file(self.kubeconfig).get()
        assert config
        self.at_pipelines, self.at_models = Admin(config, self.pipelines), Admin(config, self.models)
        self.project = copied(self.folder / "project")
        base = {
            "namespace": self.models,
            "pipeline_namespace": self.pipelines,
            "runtime_image": self.image,
            "image_pull_policy": self.pull,
            "wandb_base_url": f"http://ekiben-tracker.{self.pipelines}.svc:8080",
            "replicas": {"min": 1, "max": 2},
            "resources": {"cpu": "100m", "memory": "512Mi"},
            "autoscaling": {"kind": "none"},
            # The load test comes from the pipelines' pods; the API server, of unknown address, asks for the deployer.
            "network": {"from_namespaces": [self.pipelines], "from_addresses": ["0.0.0.0/0"]},
            **self.table,
        }
        watched = {"min_requests": 20, "error_percent": 1.0, "p99_ms": 10000, **self.table.get("watch", {})}
        strict = {**watched, "min_requests": 10**6}
        self.environments = json.dumps({ENV: {**base, "watch": watched}, STRICT: {**base, "watch": strict}})
        self.users = {"admin": self.kubeconfig}

    # What the administrator does

    def user(self, name: str, token: str) -> None:
        """Whoever has that token, with a kubeconfig of their own."""
        held = yaml.safe_load(self.kubeconfig.read_text())
        (context,) = held["contexts"]
        context["context"]["namespace"] = self.pipelines
        held["users"] = [{"name": context["context"]["user"], "user": {"token": token}}]
        self.users[name] = self.folder / f"{name}.kubeconfig"
        self.users[name].write_text(yaml.safe_dump(held))

    def make(self) -> None:
        for name in (self.pipelines, self.models):
            # Argo's own containers name no security context, unless its controller is told to: they pass baseline.
            level = "restricted" if name == self.models else "baseline"
            labels = {"ekiben.dev/e2e": "argo", "pod-security.kubernetes.io/enforce": level}
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            self.at_pipelines.request("POST", "/api/v1/namespaces", space)
        here = f"http://ekiben-tracker.{self.pipelines}.svc:8080"
        self._secret(self.at_pipelines, "ekiben-tracker", {"key": self.key})
        self._secret(self.at_pipelines, "ekiben-wandb", {"api-key": self.key, "base-url": here})
        self._secret(self.at_models, "wandb", {"api-key": self.key})
        for file in ("workflow-accounts.yaml", "tracker.yaml"):
            for document in yaml.safe_load_all((ROOT / "deploy" / "base" / file).read_text()):
                self._install(document)
        for document in yaml.safe_load_all(self.cli("render", "digits", "--env", ENV, "--create").stdout):
            self.at_models.create(document)
        for document in yaml.safe_load_all(self.cli("render", "digits", "--env", ENV).stdout):
            self.at_models.apply(document)
        self._bind(self.at_models, "ekiben-deploy", "digits-deployer")

    def _secret(self, admin: Admin, name: str, values: dict[str, str]) -> None:
        data = {key: b64encode(value.encode()).decode() for key, value in values.items()}
        admin.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data})

    def _install(self, document: Json) -> None:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            for container in (*pod["initContainers"], *pod["containers"]):
                container |= {"image": self.image, "imagePullPolicy": self.pull}
        self.at_pipelines.apply(document)

    def _bind(self, admin: Admin, account: str, role: str) -> None:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": self.pipelines}
        admin.create(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"{account}-{role}"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
                "subjects": [subject],
            }
        )

    def install_workflows(self, again: bool = False) -> str:
        """By `ekiben workflow apply`; what it says."""
        for file in () if again else (self.project / "workflows").glob("*.yaml"):
            if file.stem not in WORKFLOWS:
                file.unlink()
                continue
            made = fitted(yaml.safe_load(file.read_text()), self.image, self.pull, self.environments)
            file.write_text(yaml.safe_dump(made, sort_keys=False))
        files = [f"workflows/{name}.yaml" for name in WORKFLOWS]
        return self.cli("workflow", "apply", *files, "--env", ENV).stdout

    def hire(self, name: str, rules: list[Json] = RUN) -> None:
        """Somebody with no other rights than these."""
        metadata, group = {"name": name}, "rbac.authorization.k8s.io/v1"
        self.at_pipelines.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        self.at_pipelines.create({"apiVersion": group, "kind": "Role", "metadata": metadata, "rules": rules})
        self._bind(self.at_pipelines, name, name)
        self.user(name, self.at_pipelines.token(name))

    # What people do

    def start(self, *args: str, who: str = "admin") -> "subprocess.Popen[str]":
        folder = self.folder / f"client-{secrets.token_hex(4)}"
        env = {
            **client_environment(folder, self.tracker, self.key),
            "KUBECONFIG": str(self.users[who]),
            "EKIBEN_ENVIRONMENTS": self.environments,
            "BENTOML_HOME": str(folder / "bentoml"),
        }
        env = {name: value for name, value in env.items() if not name.startswith("ARGO_")}
        command = [sys.executable, "-m", "ekiben.cli", *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.project, env=env, text=True, stdout=pipe, stderr=pipe)

    def cli(self, *args: str, who: str = "admin", code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """`ekiben ARGS` in the project; `code` None allows any."""
        started = self.start(*args, who=who)
        try:
            out, err = started.communicate(timeout=self.longest)
        except subprocess.TimeoutExpired:
            started.kill()
            raise AssertionError(f"ekiben {' '.join(args)} takes longer than {self.longest:g} s") from None
        assert code in (None, started.returncode), f"ekiben {' '.join(args)}: {started.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(args, started.returncode, out, err)

    def doctor(self) -> dict[str, Json]:
        """What `ekiben doctor` finds, by the checks' names."""
        told = json.loads(self.cli("doctor", "digits", "--env", ENV, "--json", code=None).stdout)
        return {each["name"]: each for each in told["checks"]}

    def submit(self, template: str, **parameters: str) -> str:
        """The run of a template, or of a file, that a user with the least rights has started."""
        given = [part for name, value in parameters.items() for part in ("--param", f"{name}={value}")]
        told = self.cli("workflow", "submit", template, "--env", ENV, *given, "--json", who="user")
        name: str = json.loads(told.stdout)["run"]
        return name

    def release(self, **parameters: str) -> str:
        given = {"environment": ENV, "delivery": "bundle", "slo": SLO}
        return self.submit("release-on-cluster", **given | parameters)

    def ends(self, run: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Watches it until it is over."""
        limit = f"{self.longest:g}"
        done = self.cli("workflow", "watch", run, "--env", ENV, "--timeout", limit, who="user", code=None)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}\n{self.told()}"
        return done

    def look(self, run: str) -> argo.Status:
        config = KubeConfig.from_file(self.users["user"]).get()
        assert config
        return argo.look(argo.find(run, client=Cluster(Api(config), self.pipelines)))

    def phases(self, run: str) -> dict[str, str]:
        return {step.name.rpartition(".")[2]: step.phase for step in self.look(run).steps}

    def reaches(self, run: str, step: str, phase: str = "Running") -> None:
        """Waits until a step is in that phase."""

        def there() -> bool:
            status = self.look(run)
            assert not status.over, f"{run} is over: {status.phase} {status.message}"
            return any(each.called(step) and each.phase == phase for each in status.steps)

        until(f"{step} of {run} is {phase}", there, self.longest)

    @contextmanager
    def asking(self) -> Iterator[list[int]]:
        """A client that asks the service all the time, through the API server; its statuses, 0 for no answer."""
        path = f"/api/v1/namespaces/{self.models}/services/digits:http/proxy/predict"
        seen: list[int] = []
        over = threading.Event()

        def ask() -> None:
            client = Admin(self.at_models.config, self.models).client
            while not over.wait(0.02):
                try:
                    seen.append(client.request("POST", path, json=ZERO).status_code)
                except httpx2.HTTPError:
                    seen.append(0)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()

    # What is seen

    def live(self) -> list[Json]:
        """What was live, one after the other, as the active Service has it; the last one is live."""
        notes = self.at_models.get("services", "digits")["metadata"]["annotations"]
        found: list[Json] = json.loads(notes["ekiben.dev/live"])
        return found

    def replicas(self) -> list[int]:
        """Of the two colours, the smaller first."""
        return sorted(each["spec"]["replicas"] for each in self.at_models.items("deployments", api_version="apps/v1"))

    def is_gone(self, plural: str, name: str, api_version: str) -> bool:
        try:
            self.at_pipelines.get(plural, name, api_version)
        except Refused as refused:
            return refused.code == 404
        return False

    def told(self) -> str:
        """What may explain a failure: the runs and their steps."""
        lines = []
        for each in self.at_pipelines.items("workflows", api_version="argoproj.io/v1alpha1"):
            status = argo.read(each)
            lines.append(f"{status.name}: {status.phase} {status.message}")
            lines += [f"    {step.name}: {step.phase} {step.why}" for step in status.steps]
        return "\n".join(lines)
