"""`ekiben doctor --env`: what it says of a cluster in good order, and of each thing that can be wrong with it.

The fake API server answers over HTTP, with Argo's resources and with RBAC enforced. It stands on Kubernetes'
discovery, SelfSubjectReview, SelfSubjectAccessReview, the Pod Security labels and ResourceQuota's status; on Argo's
install manifests and its Helm chart, which both run an image called workflow-controller, and on its controller's
--namespaced and --managed-namespace. A container registry answers GET /v2/ with 200, or with 401 where it wants a
login (OCI distribution specification).
"""

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.config import Project
from ekiben.doctor import addresses, argo, cluster, environment, finding, keys, permissions
from ekiben.doctor import controller as argo_controller
from ekiben.doctor.finding import Finding
from ekiben.environments import Environment
from ekiben.errors import UsageError
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.kubeconfig import configured
from ekiben.platforms.manifests import groups
from ekiben.platforms.manifests.names import Target
from tests import crd_checks
from tests.fakes.argo import controller as fake
from tests.fakes.argo import server as argo_server
from tests.fakes.argo.server import ArgoServer
from tests.fakes.kubernetes import access
from tests.fakes.kubernetes.access import ADMIN, service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.fakes.kubernetes.resources import CUSTOM, Resource
from tests.fakes.kubernetes.routing import Router
from tests.fakes.kubernetes.samples import deployment

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
KEY, PLANTED = "k" * 40, "planted-secret-value"
METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", custom=True)
CUSTOM_METRICS = Resource("custom.metrics.k8s.io", "v1beta1", "metrics", "MetricValueList", custom=True)


@contextmanager
def answering(answers: dict[str, tuple[int, Json]]) -> Iterator[str]:
    """HOST:PORT of a server that gives these answers by method and path; 404 to all else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(f"{self.command} {self.path}", (404, {}))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with answering({"GET /v2/": (401, {})}) as address:
        yield address


@pytest.fixture(scope="module")
def wandb() -> Iterator[str]:
    viewer = {"data": {"viewer": {"id": "1", "username": "anna", "entity": "acme"}}}
    with answering({"GET /healthz": (200, {}), "POST /graphql": (200, viewer)}) as address:
        yield f"http://{address}"


@dataclass
class World:
    """A cluster in good order, as it is made; `settings` are the environment's."""

    settings: Json
    cluster: Cluster = field(default_factory=fake.cluster)
    environ: dict[str, str] = field(default_factory=dict)
    documents: Json = field(default_factory=dict)
    token: str = "admin"
    context: str = "fake"
    timeout: float = 20.0

    @property
    def target(self) -> Target:
        return Target("digits", "staging", Environment.model_validate(self.settings))

    def serve(self, *more: Resource) -> None:
        self.cluster.served += more
        self.cluster.router = Router(self.cluster.served)

    def stop_serving(self, plural: str, group: str = "argoproj.io") -> None:
        self.cluster.served = [each for each in self.cluster.served if each.key != (group, plural)]
        self.cluster.router = Router(self.cluster.served)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "merge-patch") -> None:
        headers = {"content-type": f"application/{kind}+json", "authorization": "Bearer admin"}
        answer = self.cluster.request(method, path, {}, headers, body)
        assert answer.status < 300, answer.body

    def delete(self, group: str, plural: str, name: str, namespace: str = "ml") -> None:
        self.ask("DELETE", f"/{group}/namespaces/{namespace}/{plural}/{name}")

    def findings(self, folder: Path, url: str) -> dict[str, Finding]:
        kubeconfig = write_kubeconfig(
            folder / "kubeconfig", url, token=self.token, namespace="ml", context=self.context
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(kubeconfig))
            told = environment.findings(self.target, self.documents, self.environ, self.timeout)
        assert len({each.name for each in told}) == len(told)
        return {each.name: each for each in told}


def controller(image: str = "quay.io/argoproj/workflow-controller:v4.1.2", *args: str) -> Json:
    made = deployment("workflow-controller", 1, image)
    made["spec"]["template"]["spec"]["containers"][0]["args"] = list(args)
    return made


def settings_of_argo(**data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": argo_controller.CONFIG}, "data": data}


def secret(name: str, **keys: str) -> Json:
    data = {key.replace("_", "-"): b64encode(value.encode()).decode() for key, value in keys.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}


def binding(role: str, account: str, namespace: str = "ml") -> Json:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{account}-{role}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


@pytest.fixture
def world(registry: str, wandb: str) -> World:
    settings = {
        "context": "fake",
        "namespace": "ml",
        "image_repository": f"{registry}/team",
        "runtime_image": f"{registry}/team/runtime:1",
        "wandb_base_url": wandb,
        "image_pull_secrets": ["pull"],
    }
    made = World(settings, environ={"WANDB_BASE_URL": wandb, "WANDB_API_KEY": KEY})
    cluster = made.cluster
    made.serve(METRICS)
    for name in ("ml", "argo"):
        metadata = {
            "name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"} if name == "ml" else {},
        }
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "")
    cluster.create(controller(), "argo")
    cluster.advance(60)
    for document in yaml.safe_load_all((ROOT / "deploy" / "base" / "workflow-accounts.yaml").read_text()):
        cluster.create(document, "ml")
    for manifest in groups.setup(made.target):
        cluster.create(manifest, "ml")
    cluster.create(binding("digits-deployer", "ekiben-deploy"), "ml")
    for each in (secret("wandb", api_key=PLANTED), secret("ekiben-wandb", api_key=PLANTED)):
        cluster.create(each, "ml")
    pull = secret("pull") | {"data": {".dockerconfigjson": b64encode(b'{"auths": {}}').decode()}}
    cluster.create(pull | {"type": "kubernetes.io/dockerconfigjson"}, "ml")
    cluster.create(settings_of_argo(executor="securityContext: " + json.dumps(argo_controller.CONFINED)), "argo")
    for file in sorted((ROOT / "workflows").glob("*_on_cluster.yaml")):
        made.documents[file.stem] = list(yaml.safe_load_all(file.read_text()))
        cluster.create(yaml.safe_load(file.read_text()), "ml")
    cluster.tokens["admin"] = ADMIN
    return made


