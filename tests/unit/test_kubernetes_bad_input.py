"""What goes wrong in a deploy: the command line against the fake API server on a socket, a row per case.

Shown: an exit code by kind, a message that says what was seen, one JSON object with --json, never a traceback, and the
live colour untouched: its Deployment to the last byte, and in the Service selector, epoch and what was live when. It
stands on Kubernetes' own words for refusals: RBAC's "cannot VERB resource …", quota's "exceeded quota", the reasons in
containers' statuses and in the condition ReplicaFailure.
"""

import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben import cli
from ekiben.config import Project
from ekiben.platforms.kubernetes import api, colour, look
from ekiben.platforms.manifests.access import rules
from ekiben.platforms.manifests.names import Target
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.fakes.kubernetes_platform import bento, platform, set_up
from tests.fakes.kubernetes_platform import deploy as put_live
from tests.unit.test_kubernetes_deploy import GOLDEN, Model

PROJECT = """
[tool.ekiben.environments.staging]
context = "fake"
runtime_image = "registry.example/runtime:1"
start_seconds = 1
watch = {seconds = 1, min_requests = 10}
[tool.ekiben.environments.elsewhere]
context = "no-such-context"
runtime_image = "registry.example/runtime:1"
[tool.ekiben.environments.nowhere]
context = "fake"
namespace = "missing"
runtime_image = "registry.example/runtime:1"
"""


@dataclass
class World:
    root: Path
    cluster: Cluster
    model: Model
    target: Target
    url: str

    def kubeconfig(self, url: str = "", token: str = "t") -> None:
        write_kubeconfig(self.root / "kubeconfig", url or self.url, token)

    def candidates(self, **plan: Any) -> None:
        """What becomes of the new colour's pods."""
        plan = {"backend": self.model.backend, **plan}
        self.cluster.kubelet.behave(lambda pod: "-green-" in pod["metadata"]["name"], **plan)

    def change(self, plural: str, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """As somebody else would, past the API."""
        found = self.cluster.get(plural, name)
        change(found)
        with self.cluster.store.changed:
            self.cluster.store.put(self.cluster.resource(plural), found)

    def request(self, method: str, path: str, params: dict[str, str], content: str, body: Any) -> Any:
        """As an administrator."""
        tokens, self.cluster.tokens = self.cluster.tokens, {}
        answer = self.cluster.request(method, path, params, {"Content-Type": content}, json.dumps(body).encode())
        self.cluster.tokens = tokens
        assert answer.status < 300, answer.body
        return answer.body

    def without(self, resource: str, verb: str) -> None:
        """The deployer may no longer do that."""

        def drop(role: dict[str, Any]) -> None:
            for rule in role["rules"]:
                if resource in rule["resources"]:
                    rule["verbs"] = [each for each in rule["verbs"] if each != verb]

        self.change("roles", self.target.deployer, drop)

    def live(self) -> Any:
        service = self.cluster.get("services", "digits")
        notes = service["metadata"]["annotations"]
        kept = {key: notes.get(f"ekiben.dev/{key}") for key in ("epoch", "live", "history")}
        return json.dumps([self.cluster.get("deployments", "digits-blue"), service["spec"].get("selector"), kept])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "bentos" / "digits").mkdir(parents=True)
    (tmp_path / "bentos" / "digits" / "recipe.py").touch()
    (tmp_path / "golden.json").write_text(GOLDEN.model_dump_json())
    (tmp_path / "bento2.json").write_text(bento(2).model_dump_json())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    for module, name, seconds in (
        (colour, "HOPELESS_SECONDS", 0.2),
        (colour, "WATCH_SECONDS", 1),
        (api, "TIMEOUT_SECONDS", 1.0),
        (look, "SCRAPE_SECONDS", 1.0),
    ):
        monkeypatch.setattr(module, name, seconds)
    cluster = Cluster()
    model = Model(cluster)
    target = Target("digits", "staging", Project(tmp_path).environment("staging", "digits"))
    set_up(cluster, target)
    cluster.kubelet.behave("", backend=model.backend)
    put_live(platform(cluster, target), 1)
    cluster.advance(120)
    cluster.tokens = {"t": service_account("default", target.deployer)}
    with served(cluster, speed=100) as url:
        found = World(tmp_path, cluster, model, target, url)
        found.kubeconfig()
        yield found


Done = tuple[int, str, str]


