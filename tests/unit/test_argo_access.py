"""What an account needs for runs on Argo, and no more: the fake API server enforces RBAC.

It stands on Kubernetes' RBAC: a watch of one object needs `watch` on its resource; a pod's log is pods/log.
"""

import copy
from typing import Any

import pytest

from ekiben.errors import StepError, UsageError
from ekiben.pipeline import argo
from ekiben.pipeline.argo import approval, display, follow
from ekiben.pipeline.argo.cluster import Cluster as Argo
from ekiben.pipeline.argo.install import Place
from ekiben.platforms.kubernetes.api import Api
from tests.fakes.argo import controller as fake
from tests.fakes.argo.controller import Controller
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import transport
from tests.fakes.kubernetes_platform import config
from tests.unit.test_argo_approval import MODEL, TRAINED
from tests.unit.test_argo_submit import waiting

Json = dict[str, Any]


def rule(group: str, resources: str, *verbs: str) -> Json:
    return {"apiGroups": [group], "resources": [resources], "verbs": list(verbs)}


RUNS = [
    rule("argoproj.io", "workflows", "create", "get", "patch", "watch"),
    rule("argoproj.io", "workflowtemplates", "get"),
    rule("", "pods", "list"),
    rule("", "pods/log", "get"),
    rule("", "events", "list"),
]
"""To submit, watch, read logs, approve, resume and stop."""
INSTALLS = [rule("argoproj.io", "workflowtemplates", "create", "get", "patch")]
"""To apply; likewise for cronworkflows and workfloweventbindings."""


def cluster_for(rules: list[Json], monkeypatch: pytest.MonkeyPatch) -> tuple[Cluster, Controller]:
    made = fake.cluster()
    monkeypatch.setattr(follow, "sleep", lambda seconds: made.advance(max(seconds, 0.1)))
    api = "rbac.authorization.k8s.io"
    made.create({"apiVersion": f"{api}/v1", "kind": "Role", "metadata": {"name": "runs"}, "rules": rules})
    made.create(
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "runs"},
            "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": "default"}],
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "runs"},
        }
    )
    made.tokens["t"] = service_account("default", "ci")
    return made, Controller(made)


def api(cluster: Cluster) -> Api:
    return Api(config("t"), transport(cluster), cluster.advance)


def journey(cluster: Cluster, controller: Controller) -> None:
    """Everything that a person does with runs."""
    client = Argo(api(cluster), "default", cluster.advance)
    controller.behave("train", outputs={"model": MODEL.model_dump_json()}, log="hello")
    run = argo.submit("release", client=client)
    waiting(cluster, run)
    approval.decide(run, "approve", "ada", "fine", lambda model, config: None)
    assert argo.wait(run, 60).phase == "Succeeded"
    assert list(argo.logs(run, "train")) == [("train", "hello")]
    run = argo.submit("release", client=client)
    waiting(cluster, run)
    argo.stop(run)
    with pytest.raises(StepError):
        argo.wait(run, 60)


def test_what_runs_need_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, controller = cluster_for(RUNS, monkeypatch)
    cluster.create(TRAINED)
    journey(cluster, controller)
    assert {call.status for call in cluster.log} <= {200, 201, 400}  # 400: a log of what has not started


@pytest.mark.parametrize(
    ("at", "verb", "seen"),
    [
        (0, "create", "not allowed to create workflows.argoproj.io"),
        (0, "get", "not allowed to get workflows.argoproj.io"),
        (0, "patch", "not allowed to patch workflows.argoproj.io"),
        (1, "get", "not allowed to get workflowtemplates.argoproj.io"),
        (2, "list", "not allowed to list pods"),
        (3, "get", "not allowed to get pods/log"),
    ],
)
def test_what_is_missing_is_named_with_the_rule(monkeypatch: pytest.MonkeyPatch, at: int, verb: str, seen: str) -> None:
    rules = copy.deepcopy(RUNS)
    rules[at]["verbs"].remove(verb)
    cluster, controller = cluster_for(rules, monkeypatch)
    cluster.create(TRAINED)
    with pytest.raises(UsageError, match=seen) as refused:
        journey(cluster, controller)
    assert f"verbs: [{verb}]" in refused.value.wanted


def test_without_what_only_explains_the_run_is_seen_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """No watch, no pods, no logs, no events: states are asked for, and the failure is told without its lines."""
    rules = [rule("argoproj.io", "workflows", "create", "get"), RUNS[1]]
    cluster, controller = cluster_for(rules, monkeypatch)
    cluster.create(TRAINED)
    monkeypatch.setattr(display, "PATIENCE_S", 0.0)
    client = Argo(api(cluster), "default", cluster.advance)
    controller.behave("train", exit_code=1, log="hello")
    run = argo.submit("release", client=client)
    reasons = display.Reasons(client)
    with pytest.raises(
        StepError, match=r"(?s)train of .* Failed: Error \(exit code 1\)\n    \(no log: not allowed to list pods"
    ):
        argo.wait(run, 60, lambda status: reasons.explained(status) and None)


def test_what_applying_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _ = cluster_for(INSTALLS, monkeypatch)
    place = Place(api(cluster), "default")
    place.planned([TRAINED])
    place.apply([TRAINED])
    assert place.planned([TRAINED])[0].what == "unchanged"
    less, _ = cluster_for([rule("argoproj.io", "workflowtemplates", "get", "create")], monkeypatch)
    with pytest.raises(
        UsageError, match=r"(?s)not allowed to patch workflowtemplates.*add this rule to a Role of yours"
    ):
        Place(api(less), "default").planned([TRAINED])