def test_a_cluster_in_good_order(world: World, tmp_path: Path) -> None:
    with served(world.cluster) as url:
        found = world.findings(tmp_path, url)
    assert {name: each.seen for name, each in found.items() if each.outcome != "ok"} == {}
    assert [*found][:9] == [
        "API server", "login", "namespace", "pod security", "quotas", "metrics-server", "Argo's resources",
        "Argo's controller", "workflows",
    ]  # fmt: skip
    assert found["login"].seen == "kubernetes-admin"
    assert found["W&B key"].seen == "valid; it is anna's"
    assert found["secret ekiben-wandb"].seen == "has api-key"
    assert found["secret ekiben-notify"].seen.startswith("not there; optional, for release_on_cluster")
    assert finding.exit_code([*found.values()]) == 0
    assert PLANTED not in str(found)
    assert KEY not in str(found)
    reads = {call.verb for call in world.cluster.log if call.resource not in ("deployments", "")}
    assert reads <= {"get", "list", "create", "patch"}
    assert {call.params.get("dryRun") for call in world.cluster.log if call.verb == "patch"} == {"All"}
    created = {call.resource for call in world.cluster.log if call.verb == "create"}
    assert created == {"selfsubjectreviews", "selfsubjectaccessreviews"}, "nothing is changed on the cluster"


