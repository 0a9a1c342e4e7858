"""deploy/: the base and the example of a team's namespace, as files and as kustomize makes one of them.

It stands on kustomize's format (v1beta1; a file must lie in or below its folder), on the schemas of Kubernetes and of
Argo's custom resources, on RBAC, and on quotas, which refuse a container that names no request of what they count.
What a real kustomize makes is applied to the fake API server, and `ekiben doctor` finds it there.
"""

import json
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.doctor import accounts, cluster, keys
from ekiben.environments import Environment
from ekiben.pipeline import distributed
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.manifests import groups
from ekiben.platforms.manifests.names import Target
from tests import crd_checks
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.http import transport
from tests.fakes.kubernetes_platform import bento, config
from tests.manifest_checks import check_restricted

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy" / "overlays" / "example"
FOLDERS = [ROOT / "deploy" / "base", EXAMPLE]
KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "images", "patches", "labels", "replicas"}
"""Of kustomize's keys: no generator of Secrets, no key that is deprecated."""


def kustomization(folder: Path) -> Json:
    found: Json = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return found


def manifests(folder: Path) -> list[tuple[Path, Json]]:
    files = [folder / each for each in kustomization(folder)["resources"] if each.endswith(".yaml")]
    return [(file, document) for file in files for document in yaml.safe_load_all(file.read_text())]