def ekiben(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> Done:
    """Exit code, stdout and stderr of the command line in this process; anything but an exit fails the test."""
    monkeypatch.setattr(sys, "argv", ["ekiben", *args])
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        cli.main()
    code = raised.value.code
    return (code if isinstance(code, int) else 0 if code is None else 1), *capsys.readouterr()


def quota(world: World, **hard: str) -> None:
    world.cluster.create(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}}
    )


def restricted(world: World) -> None:
    world.change(
        "namespaces",
        "default",
        lambda space: (
            space["metadata"].setdefault("labels", {}).update({"pod-security.kubernetes.io/enforce": "restricted"})
        ),
    )
    # Something that this profile forbids and that the shipped manifests do not have.
    made = world.cluster.controllers.replica_sets
    create = made._pod

    def privileged(each: dict[str, Any]) -> str:
        template = json.loads(json.dumps(each))
        for container in template["spec"]["template"]["spec"]["containers"]:
            container["securityContext"]["privileged"] = True
        return create(template)

    made._pod = privileged  # type: ignore[method-assign]


def terminating(world: World) -> None:
    world.cluster.tokens = {}
    held = {"name": "held", "finalizers": ["example.com/held"]}
    with world.cluster.store.changed:
        world.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "missing"}}, "")
        world.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held}, "missing")
        resource, space = world.cluster.resource("namespaces"), world.cluster.get("namespaces", "missing")
        world.cluster.writer.delete(resource, space, {})


def owned_by(managed_by: str | None) -> Callable[[World], None]:
    def change(service: dict[str, Any]) -> None:
        labels = service["metadata"]["labels"]
        labels.pop("app.kubernetes.io/managed-by")
        labels.update({"app.kubernetes.io/managed-by": managed_by} if managed_by else {})

    return lambda world: world.change("services", "digits", change)


def selecting(selector: dict[str, str]) -> Callable[[World], None]:
    return lambda world: world.change("services", "digits", lambda s: s["spec"].update(selector=selector))


def applied_by(manager: str) -> Callable[[World], None]:
    """Server-side apply of the Service with its selector, as a GitOps controller does."""

    def apply(world: World) -> None:
        selector = world.target.selector("blue")
        thing = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits"}, "spec": {"selector": selector}}
        answer = world.request(
            "PATCH", "/api/v1/namespaces/default/services/digits", {"fieldManager": manager, "force": "true"},
            "application/apply-patch+yaml", thing,
        )  # fmt: skip
        assert "managedFields" in answer["metadata"]

    return apply


def last_applied(world: World) -> None:
    text = json.dumps({"kind": "Service", "spec": {"selector": world.target.selector("blue")}})
    note = {"kubectl.kubernetes.io/last-applied-configuration": text}
    world.change("services", "digits", lambda service: service["metadata"]["annotations"].update(note))


def kubeconfig(text: str) -> Callable[[World], None]:
    return lambda world: (world.root / "kubeconfig").write_text(text) and None


