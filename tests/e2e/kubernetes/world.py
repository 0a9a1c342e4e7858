"""A namespace of a cluster, set up as the README tells an administrator, and a normal user's `ekiben` in it."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.kubernetes.admin import Admin, Refused, configured, until
from tests.e2e.kubernetes.settings import Settings, toml

Json = dict[str, Any]
ENV = "e2e"
LONGEST = 600  # what a command may take, in s
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


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


@dataclass
class World:
    """`launcher` is what runs the command line; in the fake, where time goes faster, its waits are shorter."""

    folder: Path
    settings: Settings
    admin: Admin
    launcher: tuple[str, ...]
    services: dict[str, "Service"] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.admin.namespace

    def service(self, name: str, made: bool = True, created: bool = True) -> "Service":
        """That service, with what an administrator gives it; `made`: its Services too, which were `created`, and not
        only applied."""
        if name not in self.services:
            self.services[name] = Service(self, name)
            self.services[name].set_up(made, created)
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
        for event in self.admin.items("events")[-30:]:
            about = event["involvedObject"]
            lines.append(f"  {about['kind']} {about.get('name')}: {event.get('reason')}: {event.get('message')}")
        return "\n".join(lines)


@dataclass
class Service:
    """One service of the world: its project, the kubeconfig of its deployer, and what the cluster has of it."""

    world: World
    name: str
    numbers: int = 0
    root: Path = field(init=False)
    kubeconfig: Path = field(init=False)

    def set_up(self, made: bool, created: bool) -> None:
        """What the README has an administrator do, and a token for who deploys."""
        self.root = self.world.project(self.name, self.name, {})
        self.kubeconfig = self.root / "kubeconfig"
        for thing in self.rendered("--create") if made and created else ():
            self.world.admin.create(thing)
        self.apply(() if made else ("Service",))
        account = f"{self.name}-deployer"
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.world.admin, self.world.admin.token(account))))
        self.wait_allowed(True)

    def rendered(self, *more: str) -> list[Json]:
        done = self.ekiben("render", self.name, "--env", ENV, *more)
        return list(yaml.safe_load_all(done.out))

    def apply(self, without: tuple[str, ...] = ()) -> None:
        """`ekiben render … | kubectl apply --server-side -f -`"""
        for thing in self.rendered():
            if thing["kind"] not in without:
                self.world.admin.apply(thing)

    def wait_allowed(
        self, allowed: bool, verb: str = "patch", resource: str = "services", name: str = "", sub: str = ""
    ) -> None:
        """RBAC takes effect some time after its objects are written."""
        about = {"verb": verb, "resource": resource, "name": name or self.name, "subresource": sub}
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**about, "namespace": self.world.namespace}},
        }
        user = Admin(configured_file(self.kubeconfig), self.world.namespace)
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        until(
            f"{self.name}-deployer is {'' if allowed else 'not '}allowed to {verb} {resource} {name}",
            lambda: bool(user.request("POST", path, asked)["status"].get("allowed")) is allowed,
        )

    # What its user does

    def start(self, *args: str, root: Path | None = None) -> "Running":
        return Running(self, args, root or self.root)

    def ekiben(self, *args: str, code: int = 0, root: Path | None = None) -> Done:
        return self.start(*args, root=root).done(code)

    def release(self, number: int = 0, image: Any = None) -> int:
        """The number of a release that nobody had before, whose file is there; `image` is another than the next."""
        self.numbers += 1
        number = number or self.numbers
        settings = self.world.settings
        told = (image or (settings.image if number == 1 else settings.next_image)).told(self.name, number)
        (self.root / f"image{number}.json").write_text(json.dumps(told))
        return number

    def deploying(self, number: int, *more: str, golden: Path | None = None) -> tuple[str, ...]:
        answers = golden or self.root / "golden.json"
        given = ("--image", str(self.root / f"image{number}.json"), "--golden", str(answers))
        return ("deploy", self.name, "--env", ENV, *given, "--no-alias", *more)

    def deploy(self, number: int = 0, *more: str, code: int = 0, root: Path | None = None) -> Done:
        return self.ekiben(*self.deploying(number or self.release(), *more), code=code, root=root)

    def asked(self, command: str, *more: str) -> Any:
        """What the command says with --json."""
        return json.loads(self.ekiben(command, self.name, "--env", ENV, "--json", *more).out)

    def other_settings(self, **changed: Any) -> Path:
        """A project that says other things of the same environment."""
        return self.world.project(f"{self.name}-{secrets.token_hex(3)}", self.name, changed)

    def wrong_golden(self, path: Path) -> None:
        """Golden answers that no model gives."""
        told = json.loads((self.root / "golden.json").read_text())
        first = {"request": told["examples"][0]["request"], "response": {"no-such-key": 1}}
        path.write_text(json.dumps({**told, "examples": [first]}))

    def remove(self) -> None:
        """Nothing of it takes room any more."""
        admin, labels = self.world.admin, f"ekiben.dev/service={self.name}"
        for plural, api in (("horizontalpodautoscalers", "autoscaling/v2"), ("deployments", "apps/v1")):
            admin.request("DELETE", admin.path(api, plural), labelSelector=labels)
        until(f"pods of {self.name} have gone", lambda: not admin.items("pods", labels), 180)

    # What the cluster has of it

    def live(self) -> "Live":
        return Live.of(self.world.admin.get("services", self.name))

    def replicas(self, slot: str) -> int:
        """How many pods are wanted in that colour."""
        labels = f"ekiben.dev/service={self.name},ekiben.dev/slot={slot}"
        return sum(each["spec"]["replicas"] for each in self.world.admin.items("deployments", labels, "apps/v1"))

    def ready(self) -> set[str]:
        """Pods that the active Service sends new connections to."""
        labels = f"kubernetes.io/service-name={self.name}"
        slices = self.world.admin.items("endpointslices", labels, "discovery.k8s.io/v1")
        ends = [end for each in slices for end in each.get("endpoints") or ()]
        return {end["targetRef"]["name"] for end in ends if end["conditions"].get("ready", True)}

    def sizes_are_restored(self) -> None:
        """Nothing runs in the idle colour, what is live has its size, and its autoscaler its own limits."""
        live, least = self.live(), self.world.settings.environment("")["replicas"]["min"]
        assert (self.replicas(live.slot), self.replicas(live.idle)) == (least, 0)
        scaler = self.world.admin.get("horizontalpodautoscalers", f"{self.name}-{live.slot}", "autoscaling/v2")
        assert scaler["spec"]["minReplicas"] == least
        assert all(pod.startswith(f"{self.name}-{live.slot}-") for pod in self.ready())
        assert len(self.ready()) == least


@dataclass(frozen=True)
class Live:
    """What the Service says: the colour that is selected, how often that has moved, and the models of what was live."""

    slot: str
    epoch: int
    versions: tuple[str, ...]

    @classmethod
    def of(cls, service: Json) -> "Live":
        notes = service["metadata"]["annotations"]
        made = json.loads(notes.get("ekiben.dev/live", "[]"))
        versions = tuple(each["bento"]["model"]["version"] for each in made)
        return cls(service["spec"]["selector"].get("ekiben.dev/slot", "both"), int(notes["ekiben.dev/epoch"]), versions)

    @property
    def idle(self) -> str:
        return "green" if self.slot == "blue" else "blue"

    @property
    def version(self) -> str:
        return self.versions[-1]


class Running:
    """A command under way; what it writes lies in files, so that it can be read while it runs."""

    def __init__(self, service: Service, args: tuple[str, ...], root: Path) -> None:
        self.service, self.args = service, args
        self.folder = root / "calls" / uuid.uuid4().hex[:8]
        self.folder.mkdir(parents=True)
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            self.process = subprocess.Popen(
                [*service.world.launcher, *args], cwd=root, stdout=out, stderr=err,
                env=service.world.environ(root, service.kubeconfig),
            )  # fmt: skip

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def says(self, what: str, seconds: float = 180.0) -> None:
        """Waits until it has written that to standard error."""
        deadline = time.monotonic() + seconds
        while what not in self.read("err"):
            assert self.process.poll() is None, f"it ended without {what!r}: {self.read('out')}{self.read('err')}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what!r} in {self.read('err')}"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self) -> Done:
        try:
            code = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.args} did not end:\n{self.read('err')}\n{self.service.world.told()}") from None
        done = Done(code, self.read("out"), self.read("err"))
        assert "Traceback" not in done.err, done.err
        return done

    def done(self, code: int = 0) -> Done:
        done = self.ended()
        assert done.code == code, f"{self.args}: wanted exit code {code}, got {done}\n{self.service.world.told()}"
        return done


@contextmanager
def opened(settings: Settings, folder: Path, launcher: tuple[str, ...] = ()) -> Iterator[World]:
    """A world in a namespace of its own, which is gone afterwards."""
    namespace = f"ekiben-e2e-{secrets.token_hex(4)}"
    admin = Admin(configured(settings), namespace)
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


def configured_file(path: Path) -> Any:
    from lightkube import KubeConfig

    return KubeConfig.from_file(path).get()


def _kubeconfig(admin: Admin, token: str) -> Json:
    """The same cluster, another user."""
    known = admin.config.cluster
    cluster: Json = {"server": known.server}
    if known.certificate_auth:
        cluster["certificate-authority"] = str(admin.config.abs_file(known.certificate_auth))
    if known.certificate_auth_data:
        cluster["certificate-authority-data"] = known.certificate_auth_data
    if known.insecure:
        cluster["insecure-skip-tls-verify"] = True
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "deployer", "user": {"token": token}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "cluster", "user": "deployer"}}],
        "current-context": "e2e",
    }