def _replaced_controller(*given: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.delete("apis/apps/v1", "deployments", "workflow-controller", "argo")
        world.cluster.advance(30)
        if given:
            world.cluster.create(controller(*given), "argo")
            world.cluster.advance(60)

    return change


def _without(group: str, plural: str, name: str) -> Callable[[World], None]:
    return lambda world: world.delete(group, plural, name)


def _set(**settings: Any) -> Callable[[World], None]:
    return lambda world: world.settings.update(settings)


def _not_served(*given: str) -> Callable[[World], None]:
    return lambda world: world.stop_serving(*given)


def _fault(match: str, **effect: Any) -> Callable[[World], None]:
    return lambda world: world.cluster.fail(match, times=100, **effect) and None


def _another_key(world: World) -> None:
    world.delete("api/v1", "secrets", "ekiben-wandb")
    world.cluster.create(secret("ekiben-wandb", apikey=PLANTED, api_key=""), "ml")


def _label(value: str | None) -> Callable[[World], None]:
    change = {"metadata": {"labels": {cluster.ENFORCE: value}}}
    return lambda world: world.ask("PATCH", "/api/v1/namespaces/ml", change)


def _quota(world: World) -> None:
    quota = {"metadata": {"name": "team"}, "spec": {"hard": {"requests.cpu": "10", "pods": "40"}}}
    world.cluster.create({"apiVersion": "v1", "kind": "ResourceQuota", **quota}, "ml")
    status = {"status": {"hard": quota["spec"]["hard"], "used": {"requests.cpu": "9500m", "pods": "3"}}}
    world.ask("PATCH", "/api/v1/namespaces/ml/resourcequotas/team/status", status)


def _elsewhere(world: World) -> None:
    world.delete("apis/rbac.authorization.k8s.io/v1", "rolebindings", "ekiben-deploy-digits-deployer")
    world.cluster.create(binding("digits-deployer", "ekiben-deploy", "other"), "ml")


def _environ(**values: str) -> Callable[[World], None]:
    return lambda world: world.environ.update(values)


def _nobody(world: World) -> None:
    world.token = "expired"


TEMPLATES = "/apis/argoproj.io/v1alpha1/namespaces/ml/workflowtemplates"


def _stale(world: World) -> None:
    world.documents["release_on_cluster"][0]["spec"]["activeDeadlineSeconds"] = 60


def _edited(world: World) -> None:
    world.ask("PATCH", f"{TEMPLATES}/rollback-on-cluster", {"spec": {"activeDeadlineSeconds": 1}})


def _uninstalled(world: World) -> None:
    for documents in world.documents.values():
        for document in documents:
            world.ask("DELETE", f"{TEMPLATES}/{document['metadata']['name']}")


def _another_account(world: World) -> None:
    steps = [{"serviceAccountName": "own"}, {"serviceAccountName": "{{inputs.parameters.x}}"}]
    own = {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate", "metadata": {"name": "own"}}
    world.documents["own"] = [own | {"spec": {"templates": steps}}]
    world.cluster.create(world.documents["own"][0], "ml")


FAULTS: list[tuple[str, str, Callable[[World], None], str, str, str, int]] = [
    ("503", "API server", _fault("/version", status=503), "fail", "shutting down", "", 4),
    ("login", "login", _nobody, "fail", "does not accept the credentials", "log in again", 2),
    ("no namespace", "namespace", _set(namespace="nowhere"), "fail", "no namespace nowhere", "create namespace", 3),
    ("no level", "pod security", _label(None), "warn", "nothing is enforced", "label namespace ml", 0),
    ("privileged", "pod security", _label("privileged"), "warn", "privileged is enforced", "label", 0),
    ("quota", "quotas", _quota, "warn", r"^requests.cpu: 9500m of 10$", "raise the ResourceQuota", 0),
    ("quota 500", "quotas", _fault("list resourcequotas", status=500), "unknown", "500|timed out", "", 0),
    ("no metrics", "metrics-server", _not_served("pods", "metrics.k8s.io"), "fail", "is not served",
     "install metrics-server", 3),
    ("no KEDA", "KEDA", _set(autoscaling={"kind": "keda"}, prometheus="http://p:9090"), "fail",
     "keda.sh/v1alpha1 is not served", "install KEDA", 3),
    ("no adapter", "metrics adapter", _set(autoscaling={"kind": "in-progress"}), "fail", "custom.metrics", "inst", 3),
    ("no operator", "Prometheus operator", _set(service_monitor=True), "fail", "monitoring.coreos.com", "install", 3),
    ("no gateway", "Gateway API", _set(http_route="digits"), "fail", "gateway.networking", "install the Gateway", 3),
    ("no Argo", "Argo's resources", lambda world: [world.stop_serving(each) for each in argo.NEEDED] and None, "fail",
     "v1alpha1 is not served", "install Argo Workflows", 3),
    ("half of Argo", "Argo's resources", _not_served("workfloweventbindings"), "fail", "lacks workfloweventbindings",
     "install Argo", 3),
    ("no controller", "Argo's controller", _replaced_controller(), "fail", "no Deployment", "install Argo", 3),
    ("Argo 3.5", "Argo's controller", _replaced_controller("argoproj/workflow-controller:v3.5.14"), "fail", "v3.5.14",
     "upgrade", 2),
    ("Argo 3.7", "Argo's controller", _replaced_controller("argoproj/workflow-controller:v3.7.1"), "warn", "v3.7.1",
     "upgrade", 0),
    ("Argo latest", "Argo's controller", _replaced_controller("reg.example:5000/workflow-controller@sha256:12"),
     "unknown", "tells no version", "pin", 0),
    ("another's controller", "Argo's controller",
     _replaced_controller("argoproj/workflow-controller:v4.1.2", "--namespaced"), "fail", "see only", "--name", 2),
    ("a mirror", "Argo's controller", _replaced_controller("reg.example:5000/argo/workflow-controller:v4.0.7-1"), "ok",
     "v4.0.7", "", 0),
    ("no images", "registry", _set(image_repository="", runtime_image=""), "warn", "neither", "set image_repos", 0),
    ("an older workflow", "workflows", _stale, "warn", "^other than here: release_on_cluster$",
     "apply release_on_cluster, first with --dry-run", 0),
    ("an edited workflow", "workflows", _edited, "warn", "^other than here: rollback_on_cluster$", "--dry-run", 0),
    ("no workflow", "workflows", _uninstalled, "warn", "none is installed in ml", "ekiben workflow apply", 0),
    ("no Argo Server", "Argo Server", _environ(ARGO_SERVER="127.0.0.1:1", ARGO_SECURE="false"), "fail",
     "127.0.0.1:1|refused", "", 4),
    ("a wrong Argo Server", "Argo Server", _environ(ARGO_SERVER="http://"), "fail", "no address", "", 2),
    ("another account", "workflows' accounts", _another_account, "fail", "^not there: own$", "", 3),
    ("no account", "workflows' accounts", _without("api/v1", "serviceaccounts", "ekiben-build"), "fail",
     "^not there: ekiben-build$", "workflow-accounts.yaml", 3),
    ("no deployer", "service's accounts", _without("api/v1", "serviceaccounts", "digits-deployer"), "fail",
     "digits-deployer", "ekiben render digits --env staging", 3),
    ("not bound", "deployer's rights",
     _without("apis/rbac.authorization.k8s.io/v1", "rolebindings", "ekiben-deploy-digits-deployer"), "fail",
     "ekiben-deploy is not bound", "create rolebinding ekiben-deploy-digits --role=digits-deployer", 2),
    ("bound elsewhere", "deployer's rights", _elsewhere, "fail", "not bound", "create rolebinding", 2),
    ("no executor", "executor's rights",
     _without("apis/rbac.authorization.k8s.io/v1", "rolebindings", "ekiben-executor"), "fail",
     "ekiben-train, ekiben-build", "workflow-accounts.yaml", 2),
    ("no Role", "deployer's Role", _without("apis/rbac.authorization.k8s.io/v1", "roles", "digits-deployer"), "fail",
     "no Role digits-deployer", "ekiben render", 3),
    ("an old Role", "deployer's Role", _set(http_route="digits"), "fail",
     r"^digits-deployer does not allow: get, patch httproutes.gateway.networking.k8s.io \(digits\)$", "render", 2),
    ("no executor's Role", "executor's Role", _without("apis/rbac.authorization.k8s.io/v1", "roles", "ekiben-executor"),
     "fail", "no Role ekiben-executor", "workflow-accounts", 3),
    ("no secret", "secret ekiben-wandb", _without("api/v1", "secrets", "ekiben-wandb"), "fail", "^not there$",
     "create secret generic ekiben-wandb --from-file=api-key=FILE", 3),
    ("wrong key", "secret ekiben-wandb", _another_key, "fail", "^has apikey; lacks api-key$", "add the key", 3),
    ("no pull secret", "secret pull", _without("api/v1", "secrets", "pull"), "fail", "not there", "docker-registry", 3),
    ("no registry", "registry 127.0.0.1:1", _set(image_repository="127.0.0.1:1/team"), "fail", "refused", "correct", 4),
    ("no W&B", "W&B server", _set(wandb_base_url="http://127.0.0.1:1"), "fail", "does not answer", "check", 4),
    ("a key for another", "W&B key", _environ(WANDB_BASE_URL="https://elsewhere.example"), "warn", "not set here",
     "export", 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "change", "outcome", "seen", "step", "code"),
    [each[1:] for each in FAULTS],
    ids=[each[0] for each in FAULTS],
)
def test_what_is_wrong_is_said(
    world: World,
    tmp_path: Path,
    row: str,
    change: Callable[[World], None],
    outcome: str,
    seen: str,
    step: str,
    code: int,
) -> None:
    change(world)
    with served(world.cluster) as url:
        found = world.findings(tmp_path, url)
    told = found[row]
    assert told.outcome == outcome, told
    assert re.search(seen, told.seen), told
    assert re.search(step, told.next_step), told
    assert told.exit_code == code
    if outcome == "fail":
        assert told.wanted
        assert finding.exit_code([*found.values()]) != 0
    assert "Traceback" not in str(found)
    assert PLANTED not in str(found)


def test_what_is_used_and_there_is_found(world: World, tmp_path: Path) -> None:
    world.serve(CUSTOM_METRICS, *CUSTOM.values())
    world.settings |= {"service_monitor": True, "http_route": "digits", "gateway": "infra/main"}
    with served(world.cluster) as url:
        for kind in ("keda", "in-progress"):
            world.settings |= {"autoscaling": {"kind": kind}, "prometheus": "http://p:9090"}
            found = world.findings(tmp_path, url)
            name = {"keda": "KEDA", "in-progress": "metrics adapter"}[kind]
            assert {found[each].outcome for each in (name, "Prometheus operator", "Gateway API", "HTTPRoute")} == {"ok"}
        world.settings |= {"gateway": ""}
        assert world.findings(tmp_path, url)["HTTPRoute"].seen == "no HTTPRoute digits"


def test_who_may_do_nothing_is_told_what_to_ask_for_and_that_mends_it(world: World, tmp_path: Path) -> None:
    """What is printed, applied as it stands, gives exactly what was missing."""
    world.cluster.tokens["ci"] = service_account("ml", "ci")
    world.token = "ci"
    mays = ("may run workflows", "may apply workflows", "may deploy digits")
    with served(world.cluster) as url:
        found = world.findings(tmp_path, url)
        assert found["login"].seen == "system:serviceaccount:ml:ci"
        assert {found[each].outcome for each in mays} == {"fail"}
        assert "not: create, get, patch, watch workflows.argoproj.io" in found["may run workflows"].seen
        assert found["namespace"].seen == "not allowed to get namespaces"
        assert "resources: [namespaces], verbs: [get], resourceNames: ['ml']" in found["namespace"].wanted
        for unknown in (
            "namespace",
            "quotas",
            "Argo's controller",
            "workflows' accounts",
            "accounts' rights",
            "secret wandb",
        ):
            assert found[unknown].outcome == "unknown", found[unknown]
        for may in mays:
            role, bound = yaml.safe_load_all(found[may].fix)
            world.cluster.create(role, "ml")
            world.cluster.create(bound, "ml")
            found = world.findings(tmp_path, url)
            assert found[may].outcome == "ok"
        assert {found[each].outcome for each in mays} == {"ok"}


def test_one_right_that_is_missing_is_named_alone(world: World, tmp_path: Path) -> None:
    world.cluster.tokens["d"] = service_account("ml", "digits-deployer")
    world.token = "d"
    with served(world.cluster) as url:
        assert world.findings(tmp_path, url)["may deploy digits"].outcome == "ok"
        role = world.cluster.get("roles", "digits-deployer", "ml")
        rules = [each for each in role["rules"] if each["resources"] != ["services/proxy"]]
        world.ask("PATCH", "/apis/rbac.authorization.k8s.io/v1/namespaces/ml/roles/digits-deployer", {"rules": rules})
        told = world.findings(tmp_path, url)["may deploy digits"]
    assert told.seen == "not: get, create services/proxy (digits-preview, digits-preview:http)"
    assert len(next(yaml.safe_load_all(told.fix))["rules"]) == 1


def test_a_dead_host_takes_one_time_limit_and_no_more(world: World, tmp_path: Path) -> None:
    """A server that takes connections and never answers: the kernel accepts, nobody reads."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)
        world.timeout = 1.0
        found = world.findings(tmp_path, f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert found["API server"].outcome == "fail"
    assert found["API server"].seen == "no answer within 1 s"
    assert found["API server"].exit_code == 4
    assert found["Argo's controller"].seen == "the API server does not answer"
    assert found["W&B key"].outcome == "ok", "what is outside the cluster is looked at all the same"


def test_a_context_that_is_not_there(world: World, tmp_path: Path) -> None:
    world.settings["context"] = "production"
    found = world.findings(tmp_path, "http://127.0.0.1:1")
    assert found["API server"].seen == "the kubeconfig has no context 'production'"
    assert found["API server"].exit_code == 2


@pytest.mark.parametrize("version", ["v1.29.4", "v1.30.1", "v1.33.0-eks-ab", "nonsense"])
def test_versions_of_kubernetes(version: str) -> None:
    class Told:
        server = "https://k"

        def get(self, path: str) -> Json:
            return {"gitVersion": version}

    told: Any = Told()
    assert cluster.server(told).outcome == ("fail" if version in ("v1.29.4", "nonsense") else "ok")


def test_quantities() -> None:
    assert [int(cluster.quantity(each)) for each in ("1500m", "2", "1Ki", "3M", "1e3", "0.5Gi")] == [
        1, 2, 1024, 3_000_000, 1000, 2**29,
    ]  # fmt: skip
    with pytest.raises(UsageError):
        cluster.quantity("many")


RULE = {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"], "resourceNames": ["a", "b"]}


@pytest.mark.parametrize(
    ("rules", "covered"),
    [
        ([RULE], True),
        ([{**RULE, "resourceNames": ["a"]}, {**RULE, "resourceNames": ["b"]}], True),
        ([{**RULE, "resourceNames": []}], True),
        ([{**RULE, "resources": ["*"], "verbs": ["*"], "apiGroups": ["*"]}], True),
        ([{**RULE, "resources": ["*/scale"]}], True),
        ([{**RULE, "resources": ["deployments"]}], False),
        ([{**RULE, "resourceNames": ["a"]}], False),
        ([{**RULE, "verbs": ["list"]}], False),
        ([{**RULE, "apiGroups": [""]}], False),
        ([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}], False),
    ],
)
def test_what_rules_cover(rules: list[Json], covered: bool) -> None:
    asked = permissions.attributes(RULE, "ml")
    assert len(asked) == 2
    assert all(any(permissions.covers(rule, one) for rule in rules) for one in asked) is covered
    # The fake's own RBAC, written apart from this, sees it likewise.
    for one in asked:
        theirs = any(access.covers(rule, "get", "apps", "deployments/scale", one["name"]) for rule in rules)
        assert theirs is any(permissions.covers(rule, one) for rule in rules)


def test_the_secrets_that_documents_refer_to() -> None:
    target = Target("digits", "staging", Environment())
    pod = {"volumes": [{"name": "v", "secret": {"secretName": "tls", "items": [{"key": "ca", "path": "ca"}]}}]}
    env = [
        {"valueFrom": {"secretKeyRef": {"name": "a", "key": "x"}}},
        {"valueFrom": {"secretKeyRef": {"name": "a", "key": "y", "optional": True}}},
        {"valueFrom": {"secretKeyRef": {"name": "{{inputs.parameters.s}}", "key": "y"}}},
    ]
    s3 = {"accessKeySecret": {"name": "s3", "key": "id"}, "secretKeySecret": {"name": "s3", "key": "key"}}
    document = {"spec": {**pod, "env": env, "s3": s3, "envFrom": [{"secretRef": {"name": "whole"}}]}}
    found = keys.needed({"w": [document]}, target)
    assert {namespace for namespace, _ in found} == {"default"}
    assert {name: each.keys for (_, name), each in found.items()} == {
        "tls": {"ca": True}, "a": {"x": True, "y": False}, "s3": {"id": True, "key": True}, "whole": {"": True},
    }  # fmt: skip
    assert list(found["default", "a"].by) == ["w"]


def test_workflows_in_a_namespace_of_their_own(world: World, tmp_path: Path) -> None:
    """Accounts, Secrets and templates are looked for there; the deploying one is bound where the services are."""
    world.settings |= {"namespace": "models", "pipeline_namespace": "ml"}
    made, restricted = world.cluster, {cluster.ENFORCE: "restricted"}
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models", "labels": restricted}}, "")
    for manifest in groups.setup(world.target):
        made.create(manifest, "models")
    for called in ("wandb", "pull"):
        world.delete("api/v1", "secrets", called)
        held = {"api-key": "eA==", ".dockerconfigjson": "e30="}
        made.create({**secret(called), "data": held}, "models")
    made.create(binding("digits-deployer", "ekiben-deploy"), "models")
    with served(made) as url:
        told = world.findings(tmp_path, url)
        assert {each.name: each.seen for each in told.values() if each.outcome != "ok"} == {}
        assert {"namespace", "pipelines' namespace", "quotas", "pipelines' quotas"} <= told.keys()
        assert told["namespace"].seen == "models"
        world.delete("apis/rbac.authorization.k8s.io/v1", "rolebindings", "ekiben-deploy-digits-deployer", "models")
        made.create(binding("digits-deployer", "ekiben-deploy", "models"), "models")
        rights = world.findings(tmp_path, url)["deployer's rights"]
    assert rights.outcome == "fail"
    assert "kubectl -n models create rolebinding" in rights.next_step
    assert "--serviceaccount=ml:ekiben-deploy" in rights.next_step


PROXY = "GET /api/v1/namespaces/{}/services/{}/proxy{}"
NO_SERVICE = {"kind": "Status", "code": 404, "message": 'services "x" not found'}
FORBIDDEN = {"kind": "Status", "code": 403, "message": "services is forbidden"}


@pytest.mark.parametrize(
    ("url", "place", "status", "body", "outcome"),
    [
        ("http://ekiben-tracker:8080", ("ml", "ekiben-tracker:8080", "/healthz"), 200, {}, "ok"),
        ("http://ekiben-tracker.ops.svc", ("ops", "ekiben-tracker:80", "/healthz"), 200, {}, "ok"),
        ("https://wandb.ops.svc.cluster.local/b", ("ops", "https:wandb:443", "/b/healthz"), 404, {}, "ok"),
        ("http://ekiben-tracker:8080", ("ml", "ekiben-tracker:8080", "/healthz"), 503, {}, "fail"),
        ("http://ekiben-tracker:8080", ("ml", "ekiben-tracker:8080", "/healthz"), 404, NO_SERVICE, "fail"),
        ("http://ekiben-tracker:8080", ("ml", "ekiben-tracker:8080", "/healthz"), 403, FORBIDDEN, "unknown"),
        ("http://a.b.invalid:8080", ("ml", "a", "/healthz"), 200, {}, "fail"),
    ],
)
def test_what_answers_within_the_cluster_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    place: tuple[str, ...],
    status: int,
    body: Json,
    outcome: str,
) -> None:
    with answering({PROXY.format(*place): (status, body)}) as address:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "k", f"http://{address}", token="t")))
        told = finding.run(addresses.wandb(url, "", (Api(configured("")), "ml")), 20)[0]
    assert told.outcome == outcome, told
    if outcome == "ok":
        assert told.seen == f"{url} answers within the cluster"


def test_prometheus_is_asked_as_the_watch_asks_it(world: World, tmp_path: Path) -> None:
    with served(world.cluster) as url, answering({"GET /api/v1/query?query=1": (200, {})}) as address:
        world.settings["prometheus"] = f"http://{address}"
        assert world.findings(tmp_path, url)["Prometheus"].outcome == "ok"
        world.settings["prometheus"] = f"http://{address}/elsewhere"
        told = world.findings(tmp_path, url)["Prometheus"]
        assert (told.outcome, told.exit_code) == ("fail", 4)
        world.settings["prometheus"] = "http://127.0.0.1:1"
        assert world.findings(tmp_path, url)["Prometheus"].outcome == "fail"


@pytest.mark.parametrize("token", ["good", "bad"])
def test_the_argo_server_is_asked_too(world: World, tmp_path: Path, token: str) -> None:
    server = ArgoServer(world.cluster)
    server.tokens = {"good": {"ml"}}
    with served(world.cluster) as url, argo_server.served(server) as address:
        world.environ |= {"ARGO_SERVER": f"http://{address}", "ARGO_TOKEN": token}
        told = world.findings(tmp_path, url)["Argo Server"]
    assert told.outcome == ("ok" if token == "good" else "fail"), told
    assert told.seen == f"http://{address}: v4.1.2" if token == "good" else told.exit_code == 2


@pytest.mark.parametrize(
    ("fields", "outcome"), [(["schedules"], "ok"), (["schedule", "schedules"], "warn"), ([], "unknown")]
)
def test_argo_by_its_definitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: list[str], outcome: str
) -> None:
    spec = {"properties": {each: {"type": "string"} for each in fields}}
    schemas = {"io.argoproj.v1alpha1.CronWorkflow": {"properties": {"spec": spec}}}
    forbidden = {"kind": "Status", "code": 403, "message": "deployments.apps is forbidden"}
    answers: dict[str, tuple[int, Json]] = {
        f"GET {path}": (403, forbidden)
        for path in ("/apis/apps/v1/deployments", "/apis/apps/v1/namespaces/ml/deployments",
                     "/apis/apps/v1/namespaces/argo/deployments")
    }  # fmt: skip
    answers["GET /openapi/v3/apis/argoproj.io/v1alpha1"] = (200, {"components": {"schemas": schemas}})
    with answering(answers) as address:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "k", f"http://{address}", token="t")))
        assert argo.controller(Api(configured("")), "ml").outcome == outcome


def test_the_definitions_of_argo_4_have_what_tells_it() -> None:
    file = crd_checks.CRDS / "cronworkflows.json"
    if not file.is_file():
        pytest.skip("Argo's definitions are not here: EKIBEN_ARGO_CRDS")
    (version,) = json.loads(file.read_text())["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert "schedules" in fields
    assert "schedule" not in fields


@pytest.mark.parametrize(
    ("data", "level", "chosen", "name", "outcome", "seen"),
    [
        ({}, "restricted", "", "Argo's own containers", "fail", "every pod of a step is refused"),
        ({}, "baseline", "", "Argo's own containers", "ok", "ml does not enforce restricted"),
        ({"config": "executor: {securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}"},
         "restricted", "", "Argo's own containers", "ok", "confined"),
        ({"config": "parallelism: 3", "executor": "securityContext: {}"},
         "restricted", "", "Argo's own containers", "fail", "every pod of a step is refused"),
        ({"executor": "[not: closed"}, "restricted", "", "Argo's own containers", "fail", "no security context"),
        ({"instanceID": "team"}, "baseline", "", "Argo's instance", "fail", "only workflows of instance team"),
        ({"config": "instanceID: team"}, "baseline", "team", "Argo's instance", "ok", "team"),
        ({}, "baseline", "team", "Argo's instance", "fail", "workflows of no instance; ARGO_INSTANCEID is team"),
    ],
)  # fmt: skip
def test_how_the_controller_is_set_up(
    world: World, tmp_path: Path, data: dict[str, str], level: str, chosen: str, name: str, outcome: str, seen: str
) -> None:
    path = f"/api/v1/namespaces/argo/configmaps/{argo_controller.CONFIG}"
    world.ask("DELETE", path)
    world.cluster.create(settings_of_argo(**data), "argo")
    world.ask("PATCH", "/api/v1/namespaces/ml", {"metadata": {"labels": {cluster.ENFORCE: level}}})
    world.environ |= {"ARGO_INSTANCEID": chosen} if chosen else {}
    with served(world.cluster) as url:
        told = world.findings(tmp_path, url)[name]
        assert (told.outcome, seen in told.seen) == (outcome, True), told
        if told.fix:  # what is printed mends it
            mended = yaml.safe_load(told.fix)
            within = (
                {"data": {"config": yaml.safe_dump(yaml.safe_load(data["config"]) | mended)}}
                if data.get("config")
                else mended
            )
            world.ask("PATCH", path, within)
            assert world.findings(tmp_path, url)[name].outcome == "ok"


def test_who_may_not_see_the_controller_s_settings_is_told_so(world: World, tmp_path: Path) -> None:
    world.cluster.fail("get configmaps", status=403)
    with served(world.cluster) as url:
        told = world.findings(tmp_path, url)["Argo's settings"]
    assert (told.outcome, told.exit_code) == ("unknown", 0)


def test_memoized_steps_need_a_controller_that_may_keep_them(world: World, tmp_path: Path) -> None:
    """The documented rights are enough: what is printed is what Argo's documentation asks for."""
    world.documents["retrain"] = list(yaml.safe_load_all((ROOT / "workflows" / "retrain.yaml").read_text()))
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "m"}, "rules": rules}
    with served(world.cluster) as url:
        assert "memoized steps" not in world.findings(tmp_path, url)
        world.cluster.create(world.documents["retrain"][0], "ml")
        told = world.findings(tmp_path, url)["memoized steps"]
        assert told.outcome == "fail"
        assert told.seen == "system:serviceaccount:argo:default may not get, create, update configmaps in argo"
        assert "--verb=get,create,update --resource=configmaps" in told.next_step
        world.cluster.create(role, "argo")
        world.cluster.create(binding("m", "default", "argo"), "argo")
        assert world.findings(tmp_path, url)["memoized steps"].outcome == "ok"


