"""Where the heavy steps of a workflow run: by the environment's settings, and elsewhere after a node was lost."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from ekiben.config import Project
from ekiben.environments import EnvironmentTable
from ekiben.pipeline import definitions, expr, placement
from tests.golden.test_workflows import ROOT

SPOT = {"node_selector": {"cloud.example/spot": "true"}, "tolerations": [{"key": "cloud.example/spot"}]}


def environment(**more: Any) -> EnvironmentTable:
    return EnvironmentTable.model_validate({"namespace": "ml", **more})


def test_by_default_a_pod_asks_for_what_it_always_did() -> None:
    found = placement.of(environment())
    assert json.loads(found.train) == {
        "containers": [
            {
                "name": "main",
                "resources": {"limits": {"memory": "4Gi"}, "requests": {"cpu": "2", "memory": "4Gi"}},
            }
        ]
    }
    assert found.train == found.train_again
    assert '"memory":"2Gi"' in found.load_test


def test_gpus_and_spot_nodes_and_the_way_back_from_them() -> None:
    train = {"gpu": 2, "memory": "16Gi", "node_selector": {"pool": "gpu"}, "spot": SPOT}
    found = placement.of(environment(train=train))
    first, again = json.loads(found.train), json.loads(found.train_again)
    for patch in (first, again):
        assert patch["containers"][0]["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in patch["tolerations"]
    assert first["nodeSelector"] == {"pool": "gpu", "cloud.example/spot": "true"}
    assert {"key": "cloud.example/spot", "operator": "Exists"} in first["tolerations"]
    assert again["nodeSelector"] == {"pool": "gpu"}
    assert not any("spot" in each["key"] for each in again["tolerations"])


def test_each_recipe_may_be_placed_otherwise() -> None:
    table = environment(
        train={"spot": SPOT}, services={"digits_cnn": {"train": {"gpu": 1}, "load_test": {"memory": "1Gi"}}}
    )
    small, large = placement.of(table.of("digits")), placement.of(table.of("digits_cnn"))
    assert "nvidia" not in small.train
    assert "nvidia" in large.train and "cloud.example/spot" in large.train
    assert '"memory":"1Gi"' in large.load_test
    with pytest.raises(ValidationError, match="unknown key gpus"):
        environment(train={"gpus": 1})


ENDS = [  # phase, exit code and message, as Argo's controller words them; whether it is tried again, and elsewhere
    ("Failed", "-1", "Pod was terminated in response to imminent node shutdown.", True, True),
    ("Error", "-1", "pod deleted", True, True),
    ("Failed", "143", "main: Error (exit code 143)", True, True),
    ("Failed", "137", "The node was low on resource: memory. Threshold quantity: 100Mi", True, True),
    ("Failed", "143", "Preempted in order to admit critical pod", True, True),
    ("Failed", "4", "main: Error (exit code 4)", True, False),
    ("Failed", "6", "main: Error (exit code 6)", True, False),
    ("Failed", "143", "Pod was active on the node longer than the specified deadline", False, False),
    ("Failed", "137", "main: OOMKilled (exit code 137)", False, False),
    ("Failed", "10", "main: Error (exit code 10)", False, False),
    ("Failed", "1", "main: Error (exit code 1)", False, False),
]


@pytest.mark.parametrize(("phase", "code", "message", "again", "elsewhere"), ENDS)
@pytest.mark.parametrize("step", ["train", "load-test"])
def test_what_is_tried_again_and_where(
    step: str, phase: str, code: str, message: str, again: bool, elsewhere: bool
) -> None:
    template = _template("release_on_cluster", step)
    last = {"lastRetry.status": phase, "lastRetry.exitCode": code, "lastRetry.message": message}
    assert expr.holds(template["retryStrategy"]["expression"], last) is again
    if again:
        assert _placed(template, last) == (f"{step}-pod-again" if elsewhere else f"{step}-pod")


@pytest.mark.parametrize("workflow", ["release_on_cluster", "retrain"])
def test_a_first_attempt_runs_where_the_settings_say(workflow: str) -> None:
    # What Argo gives an attempt that has none before it.
    none = {"lastRetry.status": "", "lastRetry.exitCode": "0", "lastRetry.message": ""}
    assert _placed(_template(workflow, "train"), none) == "train-pod"


def _placed(template: dict[str, Any], last: dict[str, str]) -> str:
    """Which of the workflow's outputs the patch is."""
    (tag,) = re.fullmatch(r"\{\{=(.*)\}\}", template["podSpecPatch"]).groups()  # type: ignore[union-attr]
    names = [f"{name}-pod{more}" for name in ("train", "load-test") for more in ("", "-again")]
    known = {f"workflow.outputs.parameters.{name}": name for name in names}
    return str(expr.evaluated(tag, {**known, **last}))


def _template(workflow: str, name: str) -> dict[str, Any]:
    spec = definitions.load(Project(ROOT), workflow)["spec"]
    found: dict[str, Any] = next(e for e in spec.get("workflowSpec", spec)["templates"] if e["name"] == name)
    return found
