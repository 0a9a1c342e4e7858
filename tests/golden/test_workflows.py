"""The YAML beside each workflow is what its definition produces: reviewers read the diff."""

from pathlib import Path

import pytest
import yaml

from ekiben.config import Project
from ekiben.pipeline import definitions, document, lint

ROOT = Path(__file__).parents[2]
PROJECT = Project(ROOT)
NAMES = [name for name in PROJECT.names("workflows", "*.py") if name != "steps"]


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_yaml_is_current(name: str) -> None:
    committed = definitions.golden(PROJECT, name)
    assert committed.is_file(), f"missing: run `ekiben workflow export --write {name}`"
    assert committed.read_text() == definitions.export(PROJECT, name), "stale: run `make golden` and read the diff"


@pytest.mark.parametrize("name", NAMES)
def test_the_local_engine_can_run_it(name: str) -> None:
    lint.check(document.read(definitions.load(PROJECT, name)))


@pytest.mark.parametrize("name", NAMES)
def test_no_task_follows_one_that_may_have_been_skipped(name: str) -> None:
    """`a >> b` lets b start after a skipped a: after a failed gate, the load test ran (Argo's "enhanced depends")."""
    for template in definitions.load(PROJECT, name)["spec"]["templates"]:
        for task in template.get("dag", {}).get("tasks", []):
            assert not task.get("dependencies")
            assert "Succeeded" in task.get("depends", "Succeeded"), yaml.safe_dump(task)