def test_the_load_test_s_pods_need_a_service_to_find_each_other(world: World, tmp_path: Path) -> None:
    world.documents["loadtest"] = list(yaml.safe_load_all((ROOT / "workflows" / "loadtest.yaml").read_text()))
    with served(world.cluster) as url:
        assert "Service ekiben-loadtest" not in world.findings(tmp_path, url)
        world.cluster.create(world.documents["loadtest"][0], "ml")
        told = world.findings(tmp_path, url)["Service ekiben-loadtest"]
        assert (told.outcome, told.exit_code) == ("fail", 3)
        assert told.next_step == "kubectl -n ml apply -f deploy/base/loadtest.yaml"
        world.cluster.create(yaml.safe_load((ROOT / "deploy" / "base" / "loadtest.yaml").read_text()), "ml")
        assert world.findings(tmp_path, url)["Service ekiben-loadtest"].outcome == "ok"


def test_rights_by_a_group_are_rights(world: World, tmp_path: Path) -> None:
    root = "/apis/rbac.authorization.k8s.io/v1/namespaces/ml/rolebindings"
    bindings = world.cluster.objects("rolebindings", "ml")
    with served(world.cluster) as url:
        for group, outcome in (("system:serviceaccounts:other", "fail"), ("system:serviceaccounts:ml", "ok")):
            subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}
            for each in bindings:
                world.ask("PATCH", f"{root}/{each['metadata']['name']}", {"subjects": [subject]})
            assert world.findings(tmp_path, url)["executor's rights"].outcome == outcome


