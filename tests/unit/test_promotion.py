"""Promotions by several replicas that race, crash and lose answers: each move of an alias is one workflow.

It stands on Kubernetes: a name is given once; a JSON patch whose test fails changes nothing; a request without an
answer may have been carried out. W&B is a dictionary here; tests/contract/test_webhook.py has the real client.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ekiben.errors import EkibenError, NotFoundError
from ekiben.pipeline.argo.cluster import Cluster as Argo
from ekiben.pipeline.argo.ledger import Ledger
from ekiben.pipeline.promotion import AliasError, Models, Promoter
from ekiben.platforms.kubernetes.api import Api
from ekiben.triggers import Trigger
from ekiben.types import ModelVersion
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import transport
from tests.fakes.kubernetes_platform import config

TEMPLATE: dict[str, Any] = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "WorkflowTemplate",
    "metadata": {"name": "promoted"},
    "spec": {
        "entrypoint": "main",
        "arguments": {"parameters": [{"name": "model"}]},
        "templates": [{"name": "main", "container": {"image": "example/pipeline:1"}}],
    },
}
TRIGGER = Trigger(collections=("digits",), workflow="promoted", parameters={"model": "{artifact_version}"})


class Aliases(Models):
    """Where the alias is; None: nowhere."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.asked: list[int] = []

    def place(self, trigger: Trigger) -> tuple[str, str]:
        return "acme", "vision"

    def resolve(self, path: str) -> ModelVersion:
        assert path == "acme/vision/digits:production"
        if self.at is None:
            raise NotFoundError(f"W&B has no model {path}")
        self.asked.append(self.at)
        return ModelVersion.parse(f"acme/vision/digits:v{self.at}", f"{self.at:032x}")


class CrashError(Exception):
    """The process ends before this request."""


def crash() -> None:
    raise CrashError


class Replica:
    def __init__(self, cluster: Cluster, models: Models) -> None:
        self.at_request: tuple[int, Callable[[], None]] | None = None  # what happens before which request

        def before(method: str, path: str) -> None:
            if self.at_request:
                left, happens = self.at_request
                self.at_request = (left - 1, happens) if left else None
                if not left:
                    happens()

        api = Api(config(), transport=transport(cluster, before), sleep=lambda seconds: None)
        self.promoter = Promoter(models, Argo(api, "ml", sleep=lambda seconds: None), Ledger(api, "ml"))

    def promote(self) -> Any:
        return self.promoter.promote("mine", TRIGGER, "digits", {"event_author": "ada"})


def made() -> Cluster:
    cluster = fake.cluster()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    cluster.create(TEMPLATE, "ml")
    return cluster


def submitted(cluster: Cluster) -> dict[str, str]:
    """The version of each workflow, by name."""
    return {
        each["metadata"]["name"]: each["spec"]["arguments"]["parameters"][0]["value"].rpartition(":v")[2]
        for each in cluster.objects("workflows", "ml")
    }


MOVE = st.tuples(st.just("move"), st.integers(0, 2))
PROMOTE = st.tuples(st.just("promote"), st.integers(0, 2))
CRASH = st.tuples(st.just("crash"), st.integers(0, 7))
BETWEEN = st.tuples(st.just("between"), st.tuples(st.integers(0, 7), st.integers(0, 2)))
FAULT = st.tuples(
    st.just("fault"),
    st.sampled_from([("create workflows", "lost"), ("create workflows", "reset"), ("configmaps", "lost"),
                     ("patch configmaps", "reset"), ("get", "reset")]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@example([("promote", 0), ("between", (1, 0)), ("move", 1)])  # there and back while the first is not claimed yet
@given(st.lists(MOVE | PROMOTE | PROMOTE | CRASH | FAULT | BETWEEN, max_size=14))
def test_each_move_is_one_workflow_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    cluster, models = made(), Aliases()
    replicas = [Replica(cluster, models) for _ in range(3)]
    models.at = 0

    def overtake(version: int) -> None:
        models.at = version
        with suppress(EkibenError):
            replicas[1].promote()

    for kind, value in [*steps, ("promote", 0)]:
        match kind:
            case "move":
                models.at = value
            case "crash":
                replicas[0].at_request = value, crash
            case "between":
                replicas[0].at_request = value[0], partial(overtake, value[1])
            case "fault":
                cluster.fail(value[0], **{value[1]: True})
            case "promote":
                try:
                    done = replicas[value].promote()
                except (CrashError, EkibenError):
                    continue
                assert submitted(cluster)[done.run] == str(models.at)
                assert done.model == f"acme/vision/digits:v{models.at}"
    cluster.faults.clear()
    replicas[0].at_request = None
    last = [each.promote() for each in replicas]
    assert {each.run for each in last} == {last[0].run}
    assert [each.new for each in last[1:]] == [False, False]
    changes = 1 + sum(one != other for one, other in zip(models.asked, models.asked[1:], strict=False))
    assert len(submitted(cluster)) <= changes, "a version was submitted twice for one move"
    if all(kind in ("move", "promote") for kind, _ in steps):
        assert len(submitted(cluster)) == changes, "a version that came back was not submitted anew"
    assert set(submitted(cluster).values()) <= set(map(str, models.asked))
    assert submitted(cluster)[last[0].run] == str(models.at)


@pytest.mark.parametrize("attempt", range(3))
def test_replicas_that_race_submit_one_workflow(attempt: int) -> None:
    cluster, models = made(), Aliases()
    models.at = 1
    replicas = [Replica(cluster, models) for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda each: each.promote(), replicas))
    assert {each.run for each in done} == set(submitted(cluster))
    assert len(submitted(cluster)) == 1


def test_an_alias_at_no_version_is_told_from_a_template_that_is_not_there() -> None:
    cluster, models = made(), Aliases()
    with pytest.raises(AliasError):
        Replica(cluster, models).promote()
    models.at = 1
    cluster.request("DELETE", "/apis/argoproj.io/v1alpha1/namespaces/ml/workflowtemplates/promoted")
    with pytest.raises(NotFoundError) as caught:
        Replica(cluster, models).promote()
    assert not isinstance(caught.value, AliasError)
    cluster.create(TEMPLATE, "ml")
    assert Replica(cluster, models).promote().new, "the claim of a submission that failed is no submission"
