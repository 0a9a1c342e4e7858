"""deploy/base/webhook.yaml: its command serves without writing to the project, and with no more than its Role.

It stands on Kubernetes' RBAC: `create` cannot be limited to names; what no rule allows is 403. And on the restricted
Pod Security profile: not root, no rights to gain, no capabilities, RuntimeDefault seccomp.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.contract.conftest import Server, client_environment
from tests.contract.test_webhook import TEMPLATE, deleted, event, signed
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.http import served, write_kubeconfig

BASE = Path(__file__).parents[2] / "deploy" / "base"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((BASE / "webhook.yaml").read_text()))
ACCOUNTS: list[dict[str, Any]] = list(yaml.safe_load_all((BASE / "workflow-accounts.yaml").read_text()))
DEPLOYMENT = next(each for each in DOCUMENTS if each["kind"] == "Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
MAIN = POD["containers"][0]


def of(kind: str, documents: list[dict[str, Any]] = DOCUMENTS) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


def test_it_is_valid_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in DOCUMENTS:
        validate.validate(document, "1.33", strict=True)


def test_names_fit_together() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"].items()
    assert of("Service")["ekiben-webhook"]["spec"]["selector"].items() <= labels
    policy = of("NetworkPolicy")["ekiben-webhook"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels
    ports = {port["name"] for port in MAIN["ports"]}
    probes = {MAIN[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")}
    assert ports == probes == {each["targetPort"] for each in of("Service")["ekiben-webhook"]["spec"]["ports"]}
    assert ports == {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert POD["serviceAccountName"] in of("ServiceAccount")
    roles = of("Role") | of("Role", ACCOUNTS)
    for binding in of("RoleBinding").values():
        assert binding["roleRef"]["name"] in roles
        assert {subject["name"] for subject in binding["subjects"]} <= of("ServiceAccount").keys()
    assert {mount["name"] for mount in MAIN["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    assert "data" not in of("ConfigMap")["ekiben-promotions"], "applying it again would take back what was noted"


def test_it_is_confined_and_holds_no_secret() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] > 0
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert MAIN["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for variable in MAIN["env"]:
        if any(word in variable["name"] for word in ("KEY", "SECRET", "TOKEN")):
            assert variable.keys() == {"name", "valueFrom"}
    for rule in of("Role")["ekiben-promote"]["rules"]:
        assert not {"secrets", "*"} & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}
        assert set(rule["verbs"]) <= {"create", "get"} or rule.get("resourceNames")


def test_its_command_works_with_its_role_alone(
    server: Server, script: Callable[..., dict[str, Any]], collection: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script("train", collection=collection, content="one", aliases=["production"])
    root, scratch = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("scratch")
    (root / "bentofile.yaml").touch()
    (root / "pyproject.toml").write_text(f"""
[tool.ekiben]
project = "{server.project}"
[tool.ekiben.webhook.triggers.mine]
collections = ["{collection}"]
workflow = "promoted"
parameters = {{model = "{{artifact_version}}"}}
""")
    cluster = fake.cluster()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    for document in (TEMPLATE, *(each for each in DOCUMENTS if each["kind"] in ("ConfigMap", "Role", "RoleBinding"))):
        cluster.create(document, "ml")
    cluster.tokens = {"planted-account": service_account("ml", POD["serviceAccountName"])}
    (root / "secrets").write_text("planted-secret")
    env = client_environment(scratch / "client", server.url, server.key)
    for each in MAIN["env"]:
        if "value" in each:
            env[each["name"]] = each["value"].replace("/tmp", str(scratch))
    command = [*MAIN["command"]]
    command[command.index("0.0.0.0")], command[command.index("8080")] = "127.0.0.1", "0"
    command[command.index("--secret-file") + 1] = str(root / "secrets")
    before = sorted(root.rglob("*"))
    with served(cluster) as url:
        write_kubeconfig(scratch / "kubeconfig", url, token="planted-account", namespace="ml")
        process = subprocess.Popen(
            [sys.executable, "-m", "ekiben.cli", *command[1:]],
            cwd=root, env={**env, "KUBECONFIG": str(scratch / "kubeconfig"), "PYTHONDONTWRITEBYTECODE": "1"},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        address = process.stdout.readline().split()[-1]
        try:
            raw = json.dumps(event(collection)).encode()
            ready = httpx.get(f"{address}/readyz", timeout=30)
            answer = httpx.post(f"{address}/wandb", content=raw, headers=signed(raw, "planted-secret"), timeout=60)
            again = httpx.post(f"{address}/wandb", content=raw, headers=signed(raw, "planted-secret"), timeout=60)
            cluster.tokens, tokens = {}, cluster.tokens
            deleted(cluster, "/apis/rbac.authorization.k8s.io/v1/namespaces/ml/rolebindings/ekiben-promote")
            cluster.tokens = tokens
            without = httpx.get(f"{address}/readyz", timeout=30)
        finally:
            process.send_signal(signal.SIGTERM)
            err = process.communicate(timeout=40)[1]
    assert (ready.status_code, answer.status_code, again.status_code) == (200, 202, 200), answer.text + err
    assert [each["metadata"]["name"] for each in cluster.objects("workflows", "ml")] == [answer.json()["run"]]
    assert without.status_code == 503
    assert "not allowed to get workflowtemplates" in err
    assert process.returncode == 0
    assert sorted(root.rglob("*")) == before, "the project is read-only there"
