"""One service of the world: its project, the kubeconfig of its deployer, and what the cluster has of it."""

import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.e2e.kubernetes.admin import Admin, configured, until
from tests.e2e.kubernetes.running import Done, Running

if TYPE_CHECKING:
    from tests.e2e.kubernetes.world import World

Json = dict[str, Any]
ENV = "e2e"
"""The environment in pyproject.toml."""


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


@dataclass
class Service:
    world: "World"
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
        user = Admin(configured(str(self.kubeconfig)), self.world.namespace)
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        until(
            f"{self.name}-deployer is {'' if allowed else 'not '}allowed to {verb} {resource} {name}",
            lambda: bool(user.request("POST", path, asked)["status"].get("allowed")) is allowed,
        )

    # What its user does

    def start(self, *args: str, root: Path | None = None) -> "Running":
        root, world = root or self.root, self.world
        return Running([*world.launcher, *args], root, world.environ(root, self.kubeconfig), world.told)

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

    def live(self) -> Live:
        return Live.of(self.world.admin.get("services", self.name))

    def claimed(self, slot: str) -> datetime:
        """Until when somebody has claimed that colour."""
        notes = self.world.admin.get("services", self.name)["metadata"]["annotations"]
        return datetime.fromisoformat(json.loads(notes[f"ekiben.dev/claim-{slot}"])["until"])

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

    def grow(self, replicas: int) -> None:
        """The autoscaler of what is live gives it so many pods; without metrics too, for it may not have fewer."""
        admin = self.world.admin
        path = admin.path("autoscaling/v2", "horizontalpodautoscalers", f"{self.name}-{self.live().slot}")
        admin.merge(path, {"spec": {"minReplicas": replicas}})
        until(f"{replicas} pods of {self.name} are ready", lambda: len(self.ready()) == replicas, 180)

    def shrink(self, replicas: int) -> None:
        """What is live has so many pods again."""
        path = self.world.admin.path("apps/v1", "deployments", f"{self.name}-{self.live().slot}")
        self.world.admin.merge(f"{path}/scale", {"spec": {"replicas": replicas}})
        until(f"{replicas} pods of {self.name} are ready", lambda: len(self.ready()) == replicas, 180)

    def sizes_are_restored(self, size: int = 0) -> None:
        """Nothing runs in the idle colour, what is live has its size, and its autoscaler its own limits. It may have
        used them already: `size` is the most that runs."""
        live, bounds = self.live(), self.world.settings.environment("")["replicas"]
        assert self.replicas(live.idle) == 0
        assert bounds["min"] <= self.replicas(live.slot) <= (size or bounds["min"])
        scaler = self.world.admin.get("horizontalpodautoscalers", f"{self.name}-{live.slot}", "autoscaling/v2")["spec"]
        assert (scaler["minReplicas"], scaler["maxReplicas"]) == (bounds["min"], bounds["max"])
        ready = self.ready()
        assert all(pod.startswith(f"{self.name}-{live.slot}-") for pod in ready)
        assert bounds["min"] <= len(ready) <= (size or bounds["min"])


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
