"""The YAML beside each workflow is what its definition produces, and holds only what Argo 4.1's CRDs know."""

import copy
import difflib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.config import Project
from ekiben.pipeline import checks, definitions, document
from tests import crd_checks

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