def kustomize(folder: Path) -> list[Json]:
    """What kustomize makes of it; skipped where there is none, or one that is too old for `patches`."""
    program = shutil.which("kustomize")
    command = [program, "build"] if program else ["kubectl", "kustomize"]
    if not program:
        if not shutil.which("kubectl"):
            pytest.skip("neither kustomize nor kubectl is installed")
        told = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True)
        version = json.loads(told.stdout or "{}").get("kustomizeVersion", "v0")
        if int(version.removeprefix("v").split(".")[0]) < 5:
            pytest.skip("kubectl is too old: its kustomize is older than 5")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def valid(document: Json) -> None:
    if document["apiVersion"].startswith("argoproj.io/"):
        if crd_checks.CRDS.is_dir():
            assert crd_checks.problems(document) == []
        return
    import kubernetes_validate

    for version in ("1.30", "1.33"):
        kubernetes_validate.validate(document, version, strict=True)
    for rule in document["rules"] if document["kind"] == "Role" else ():
        given = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not given & {"*", "secrets", "roles", "rolebindings", "serviceaccounts", "escalate", "bind"}, rule
        assert "patch" not in rule["verbs"] or "resourceNames" in rule or rule["resources"] == ["workflowtaskresults"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_files(folder: Path) -> None:
    told = kustomization(folder)
    assert told.keys() <= KNOWN
    assert told["kind"] == "Kustomization"
    named = [*told["resources"], *(patch["path"] for patch in told.get("patches", ()))]
    for each in named:
        target = (folder / each).resolve()
        assert (target / "kustomization.yaml").is_file() if target.is_dir() else target.is_file(), each
        assert target.is_dir() or target.parent == folder.resolve(), f"{each}: kustomize reads no file from elsewhere"
    beside = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml", *named}
    text = (folder / "kustomization.yaml").read_text()
    assert all(f"# - {file}" in text for file in beside), f"in no kustomization: {beside}"
    ids = [(each["kind"], each["metadata"]["name"]) for _, each in manifests(folder)]
    assert len(ids) == len(set(ids))
    for _, document in manifests(folder):
        valid(document)
    for patch in told.get("patches", ()):
        (change,) = yaml.safe_load_all((folder / patch["path"]).read_text())
        patched = [each for each in told["resources"] if (folder / each).is_dir()]
        below = [each for name in patched for _, each in manifests(folder / name)]
        identity = (change["kind"], change["metadata"]["name"])
        assert identity in [(each["kind"], each["metadata"]["name"]) for each in below]


def test_no_secret_is_made() -> None:
    for folder in FOLDERS:
        assert not {"Secret"} & {each["kind"] for _, each in manifests(folder)}
        assert not {"secretGenerator", "configMapGenerator"} & kustomization(folder).keys()


@pytest.fixture(scope="module")
def built() -> list[Json]:
    return kustomize(EXAMPLE)


def of(built: list[Json], kind: str) -> dict[str, Json]:
    return {each["metadata"]["name"]: each for each in built if each["kind"] == kind}


def test_what_kustomize_makes_is_valid(built: list[Json]) -> None:
    for document in built:
        valid(document)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "team-models"
    for deployment in of(built, "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        check_restricted(pod | {"automountServiceAccountToken": False})  # some ask the API server
        images = {each["image"] for each in [*pod["containers"], *pod.get("initContainers", [])]}
        assert all(each.startswith("registry.example/team/") for each in images)
    claim = of(built, "PersistentVolumeClaim")["ekiben-tracker"]["spec"]
    assert claim["resources"]["requests"]["storage"] == "100Gi"
    assert claim["storageClassName"] == "fast"
    bindings = of(built, "RoleBinding")
    controller = bindings.pop("ekiben-memory")  # it lives where Argo was installed
    assert controller["subjects"] == [{"kind": "ServiceAccount", "name": "argo", "namespace": "argo"}]
    for binding in bindings.values():
        assert {subject["namespace"] for subject in binding["subjects"]} == {"team-models"}
        assert {subject["name"] for subject in binding["subjects"]} <= of(built, "ServiceAccount").keys()


def test_the_secrets_it_speaks_of_are_listed(built: list[Json]) -> None:
    target = Target("digits", "production", Environment(runtime_image="r.example/x:1"))
    files = sorted((ROOT / "workflows").glob("*_on_cluster.yaml"))
    documents = {f"{each['kind']} {each['metadata']['name']}": [each] for each in built}
    documents |= {file.stem: [yaml.safe_load(file.read_text())] for file in files}
    said = (EXAMPLE / "kustomization.yaml").read_text()
    for (_, name), secret in keys.needed(documents, target).items():
        (line,) = [each for each in said.splitlines() if each.startswith(f"#   {name} ")]
        assert all(key in line for key in secret.keys), line


def test_workflows_that_are_named_are_those_of_the_project(built: list[Json]) -> None:
    templates = {}
    for file in (ROOT / "workflows").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            templates[document["metadata"]["name"]] = document["spec"]
    for submits in (
        of(built, "WorkflowEventBinding")["release"]["spec"]["submit"],
        of(built, "CronWorkflow")["weekly-release"]["spec"]["workflowSpec"],
    ):
        known = templates[submits["workflowTemplateRef"]["name"]]["arguments"]["parameters"]
        assert {each["name"] for each in submits["arguments"]["parameters"]} <= {each["name"] for each in known}


def test_the_quota_lets_its_own_pods_in(built: list[Json]) -> None:
    hard = of(built, "ResourceQuota")["team"]["spec"]["hard"]
    (limits,) = of(built, "LimitRange")["team"]["spec"]["limits"]
    counted = {key.partition(".")[::2] for key in hard if key.startswith(("requests.cpu", "requests.mem", "limits."))}
    given = {("requests", key) for key in limits["defaultRequest"]} | {("limits", key) for key in limits["default"]}
    assert counted <= given, "Argo's own containers name nothing"
    claim = of(built, "PersistentVolumeClaim")["ekiben-tracker"]["spec"]["resources"]["requests"]["storage"]
    assert cluster.quantity(claim) <= cluster.quantity(hard["requests.storage"])
    for file in (ROOT / "workflows").glob("*_on_cluster.yaml"):
        for template in yaml.safe_load(file.read_text())["spec"]["templates"]:
            resources = (template.get("script") or {}).get("resources") or {}
            for key, amount in (resources.get("requests") or {}).items():
                most = cluster.quantity(hard.get(f"requests.{key}", "1E"))
                assert Decimal(0) < cluster.quantity(str(amount)) <= most, file.name


def _admitted(pod: Json, defaults: Json) -> dict[str, Decimal]:
    """What a pod takes of a quota after the LimitRange has filled in what its containers leave out, as it is counted:
    all containers together, or its largest init container."""

    def filled(container: Json) -> dict[str, Decimal]:
        resources = container.get("resources") or {}
        limits = {**defaults["default"], **(resources.get("limits") or {})}
        # A limit that is named is the request too where none is; only then the default.
        given = {**defaults["defaultRequest"], **(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for key, limit in limits.items():
            assert cluster.quantity(str(given[key])) <= cluster.quantity(str(limit)), f"{container['name']}: {key}"
        taken = {f"requests.{key}": cluster.quantity(str(each)) for key, each in given.items()}
        return taken | {f"limits.{key}": cluster.quantity(str(each)) for key, each in limits.items()}

    together = [filled(each) for each in pod["containers"]]
    alone = [filled(each) for each in pod.get("initContainers", ())]
    keys = {key for each in (*together, *alone) for key in each}
    sums = {key: sum(each.get(key, Decimal(0)) for each in together) for key in keys}
    return {key: max([sums[key], *(each.get(key, Decimal(0)) for each in alone)]) for key in keys}


def test_under_quota_and_limits_every_pod_of_the_team_starts(built: list[Json]) -> None:
    """Those of workflows with Argo's own containers in them; the tracker, the receiver, and both colours of a service,
    all at once."""
    hard = of(built, "ResourceQuota")["team"]["spec"]["hard"]
    (limits,) = of(built, "LimitRange")["team"]["spec"]["limits"]
    pods = []
    for deployment in of(built, "Deployment").values():
        pods += [deployment["spec"]["template"]["spec"]] * deployment["spec"]["replicas"]
    target = Target("digits", "production", Environment(namespace="team-models", runtime_image="r.example/x:1"))
    for slot in ("blue", "green"):
        (model,) = [each for each in groups.colour(target, slot, bento(1)) if each["kind"] == "Deployment"]
        pods += [model["spec"]["template"]["spec"]] * target.settings.replicas.max
    own = {"initContainers": [{"name": "init"}]}
    for file in ("release_on_cluster", "retrain", "promote"):
        for document in yaml.safe_load_all((ROOT / "workflows" / f"{file}.yaml").read_text()):
            spec = document["spec"].get("workflowSpec") or document["spec"]
            scripts = [each["script"] for each in spec.get("templates", ()) if "script" in each]
            pods += [own | {"containers": [{"name": "main", **each}, {"name": "wait"}]} for each in scripts]
    used = [_admitted(pod, limits) for pod in pods]
    for key in ("requests.cpu", "requests.memory", "limits.memory"):
        assert all(key in each for each in used), "what names none is refused"
        assert sum(each[key] for each in used) <= cluster.quantity(hard[key]), key
    assert len(pods) <= int(hard["pods"])


def test_applied_it_is_what_the_doctor_wants_to_see(built: list[Json]) -> None:
    target = Target("digits", "production", Environment(namespace="team-models", runtime_image="r.example/x:1"))
    made = fake.cluster()
    for document in sorted(built, key=lambda each: each["kind"] != "Namespace"):
        if document["kind"] in {each.kind for each in made.served}:
            made.create(document, "team-models")
    for document in groups.setup(target):
        made.create(document, "team-models")
    api = Api(config(), transport(made), made.advance)
    found = [
        *cluster.space(api, "team-models"),
        accounts.accounts(api, "accounts", accounts.WORKFLOW_ACCOUNTS, "team-models", ""),
        *accounts.bindings(api, target, accounts.WORKFLOW_ACCOUNTS),
    ]
    assert {each.name: each.outcome for each in found} == {
        "namespace": "ok",
        "pod security": "ok",
        "accounts": "ok",
        "executor's rights": "ok",
        "deployer's rights": "ok",
    }


def test_the_master_of_a_load_test_has_the_name_that_its_workers_ask_for() -> None:
    """A pod is called HOSTNAME.SUBDOMAIN while a headless Service of the subdomain's name selects it (Kubernetes: "DNS
    for Services and Pods"), and before it is ready only where the Service says so."""
    service = next(m for file, m in manifests(FOLDERS[0]) if file.name == "loadtest.yaml")
    spec = yaml.safe_load((ROOT / "workflows" / "loadtest.yaml").read_text())["spec"]
    templates = {each["name"]: each for each in spec["templates"]}
    pod, master = json.loads(templates["lead"]["podSpecPatch"]), templates["lead"]
    worker = next(task for task in templates["load-test"]["dag"]["tasks"] if task["name"] == "worker")
    assert worker["arguments"]["parameters"][0]["value"] == f"{pod['hostname']}.{pod['subdomain']}"
    assert len(pod["hostname"].replace("{{workflow.uid}}", "x" * 36)) <= 63
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"].items() <= master["metadata"]["labels"].items()
    ports = [each["containerPort"] for each in master["script"]["ports"]]
    assert [each["port"] for each in service["spec"]["ports"]] == ports == [distributed.PORT]