def test_rights_by_another_role_are_rights(world: World, tmp_path: Path) -> None:
    """As where an administrator gives steps a ClusterRole; who may not ask that sees only our own Roles' bindings."""
    group = "rbac.authorization.k8s.io"
    for each in world.cluster.objects("rolebindings", "ml"):
        world.delete(f"apis/{group}/v1", "rolebindings", each["metadata"]["name"])
    rule = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["*"]}
    subject = {"apiGroup": group, "kind": "Group", "name": "system:serviceaccounts"}
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": "steps"}, "rules": [rule]}
    bound = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "steps"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "steps"},
        "subjects": [subject],
    }
    with served(world.cluster) as url:
        assert world.findings(tmp_path, url)["executor's rights"].outcome == "fail"
        for each in (role, bound):
            world.cluster.create(each, "")
        told = world.findings(tmp_path, url)
        assert (told["executor's rights"].outcome, told["deployer's rights"].outcome) == ("ok", "fail")
        world.cluster.fail("create subjectaccessreviews", status=403)
        assert world.findings(tmp_path, url)["executor's rights"].outcome == "fail"


def test_a_registry_without_tls_is_asked_so_where_the_project_says_it_is_one(world: World) -> None:
    with served(world.cluster) as url:
        host = f"0.0.0.0:{url.rpartition(':')[2]}"  # this machine, by an address that does not say so
        seen = {
            insecure: addresses.registries([f"{host}/team/digits"], insecure)[0].look()[0] for insecure in ((), (host,))
        }
    assert seen[()].seen.startswith("no answer from here")
    assert seen[(host,)].seen.startswith("GET /v2/ answers")


