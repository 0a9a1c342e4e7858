"""workflows/promote.py: its step looks as the command does, and its three documents start the same template.

It stands on Argo Workflows 4.1: a CronWorkflow and a WorkflowEventBinding name a WorkflowTemplate; a binding's selector
is an expr expression over `discriminator` and `payload`; the Argo Server needs to list bindings, read the template and
create the workflow for who sends the event.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.config import Project
from ekiben.pipeline import definitions
from tests.contract.conftest import Server, client_environment
from tests.contract.test_deploy_webhook import ACCOUNTS, DOCUMENTS, of
from tests.contract.test_webhook import TEMPLATE
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.http import served, write_kubeconfig

ROOT = Path(__file__).parents[2]
MADE: list[dict[str, Any]] = list(yaml.safe_load_all(definitions.export(Project(ROOT), "promote")))
EVENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "base" / "events.yaml").read_text()))


def test_clock_and_events_start_the_template_and_take_nothing_from_a_payload() -> None:
    template, clock, events = MADE
    assert [each["kind"] for each in MADE] == ["WorkflowTemplate", "CronWorkflow", "WorkflowEventBinding"]
    name = {"name": template["metadata"]["name"]}
    assert clock["spec"]["workflowSpec"] == {"workflowTemplateRef": name}
    assert clock["spec"]["concurrencyPolicy"] == "Forbid"
    assert events["spec"]["submit"] == {"workflowTemplateRef": name}, "no argument comes from an unsigned payload"
    assert all("value" in each for each in template["spec"]["arguments"]["parameters"])


def test_accounts_exist_and_may_do_what_is_needed() -> None:
    template = MADE[0]
    used = {
        template["spec"]["serviceAccountName"],
        *(e.get("serviceAccountName") for e in template["spec"]["templates"]),
    }
    assert used - {None} == {"ekiben-promote"}
    assert "ekiben-promote" in of("ServiceAccount")
    executor = of("Role", ACCOUNTS)["ekiben-executor"]
    bound = [b["roleRef"]["name"] for b in of("RoleBinding").values() for s in b["subjects"] if s["name"] in used]
    assert sorted(bound) == [executor["metadata"]["name"], "ekiben-promote"]
    (role,) = of("Role", EVENTS).values()
    assert {(rule["resources"][0], rule["verbs"][0]) for rule in role["rules"]} == {
        ("workfloweventbindings", "list"),
        ("workflowtemplates", "get"),
        ("workflows", "create"),
    }
    assert [rule.get("resourceNames") for rule in role["rules"]] == [None, [template["metadata"]["name"]], None]


def test_it_is_installed_as_it_stands(tmp_path: Path) -> None:
    cluster = fake.cluster()
    with served(cluster) as url:
        env = {**os.environ, "KUBECONFIG": str(write_kubeconfig(tmp_path / "kubeconfig", url))}
        command = [sys.executable, "-m", "ekiben.cli", "workflow", "apply", "promote"]
        for seen in ("created", "unchanged"):
            done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.count(seen) == 3, done.stdout
    assert len(cluster.objects("workfloweventbindings")) == len(cluster.objects("cronworkflows")) == 1


def test_accounts_for_events_are_valid_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in EVENTS:
        validate.validate(document, "1.33", strict=True)


def test_the_step_submits_once_with_its_role_alone(
    server: Server, script: Callable[..., dict[str, Any]], collection: str, tmp_path: Path
) -> None:
    version = script("train", collection=collection, content="one", aliases=["production"])
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(f"""
[tool.ekiben]
project = "{server.project}"
[tool.ekiben.webhook.triggers.mine]
collections = ["{collection}", "never-logged"]
workflow = "promoted"
parameters = {{model = "{{artifact_version}}@{{artifact_digest}}", where = "{{event_author}}"}}
""")
    cluster = fake.cluster()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    for document in (TEMPLATE, *(each for each in DOCUMENTS if each["kind"] in ("ConfigMap", "Role", "RoleBinding"))):
        cluster.create(document, "ml")
    cluster.tokens = {"planted-account": service_account("ml", "ekiben-promote")}
    env = client_environment(tmp_path / "client", server.url, server.key) | {"PYTHONPATH": str(ROOT)}
    (arguments,) = (each["script"]["args"] for each in MADE[0]["spec"]["templates"] if "script" in each)
    (tmp_path / "given.json").write_text(json.dumps([{"name": "by", "value": "promote-x7k2p"}]))
    told = []
    with served(cluster) as url:
        env["KUBECONFIG"] = str(write_kubeconfig(tmp_path / "kubeconfig", url, token="planted-account", namespace="ml"))
        for attempt in ("first", "second"):
            out = tmp_path / attempt
            done = subprocess.run(
                [sys.executable, *arguments, str(tmp_path / "given.json")],
                cwd=tmp_path, env={**env, "hera__outputs_directory": str(out)},
                text=True, capture_output=True, timeout=120,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            told.append(json.loads((out / "parameters" / "promotions").read_text()))
    (workflow,) = cluster.objects("workflows", "ml")
    assert [[each["new"] for each in found] for found in told] == [[True], [False]]
    assert told[0][0]["run"] == told[1][0]["run"] == workflow["metadata"]["name"]
    assert {each["name"]: each["value"] for each in workflow["spec"]["arguments"]["parameters"]} == {
        "model": f"{version['name']}@{version['digest']}",
        "where": "promote-x7k2p",
    }