@pytest.fixture
def silent() -> Iterator[str]:
    """Accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


STAGING = ("--env", "staging")
GIVEN = ("--bento", "bento2.json", "--golden", "golden.json", "--no-alias")


@dataclass(frozen=True)
class Case:
    name: str
    code: int
    said: str
    spoil: Callable[[World], Any] = lambda world: None
    args: tuple[str, ...] = ("digits", *STAGING, *GIVEN)


CASES = [
    Case("context", 2, "no context 'no-such-context'", args=("digits", "--env", "elsewhere", *GIVEN)),
    Case("environment", 3, "no environment 'nothing'.*", args=("digits", "--env", "nothing", *GIVEN)),
    Case("local", 2, "environment local is this machine", args=("digits", "--env", "local", *GIVEN)),
    Case("service", 3, "no service 'digit'", args=("digit", *STAGING, *GIVEN)),
    Case("bento file", 3, "none.json", args=("digits", *STAGING, "--bento", "none.json")),
    Case("no kubeconfig", 2, "no kubeconfig", lambda world: (world.root / "kubeconfig").unlink()),
    Case("kubeconfig empty", 2, "no kubeconfig", kubeconfig("")),
    Case("kubeconfig no YAML", 2, "no kubeconfig", kubeconfig("clusters: [\n\t}")),
    Case("kubeconfig a list", 2, "no kubeconfig", kubeconfig("- a\n- b\n")),
    Case("kubeconfig without contexts", 2, "no kubeconfig", kubeconfig("apiVersion: v1\nkind: Config\n")),
    Case("refused", 4, "cannot be reached.*", lambda world: world.kubeconfig("http://127.0.0.1:1")),
    Case("no TLS there", 4, "no TLS with https://", lambda w: w.kubeconfig(w.url.replace("http://", "https://"))),
    Case("401", 2, "does not accept the credentials", lambda world: world.kubeconfig(token="nobody")),
    Case("image", 4, "cannot pull registry.example/runtime:1: .*manifest unknown.*image_pull_secrets",
         lambda world: world.candidates(pull_error="manifest unknown")),
    Case("crash", 4, "crashed .*exit code 3.*KeyError: 'weights'",
         lambda world: world.candidates(crash_after_s=0.5, exit_code=3, log="Traceback\nKeyError: 'weights'\n")),
    Case("memory", 4, "OOMKilled.*raise resources.memory",
         lambda world: world.candidates(crash_after_s=0.5, exit_code=137, log="loading\n")),
    Case("no image name", 4, "cannot pull .*couldn't parse image name",
         lambda world: world.candidates(stuck=("InvalidImageName", "couldn't parse image name: invalid reference"))),
    Case("no Secret", 4, """cannot start .*secret "wandb" not found""",
         lambda world: world.candidates(stuck=("CreateContainerConfigError", 'secret "wandb" not found'))),
    Case("not published", 4, "exit code 3.*W&B has no bento acme/vision/digits:b2",
         lambda world: world.candidates(init_exit_code=3, log="ekiben: W&B has no bento acme/vision/digits:b2\n")),
    Case("unschedulable", 4, "no node takes .*Insufficient nvidia.com/gpu.*node_selector",
         lambda world: world.candidates(unschedulable="1 Insufficient nvidia.com/gpu")),
    Case("quota", 4, "cannot be created: .*exceeded quota: small.*raise the ResourceQuota",
         lambda world: quota(world, pods="3")),
    Case("quota of limits", 4, "failed quota: small: must specify limits.cpu for: bento.*set resources.cpu_limit",
         lambda world: quota(world, **{"limits.cpu": "10"})),
    Case("pod security", 4, 'violates PodSecurity "restricted:latest": privileged', restricted),
    Case("no managed-by", 2, "Service digits in default is not ekiben's: it was left alone", owned_by(None)),
    Case("Helm's", 2, "Service digits in default is not ekiben's: it was left alone", owned_by("Helm")),
    Case("empty selector", 2, "no selector or no epoch", selecting({})),
    Case("foreign selector", 2, "names no colour", selecting({"app": "theirs"})),
    Case("foreign label in the selector", 2, "names app too", selecting(
         {"app": "theirs", "ekiben.dev/service": "digits", "ekiben.dev/slot": "blue"})),
    Case("selector applied by Argo CD", 2, "is applied by argocd-controller too: it was left alone",
         applied_by("argocd-controller")),
    Case("selector applied by kubectl", 2, "is applied by kubectl apply too", last_applied),
    Case("namespace missing", 3, "no namespace missing", lambda world: world.cluster.tokens.clear(),
         args=("digits", "--env", "nowhere", *GIVEN)),
    Case("namespace terminating", 3, "namespace is being deleted", terminating,
         args=("digits", "--env", "nowhere", *GIVEN)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_said_and_what_is_live_stays(
    world: World, case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.spoil(world)
    before = world.live()
    code, out, err = ekiben(monkeypatch, capsys, "deploy", *case.args, "--json")
    assert code == case.code, out + err
    told = json.loads(out)["error"]
    assert told["exit_code"] == case.code
    assert told["next_step"] or told["wanted"], told
    assert re.search(case.said, err, re.DOTALL), err
    assert world.live() == before


def test_no_environment_is_called_local(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.root / "pyproject.toml").write_text(PROJECT.replace("elsewhere", "local"))
    before = world.live()
    code, out, err = ekiben(monkeypatch, capsys, "deploy", "digits", *STAGING, *GIVEN, "--json")
    assert (code, json.loads(out)["error"]["exit_code"]) == (2, 2)
    assert "environments: `--env local` means this machine" in err
    assert world.live() == before


def test_a_server_that_does_not_answer(
    world: World, silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "TIMEOUT_SECONDS", 0.2)
    world.kubeconfig(silent)
    code, out, err = ekiben(monkeypatch, capsys, "deploy", "digits", *STAGING, *GIVEN, "--json")
    assert (code, json.loads(out)["error"]["exit_code"]) == (4, 4)
    assert "did not answer get" in err


def test_a_certificate_of_somebody_else(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as server:

        def refuse() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except ssl.SSLError:
                    continue  # the client does not like the certificate
                except OSError:
                    return

        threading.Thread(target=refuse, daemon=True).start()
        world.kubeconfig(f"https://127.0.0.1:{server.getsockname()[1]}")
        code, _, err = ekiben(monkeypatch, capsys, "deploy", "digits", *STAGING, *GIVEN)
    assert (code, "certificate-authority-data" in err) == (4, True), err


def test_what_is_said_of_a_selector_that_others_apply_mends_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    applied_by("argocd-controller")(world)
    said = ekiben(monkeypatch, capsys, "deploy", "digits", *STAGING, *GIVEN)[2]
    forget = re.search(r"--type merge -p '(.*)'", said)
    assert forget
    where, content = "/api/v1/namespaces/default/services/digits", "application/merge-patch+json"
    world.request("PATCH", where, {}, content, json.loads(forget[1]))
    assert "is applied by" not in ekiben(monkeypatch, capsys, "deploy", "digits", *STAGING, *GIVEN)[2]
    assert world.cluster.get("services", "digits")["spec"]["selector"] == world.target.selector("green")


# Which verbs on which resources a deploy uses before it switches.
USED = [
    ("deployments", "apps", "get"),
    ("deployments", "apps", "patch"),
    ("deployments", "apps", "create"),
    ("services", "", "get"),
    ("services", "", "patch"),
    ("services/proxy", "", "create"),
    ("pods", "", "list"),
    ("pods/proxy", "", "get"),
    ("endpointslices", "discovery.k8s.io", "list"),
    ("horizontalpodautoscalers", "autoscaling", "patch"),
    ("horizontalpodautoscalers", "autoscaling", "create"),
    ("poddisruptionbudgets", "policy", "patch"),
    ("networkpolicies", "networking.k8s.io", "patch"),
]


@pytest.mark.parametrize(("resource", "group", "verb"), USED)
def test_a_missing_permission_is_named_with_a_rule_of_the_shipped_role(
    world: World, resource: str, group: str, verb: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    world.without(resource, verb)
    before = world.live()
    code, out, err = ekiben(monkeypatch, capsys, "deploy", "digits", *STAGING, *GIVEN, "--json")
    assert code == 2, out + err
    told = json.loads(out)["error"]
    assert f"not allowed to {verb} {resource}{f'.{group}' if group else ''} in default: " in told["seen"]
    snippet = re.search(r"\{.*\}", told["wanted"])
    assert snippet, told
    wanted = yaml.safe_load(snippet[0])
    assert (wanted["apiGroups"], wanted["resources"], wanted["verbs"]) == ([group], [resource], [verb])
    names = set(wanted.get("resourceNames", ()))
    assert any(
        {group} <= set(rule["apiGroups"])
        and {resource} <= set(rule["resources"])
        and {verb} <= set(rule["verbs"])
        and (not rule.get("resourceNames") or (names and names <= set(rule["resourceNames"])))
        for rule in rules(world.target)
    ), "the shipped Role does not have it"
    assert world.live() == before


def test_a_pod_that_hangs_holds_up_no_look(world: World) -> None:
    """Four pods, one of which takes a connection and says nothing: the other three are known in time."""
    world.cluster.tokens = {}
    with world.cluster.store.changed:
        found = world.cluster.get("deployments", "digits-blue")
        found["spec"]["replicas"] = 4
        found["metadata"]["generation"] += 1
        world.cluster.store.put(world.cluster.resource("deployments"), found)
        world.cluster.advance(30)
    names = [pod["metadata"]["name"] for pod in world.cluster.objects("pods", labels="ekiben.dev/slot=blue")]
    assert len(names) == 4
    world.cluster.fail(f"get pods/proxy .*{names[1]}", times=100, delay=30)
    from time import monotonic

    from ekiben.platforms.kubernetes.api import Api
    from ekiben.platforms.kubernetes.kubeconfig import configured
    from ekiben.platforms.kubernetes.platform import KubernetesPlatform

    place = KubernetesPlatform(Api(configured("fake")), world.target)
    began = monotonic()
    seen = look.look(place, "blue")
    assert monotonic() - began < 10, "not the 30 s of the pod that hangs"
    assert set(seen.counts) == set(names) - {names[1]}
    assert set(seen.silent) == {names[1]}