def test_what_nobody_has_installed_asks_for_nothing(world: World, tmp_path: Path) -> None:
    """The project's own workflows, as the command reads them; `promote` is three documents."""
    from ekiben.commands.doctor import _documents

    world.documents = _documents(Project(ROOT))
    assert [each["kind"] for each in world.documents["promote"]] == [
        "WorkflowTemplate", "CronWorkflow", "WorkflowEventBinding",
    ]  # fmt: skip
    with served(world.cluster) as url:
        told = world.findings(tmp_path, url)
        assert told["workflows' accounts"].outcome == "ok"
        assert "not installed: loadtest, promote, release, retrain" in told["workflows"].seen
        world.cluster.create(world.documents["promote"][0], "ml")
        told = world.findings(tmp_path, url)
        assert (told["workflows' accounts"].outcome, told["workflows"].outcome) == ("fail", "warn")
        assert "ekiben-promote" in told["workflows' accounts"].seen


def _ekiben(root: Path, *args: str, code: int, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ekiben.cli", "doctor", *args],
        cwd=root,
        env={**os.environ, "KUBECONFIG": str(root / "kubeconfig"), **env},
        text=True,
        capture_output=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_command(world: World, tmp_path: Path) -> None:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "bentos" / "digits").mkdir(parents=True)
    (tmp_path / "bentos" / "digits" / "recipe.py").touch()
    (tmp_path / "workflows").mkdir()
    for name, document in world.documents.items():
        (tmp_path / "workflows" / f"{name}.yaml").write_text(yaml.safe_dump_all(document))
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in world.settings.items())
    (tmp_path / "pyproject.toml").write_text(f"[tool.ekiben.environments.staging]\n{table}")
    with served(world.cluster) as url:
        write_kubeconfig(tmp_path / "kubeconfig", url, token="admin")
        out = _ekiben(tmp_path, "--env", "staging", code=0, **world.environ)
        lines = out.splitlines()
        assert re.fullmatch(r"ok {7}API server {9,}\S.*", lines[0])
        assert lines[-1] == f"{len(lines) - 2} ok, 0 warn, 0 fail, 0 unknown"
        world.delete("api/v1", "secrets", "ekiben-wandb")
        told = json.loads(_ekiben(tmp_path, "--env", "staging", "--json", code=3, **world.environ))
        assert told["exit_code"] == 3
        bad = [each for each in told["checks"] if each["outcome"] == "fail"]
        assert [each["name"] for each in bad] == ["secret ekiben-wandb"]
        out = _ekiben(tmp_path, "--env", "staging", code=3, **world.environ)
        assert "next:   kubectl -n ml create secret generic ekiben-wandb --from-file=api-key=FILE" in out
        assert PLANTED not in out + str(told)
        assert KEY not in out + str(told)
    _ekiben(tmp_path, "--env", "nowhere", code=3)
    (tmp_path / "workflows" / "bad.yaml").write_text("a: [")
    _ekiben(tmp_path, "--env", "staging", code=2)


def test_an_error_of_a_check_is_unknown_and_no_traceback() -> None:
    def breaks() -> list[Finding]:
        raise KeyError("x")

    (told,) = finding.run([finding.Check("a", breaks)], 5)
    assert told == finding.unknown("a", "the check itself failed: KeyError: 'x'")
