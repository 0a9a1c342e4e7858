"""The YAML beside each workflow is what its definition produces, and holds only what Argo 4.1's CRDs know."""

import copy
import difflib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.config import Project
from ekiben.pipeline import checks, definitions, document
from tests import crd_checks, manifest_checks

ROOT = Path(__file__).parents[2]
PROJECT = Project(ROOT)
NAMES = definitions.names(PROJECT)

needs_crds = pytest.mark.skipif(
    not crd_checks.CRDS.is_dir(), reason=f"no Argo CRDs in {crd_checks.CRDS}: name their folder in EKIBEN_ARGO_CRDS"
)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_yaml_is_current(name: str) -> None:
    committed = definitions.golden(PROJECT, name)
    assert committed.is_file(), f"missing: run `ekiben workflow export --write {name}`"
    was, now = committed.read_text(), definitions.export(PROJECT, name)
    if was != now:
        lines = difflib.unified_diff(was.splitlines(), now.splitlines(), str(committed.name), "definition", lineterm="")
        pytest.fail("stale: run `make golden` and read the diff\n" + "\n".join(lines), pytrace=False)


@needs_crds
@pytest.mark.parametrize("name", NAMES)
def test_argo_knows_every_field(name: str) -> None:
    for each in yaml.safe_load_all(definitions.export(PROJECT, name)):
        assert crd_checks.problems(each) == []


@needs_crds
@pytest.mark.parametrize(
    ("where", "value", "seen"),
    [
        (("spec", "onExitt"), "exit", "onExitt"),
        (("spec", "templates", 0, "retryStrategy"), {"limit": 1, "retryPolicy": "OnEror"}, "OnEror"),
        (("spec", "synchronization"), {"mutex": {"name": "m"}}, "mutex"),  # singular: dropped in Argo 4
        (("metadata", "lables"), {}, "lables"),
    ],
)
def test_a_field_that_argo_does_not_know_is_found(where: tuple[Any, ...], value: Any, seen: str) -> None:
    changed = copy.deepcopy(definitions.load(PROJECT, "release"))
    holder = changed
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    assert any(seen in problem for problem in crd_checks.problems(changed))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("promote", "retrain")])
def test_the_local_engine_can_run_it(name: str) -> None:
    checks.require(definitions.load(PROJECT, name))
    document.read(definitions.load(PROJECT, name))


@pytest.mark.parametrize("name", NAMES)
def test_no_task_follows_one_that_may_have_been_skipped(name: str) -> None:
    """`a >> b` lets b start after a skipped a: after a failed gate, the load test ran (Argo's "enhanced depends")."""
    spec = definitions.load(PROJECT, name)["spec"]
    for template in spec.get("workflowSpec", spec)["templates"]:
        for task in template.get("dag", {}).get("tasks", []):
            assert not task.get("dependencies")
            assert "Succeeded" in task.get("depends", "Succeeded"), yaml.safe_dump(task)


CLUSTER = [name for name in NAMES if name not in ("release",)]


def templates(name: str) -> list[Any]:
    documents = [each["spec"] for each in yaml.safe_load_all(definitions.export(PROJECT, name))]
    return [each for spec in documents for each in spec.get("workflowSpec", spec).get("templates", [])]


@pytest.mark.parametrize("name", CLUSTER)
def test_every_step_is_confined_ends_and_counts(name: str) -> None:
    for template in [each for each in templates(name) if "script" in each]:
        assert template.get("timeout") == "{{inputs.parameters.limit}}" or template["activeDeadlineSeconds"] > 0
        assert template["metrics"]["prometheus"]
        # It counts from the first attempt's start: a long step whose node was lost would not be tried again.
        assert "maxDuration" not in template.get("retryStrategy", {}).get("backoff", {})
        confined, mounts = template["script"]["securityContext"], template["script"]["volumeMounts"]
        assert confined["capabilities"]["drop"] == ["ALL"]
        assert confined["allowPrivilegeEscalation"] is False
        assert {"name": "tmp", "mountPath": "/tmp"} in mounts
        if "securityContext" not in template:  # the workflow's own, which the restricted profile wants
            assert confined["readOnlyRootFilesystem"] is True
            assert "add" not in confined["capabilities"]


@pytest.mark.parametrize("name", CLUSTER)
def test_the_pod_security_profiles_allow_it(name: str) -> None:
    """restricted; baseline for what runs commands in an image. The checker is the one for our manifests."""
    for each in yaml.safe_load_all(definitions.export(PROJECT, name)):
        spec = each["spec"].get("workflowSpec", each["spec"])
        for template in [each for each in spec.get("templates", []) if "script" in each]:
            script = template["script"]
            container = {"name": "main", "image": "x", **{k: v for k, v in script.items() if k in CONTAINER}}
            pod = {
                "securityContext": template.get("securityContext") or spec["securityContext"],
                "containers": [container],
                "volumes": template["volumes"],
            }
            if "securityContext" in template:
                assert name == "runtime_on_cluster"
                added = set(script["securityContext"]["capabilities"]["add"])
                assert added == {"SETUID", "SETGID", "SETFCAP"} <= BASELINE
                assert "seccompProfile" not in {**pod["securityContext"], **script["securityContext"]}
            else:
                # Argo's own containers beside it ask the API server.
                manifest_checks.check_restricted(pod | {"automountServiceAccountToken": False})


CONTAINER = ("securityContext", "resources", "volumeMounts", "env", "command")
BASELINE = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
            "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}  # fmt: skip


@pytest.mark.parametrize("name", CLUSTER)
def test_what_depends_on_the_last_attempt_stands_on_the_workflow_alone(name: str) -> None:
    """Argo fills in lastRetry together with what is the workflow's own; a template's inputs are filled in apart, and an
    expression with both would stay as it is."""
    for tag in re.findall(r"\{\{=(.*?)\}\}", yaml.safe_dump(templates(name), width=10_000), re.DOTALL):
        assert "lastRetry" not in tag or not re.search(r"\b(inputs|tasks|steps)\b", tag), tag


@pytest.mark.parametrize("name", NAMES)
def test_what_a_condition_refers_to_is_quoted(name: str) -> None:
    """Argo reads `when` as arithmetic: a-b == a-b, without quotes, subtracts text from text and ends in Error."""
    for template in templates(name):
        steps = [step for group in template.get("steps", []) for step in group]
        for task in [*template.get("dag", {}).get("tasks", []), *steps]:
            assert "{{" not in re.sub(r"'\{\{[^{}]*\}\}'|\{\{=.*?\}\}", "", task.get("when", "")), task["name"]
