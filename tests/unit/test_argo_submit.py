"""Submitting to Argo by both ways, Kubernetes' API and the Argo Server's: against fakes with a workflow controller.

It stands on Argo Workflows 4.1: Workflow has no status subresource; a phase is empty until the controller takes the
workflow up; `argo resume` and `argo node set` write node statuses; node statuses of large workflows are packed
(gzip, base64); a lock shows as Pending with "Waiting for … lock".
"""

import json
from typing import Any

import pytest
import yaml

from ekiben.errors import (
    ConflictError,
    NotFoundError,
    NotPassedError,
    StepError,
    UnavailableError,
    UnsupportedError,
    UsageError,
)
from ekiben.pipeline import argo
from ekiben.pipeline.argo import display, follow
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.cluster import Cluster as Argo
from ekiben.pipeline.argo.server import Server
from ekiben.platforms.kubernetes.api import Api
from tests import crd_checks
from tests.fakes.argo import controller as fake
from tests.fakes.argo import server
from tests.fakes.argo.controller import Controller
from tests.fakes.argo.server import ArgoServer
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import transport
from tests.fakes.kubernetes_platform import config

RELEASE = yaml.safe_load("""
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: release}
spec:
  entrypoint: release
  onExit: exit
  arguments:
    parameters:
    - {name: recipe, value: digits}
    - {name: where, value: here, enum: [here, there]}
    - {name: image, value: "example/pipeline:1"}
  templates:
  - name: exit
    dag: {tasks: [{name: conclude, template: conclude}]}
  - {name: conclude, container: {image: "{{workflow.parameters.image}}"}}
  - name: release
    dag:
      tasks:
      - {name: train, template: train}
      - name: approve
        depends: train.Succeeded
        template: approve
      - name: deploy
        depends: approve.Succeeded
        when: "{{tasks.approve.outputs.parameters.decision}} == approve"
        template: deploy
        arguments: {parameters: [{name: service, value: "{{workflow.parameters.recipe}}"}]}
  - {name: train, container: {image: "{{workflow.parameters.image}}"}, retryStrategy: {limit: 2}}
  - name: approve
    inputs: {parameters: [{name: decision, default: reject, enum: [approve, reject]}]}
    outputs: {parameters: [{name: decision, valueFrom: {supplied: {}, default: reject}}]}
    suspend: {}
  - name: deploy
    inputs: {parameters: [{name: service}]}
    container: {image: "{{workflow.parameters.image}}"}
    synchronization: {mutexes: [{name: "deploy-{{inputs.parameters.service}}"}]}
""")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = fake.cluster()
    monkeypatch.setattr(follow, "sleep", lambda seconds: made.advance(max(seconds, 0.1)))
    return made


@pytest.fixture
def controller(cluster: Cluster) -> Controller:
    return Controller(cluster)


@pytest.fixture(params=["Kubernetes", "Argo Server"])
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Client:
    if request.param == "Kubernetes":
        return argo_client(cluster)
    return Server(
        "http://argo.invalid", "default", transport=server.transport(ArgoServer(cluster)), sleep=cluster.advance
    )


def argo_client(cluster: Cluster, token: str = "") -> Argo:
    return Argo(Api(config(token), transport(cluster), cluster.advance), "default", cluster.advance)


def start(client: Client, document: Any = RELEASE, **parameters: str) -> argo.Run:
    return argo.submit(document, parameters, client=client)


def until(cluster: Cluster, run: argo.Run, wanted: Any, seconds: float = 60) -> argo.Status:
    for _ in range(int(seconds * 4)):
        if wanted(status := argo.look(run)):
            return status
        cluster.advance(0.25)
    raise AssertionError(follow.standing(argo.look(run)))


def waiting(cluster: Cluster, run: argo.Run) -> argo.Status:
    return until(cluster, run, lambda status: bool(status.waiting))


def approved(cluster: Cluster, run: argo.Run) -> None:
    waiting(cluster, run)
    argo.resume(run, "approve", {"decision": "approve"}, "by ada")


def test_a_document_runs_to_its_end(cluster: Cluster, controller: Controller, client: Client) -> None:
    run = start(client, recipe="cats")
    assert run.name.startswith("release-") and run.uid
    assert argo.look(run).phase == "Pending"
    assert argo.look(run).message == "no controller has taken it up yet"
    approved(cluster, run)
    seen: list[str] = []
    status = argo.wait(run, 60, lambda state: seen.append(follow.standing(state)))
    assert status.phase == "Succeeded"
    assert [(step.name, step.phase) for step in status.steps] == [
        ("train", "Succeeded"),
        ("approve", "Succeeded"),
        ("deploy", "Succeeded"),
        ("onExit.conclude", "Succeeded"),
    ]
    sent = cluster.get("workflows", run.name)
    values = {each["name"]: each["value"] for each in sent["spec"]["arguments"]["parameters"]}
    assert values == {"recipe": "cats", "where": "here", "image": "example/pipeline:1"}
    assert any("deploy Running" in line for line in seen), seen


def test_a_name_runs_what_the_cluster_holds(cluster: Cluster, controller: Controller, client: Client) -> None:
    with pytest.raises(NotFoundError, match=r"release(.|\n)*workflow apply release"):
        start(client, "release")
    cluster.create(RELEASE)
    run = start(client, "release", recipe="cats")
    sent = cluster.get("workflows", run.name)
    assert sent["metadata"]["labels"]["workflows.argoproj.io/workflow-template"] == "release"
    assert sent["spec"] == {
        "workflowTemplateRef": {"name": "release"},
        "arguments": {"parameters": [{"name": "recipe", "value": "cats"}]},
    }
    approved(cluster, run)
    assert argo.wait(run, 60).phase == "Succeeded"


def test_a_hera_object_is_submitted(cluster: Cluster, client: Client) -> None:
    from workflows import release

    run = start(client, release.define(), recipe="cats")
    assert cluster.get("workflows", run.name)["spec"]["entrypoint"] == "release"


@pytest.mark.parametrize(
    ("parameters", "seen"),
    [({"recipee": "x"}, "no parameter 'recipee'"), ({"where": "nowhere"}, "one of here, there")],
)
def test_parameters_that_do_not_fit_are_refused_before_anything_is_sent(
    cluster: Cluster, client: Client, parameters: dict[str, str], seen: str
) -> None:
    with pytest.raises(UsageError, match=seen):
        start(client, **parameters)
    assert cluster.objects("workflows") == []


def test_parameters_that_are_no_text_are_sent_as_json(cluster: Cluster, client: Client) -> None:
    run = argo.submit(RELEASE, {"recipe": ["p99=50ms"]}, client=client)
    sent = cluster.get("workflows", run.name)["spec"]["arguments"]["parameters"]
    assert next(each["value"] for each in sent if each["name"] == "recipe") == '["p99=50ms"]'


def test_what_a_template_says_of_its_workflows_goes_with_it(cluster: Cluster, client: Client) -> None:
    """Argo's controller makes labels of `workflowMetadata`, also in a Workflow."""
    metadata = {"labelsFrom": {"ekiben.dev/recipe": {"expression": "workflow.parameters.recipe"}}}
    run = start(client, {**RELEASE, "spec": {**RELEASE["spec"], "workflowMetadata": metadata}})
    assert cluster.get("workflows", run.name)["spec"]["workflowMetadata"] == metadata


@pytest.mark.parametrize("fault", [{"lost": True}, {"reset": True}, {"status": 503}, {"status": 429, "retry_after": 1}])
def test_it_is_created_once_whatever_gets_lost(cluster: Cluster, client: Client, fault: dict[str, Any]) -> None:
    cluster.fail("create workflows", times=2, **fault)
    run = start(client)
    assert [each["metadata"]["uid"] for each in cluster.objects("workflows")] == [run.uid]


def test_the_same_key_is_the_same_run(cluster: Cluster, client: Client) -> None:
    first = argo.submit(RELEASE, client=client, key="event-1")
    assert argo.submit(RELEASE, client=client, key="event-1") == first
    assert argo.submit(RELEASE, client=client, key="event-2") != first
    cluster.create({**cluster.get("workflows", first.name), "metadata": {"name": "release-x"}}, "default")
    assert len(cluster.objects("workflows")) == 3


def test_a_name_that_another_submission_has_is_a_conflict(cluster: Cluster, client: Client) -> None:
    sent = argo.prepared(client, RELEASE, {}, "one")
    client.create(sent)
    other = {**sent, "metadata": {**sent["metadata"], "labels": {"ekiben.dev/submission": "two"}}}
    with pytest.raises(ConflictError, match="already exists"):
        client.create(other)


def test_a_failed_step_is_named_with_its_last_lines(cluster: Cluster, controller: Controller, client: Client) -> None:
    controller.behave("train", exit_code=1, log="reading\nno such file: data.csv\n")
    run = start(client)
    with pytest.raises(StepError) as failed:
        argo.wait(run, 60)
    text = str(failed.value)
    assert f"train of {run.name} Failed: Error (exit code 1)" in text
    assert "    no such file: data.csv" in text
    assert f"ekiben workflow logs {run.name} --step train" in text
    assert controller.attempts["train"] == 3


def test_a_verdict_that_stops_the_run_keeps_its_exit_code(
    cluster: Cluster, controller: Controller, client: Client
) -> None:
    controller.behave("train", exit_code=11)
    run = start(client)
    with pytest.raises(NotPassedError) as failed:
        argo.wait(run, 60)
    assert failed.value.exit_code == 11


def test_a_step_that_was_made_good_is_not_to_blame(cluster: Cluster, controller: Controller, client: Client) -> None:
    controller.behave("train", exit_code=1, fails=2)
    controller.behave("deploy", exit_code=3, message="Error (exit code 3): quota")
    run = start(client)
    approved(cluster, run)
    with pytest.raises(StepError, match=r"deploy of .* Failed: Error \(exit code 3\): quota"):
        argo.wait(run, 60)


def test_waiting_has_an_end(cluster: Cluster, controller: Controller, client: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(follow, "monotonic", lambda: cluster.clock.seconds)
    run = start(client)
    with pytest.raises(UnavailableError, match=r"is not over after 30 s: approve Running \(waits for decision"):
        argo.wait(run, 30)
    assert cluster.clock.seconds < 120


def test_a_run_that_no_controller_takes_up_is_told(cluster: Cluster, client: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(follow, "monotonic", lambda: cluster.clock.seconds)
    with pytest.raises(UnavailableError, match=r"(?s)no controller has taken it up yet.*workflow controller running"):
        argo.wait(start(client), 30)


def test_pods_that_cannot_start_say_why(cluster: Cluster, controller: Controller, client: Client) -> None:
    cluster.kubelet.behave("example/pipeline", unschedulable="1 Insufficient nvidia.com/gpu")
    run = start(client)
    cluster.advance(5)
    (step,) = argo.look(run).steps
    assert step.phase == "Pending"  # the Retry node itself only says that it runs
    assert step.why.startswith("Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu")
    if isinstance(client, Server):
        return  # it gives no pods
    assert "Insufficient nvidia.com/gpu" in client.reasons(run.name)[step.attempts[0]]
    cluster.kubelet.behave("example/pipeline", pull_error="not found")
    cluster.advance(5)
    assert "pull" in client.reasons(run.name)[step.attempts[0]].lower()


def test_a_lock_that_another_has_is_told(cluster: Cluster, controller: Controller, client: Client) -> None:
    controller.locks["deploy-digits"] = "another"
    run = start(client)
    approved(cluster, run)
    status = until(cluster, run, lambda status: any(s.lock for s in status.steps))
    assert "deploy Pending (Waiting for default/Mutex/deploy-digits lock. Lock status: 0/1)" in follow.standing(status)
    del controller.locks["deploy-digits"]
    cluster.controllers.wake()
    assert argo.wait(run, 60).phase == "Succeeded"


def test_a_lock_on_a_step_that_may_be_retried_is_told(cluster: Cluster, controller: Controller, client: Client) -> None:
    """Its node is of type Retry from the start, and has no attempt yet."""
    again = json.loads(json.dumps(RELEASE))
    again["spec"]["templates"][-1]["retryStrategy"] = {"limit": 1}
    controller.locks["deploy-digits"] = "another"
    controller.behave("deploy", exit_code=1, fails=1)
    run = start(client, again)
    approved(cluster, run)
    status = until(cluster, run, lambda status: any(s.lock for s in status.steps))
    assert "deploy Pending (Waiting for default/Mutex/deploy-digits lock" in follow.standing(status)
    del controller.locks["deploy-digits"]
    cluster.controllers.wake()
    assert argo.wait(run, 60).phase == "Succeeded"
    assert controller.locks == {}


def test_a_lock_of_the_whole_workflow_is_told(cluster: Cluster, controller: Controller, client: Client) -> None:
    locked = {**RELEASE, "spec": {**RELEASE["spec"], "synchronization": {"mutexes": [{"name": "one"}]}}}
    first, second = start(client, locked), start(client, locked)
    by_name = {argo.look(run).name: run for run in (first, second)}
    cluster.advance(5)
    waits = [run for run in by_name.values() if argo.look(run).phase == "Pending"]
    assert [follow.standing(argo.look(run)) for run in waits] == [
        "Pending: Waiting for default/Mutex/one lock. Lock status: 0/1"
    ]
    ahead = first if waits == [second] else second
    approved(cluster, ahead)
    argo.wait(ahead, 60)
    approved(cluster, waits[0])
    assert argo.wait(waits[0], 60).phase == "Succeeded"


def test_a_pod_knows_more_than_its_node(cluster: Cluster, controller: Controller, monkeypatch: Any) -> None:
    """Of an init container, which is Argo's own image, and of a volume, the controller's message says nothing."""
    monkeypatch.setattr(display, "monotonic", lambda: cluster.clock.seconds)
    client = argo_client(cluster)
    reasons = display.Reasons(client)

    def why() -> str:
        return reasons.explained(argo.look(run)).steps[0].why

    cluster.kubelet.behave("example/pipeline", start_s=1000)
    run = start(client)
    cluster.advance(5)
    (step,) = argo.look(run).steps
    assert step.why == "ContainerCreating"
    assert why() == "ContainerCreating"
    (pod,) = cluster.objects("pods")
    text = 'MountVolume.SetUp failed for volume "key": secret "wandb" not found'
    cluster.controllers.event(pod, "Warning", "FailedMount", text, "kubelet")
    assert why() == "ContainerCreating"  # asked a moment ago
    cluster.advance(10)
    assert why() == f"FailedMount: {text}"
    waiting = {"name": "init", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no argoexec"}}}
    cluster.store.put(
        cluster.resource("pods"), {**pod, "status": {**pod["status"], "initContainerStatuses": [waiting]}}
    )
    cluster.advance(10)
    assert why() == "ImagePullBackOff: no argoexec"


def test_many_pending_pods_are_not_all_asked(cluster: Cluster, controller: Controller, monkeypatch: Any) -> None:
    wide = json.loads(json.dumps(RELEASE))
    wide["spec"]["templates"][2]["dag"]["tasks"] = [{"name": f"t{n}", "template": "conclude"} for n in range(40)]
    cluster.kubelet.behave("example/pipeline", start_s=1000)
    client = argo_client(cluster)
    run = start(client, wide)
    cluster.advance(20)
    before = len(cluster.log)
    client.reasons(run.name)
    assert len(cluster.log) - before <= 6


needs_crds = pytest.mark.skipif(
    not crd_checks.CRDS.is_dir(), reason=f"no Argo CRDs in {crd_checks.CRDS}: name their folder in EKIBEN_ARGO_CRDS"
)


@needs_crds
@pytest.mark.parametrize("packs", [False, True])
def test_what_is_sent_and_what_the_fakes_write_is_what_argo_s_definitions_know(
    cluster: Cluster, client: Client, packs: bool
) -> None:
    controller = Controller(cluster, packs=packs)
    controller.behave("train", exit_code=1, fails=1)
    controller.locks["deploy-digits"] = "another"
    run = start(client)

    def known() -> None:
        workflow = cluster.get("workflows", run.name)
        found = [each for each in crd_checks.problems(workflow) if not each.startswith("metadata.")]
        assert [each for each in found if "finishedAt: None" not in each] == []  # null, until it has ended

    known()
    waiting(cluster, run)
    known()
    argo.resume(run, "approve", {"decision": "approve"}, "by ada")
    known()
    until(cluster, run, lambda status: any(step.lock for step in status.steps))
    known()
    del controller.locks["deploy-digits"]
    cluster.controllers.wake()
    argo.wait(run, 60)
    known()
    assert crd_checks.problems(argo.prepared(client, RELEASE, {"recipe": "cats"})) == []


@pytest.mark.parametrize("packs", [False, True])
def test_a_decision_reaches_the_steps_behind_it(cluster: Cluster, client: Client, packs: bool) -> None:
    Controller(cluster, packs=packs)
    run = start(client)
    status = waiting(cluster, run)
    assert status.waiting[0].why == "waits for decision (approve|reject)"
    with pytest.raises(UsageError, match="one of approve, reject"):
        argo.resume(run, "approve", {"decision": "maybe"})
    with pytest.raises(UsageError, match="does not ask for 'verdict'"):
        argo.resume(run, "approve", {"verdict": "approve"})
    argo.resume(run, outputs={"decision": "reject"}, message="by ada: not today")
    status = argo.wait(run, 60)
    steps = {step.name: step for step in status.steps}
    assert steps["deploy"].phase == "Skipped"
    assert (steps["approve"].message, steps["approve"].outputs["decision"]) == ("by ada: not today", "reject")
    with pytest.raises(UsageError, match="nothing waits"):
        argo.resume(run, "approve")


def test_a_default_is_taken_where_nothing_is_given(cluster: Cluster, controller: Controller, client: Client) -> None:
    run = start(client)
    waiting(cluster, run)
    argo.resume(run)
    assert {s.name: s.phase for s in argo.wait(run, 60).steps}["deploy"] == "Skipped"


@pytest.mark.parametrize("fault", [{"lost": True}, {"reset": True}, {"status": 429}, {"status": 500}])
def test_a_lost_answer_does_not_resume_twice(
    cluster: Cluster, controller: Controller, client: Client, fault: dict[str, Any]
) -> None:
    run = start(client)
    waiting(cluster, run)
    cluster.fail("(patch|update) workflows", **fault)
    argo.resume(run, "approve", {"decision": "approve"}, "by ada")
    assert {s.name: s.phase for s in argo.wait(run, 60).steps}["deploy"] == "Succeeded"


def test_two_who_decide_at_once_do_not_both_win(cluster: Cluster, controller: Controller, client: Client) -> None:
    run = start(client)
    step = waiting(cluster, run).waiting[0]
    client.resume_step(run.name, step, {"decision": "reject"}, "by bob")
    with pytest.raises(ConflictError, match="waits no longer: by bob"):
        client.resume_step(run.name, step, {"decision": "approve"}, "by ada")


def test_node_statuses_in_a_database_are_refused(cluster: Cluster, client: Client) -> None:
    run = start(client)
    workflow = cluster.get("workflows", run.name)
    workflow["status"] = {"phase": "Running", "offloadNodeStatusVersion": "fnv:1"}
    cluster.store.put(cluster.resource("workflows"), workflow)
    assert argo.look(run).phase == "Running"
    with pytest.raises(UnsupportedError, match=r"in a database(.|\n)*ARGO_SERVER"):
        argo.resume(run)


def test_a_suspended_workflow_is_resumed(cluster: Cluster, controller: Controller, client: Client) -> None:
    run = start(client, {**RELEASE, "spec": {**RELEASE["spec"], "suspend": True}})
    cluster.advance(5)
    assert argo.look(run).steps == ()
    assert argo.resume(run) is None
    waiting(cluster, run)


def test_stop_runs_the_exit_handler_and_terminate_does_not(
    cluster: Cluster, controller: Controller, client: Client
) -> None:
    for end, handled in ((argo.stop, True), (argo.terminate, False)):
        run = start(client)
        waiting(cluster, run)
        end(run)
        with pytest.raises(StepError, match="Stopped with strategy"):
            argo.wait(run, 60)
        assert any(step.on_exit for step in argo.look(run).steps) is handled
        with pytest.raises(UsageError, match="is over already: Failed"):
            end(run)


@pytest.mark.parametrize("fault", [{"drop_after": 1}, {"gone": True}, {"status": 500}, {"reset": True}])
def test_a_watch_that_breaks_off_is_opened_again(
    cluster: Cluster, controller: Controller, client: Client, fault: dict[str, Any]
) -> None:
    run = start(client)
    approved(cluster, run)
    broken = cluster.fail("watch workflows", times=3, **fault)
    assert argo.wait(run, 60).phase == "Succeeded"
    assert broken.met


def test_an_api_server_that_is_away_for_a_minute_does_not_end_the_waiting(
    cluster: Cluster, controller: Controller, client: Client, monkeypatch: Any
) -> None:
    monkeypatch.setattr(follow, "monotonic", lambda: cluster.clock.seconds)
    run = start(client)
    approved(cluster, run)
    cluster.fail("workflows", times=30, status=503)
    assert argo.wait(run, 60).phase == "Succeeded"


def test_a_run_that_is_deleted_meanwhile_is_told(cluster: Cluster, controller: Controller, client: Client) -> None:
    run = start(client)
    states = follow.states(client, run.name, run.uid, 60)
    next(states)
    cluster.store.remove(cluster.resource("workflows"), cluster.get("workflows", run.name))
    with pytest.raises(NotFoundError, match="was deleted while it was"):
        list(states)


def test_logs_are_read_from_the_pods(cluster: Cluster, controller: Controller, client: Client) -> None:
    controller.behave("train", log="one\ntwo\n")
    run = start(client)
    waiting(cluster, run)
    assert list(argo.logs(run, "train")) == [("train", "one"), ("train", "two")]
    assert list(argo.logs(run, tail=1)) == [("train", "two")]
    with pytest.raises(NotFoundError, match="one of train"):
        list(argo.logs(run, "nowhere"))
    for pod in cluster.objects("pods"):
        cluster.store.remove(cluster.resource("pods"), pod)
    if isinstance(client, Server):  # it answers with nothing
        assert list(argo.logs(run, "train")) == []
        return
    with pytest.raises(NotFoundError, match="logs with them"):
        list(argo.logs(run, "train"))


def test_pods_that_argo_deletes_take_their_logs_with_them_unless_it_archives_them(
    cluster: Cluster, controller: Controller, client: Client
) -> None:
    controller.behave("train", log="one\ntwo\n")
    run = start(client, {**RELEASE, "spec": {**RELEASE["spec"], "podGC": {"strategy": "OnPodSuccess"}}})
    waiting(cluster, run)
    assert [line for _, line in argo.logs(run, "train")] == ["one", "two"]
    cluster.advance(10)
    assert not [each for each in cluster.objects("pods") if "train" in each["metadata"]["name"]]
    with pytest.raises(NotFoundError, match=r"podGC OnPodSuccess deletes pods(.|\n)*deleteDelayDuration"):
        list(argo.logs(run, "train"))
    assert [line for _, line in argo.logs(run)] == [
        "(the pods of train are gone, and their logs with them: podGC OnPodSuccess deletes pods)"
    ]
    controller.archive(run.name, "train", "one\ntwo\n")
    if isinstance(client, Server):
        there = server.transport(ArgoServer(cluster, archive=controller.archived))
        run = argo.find(run.name, client=Server("http://argo.invalid", "default", transport=there))
        assert [line for _, line in argo.logs(run, "train")] == ["one", "two"]
        assert [line for _, line in argo.logs(run, "train", tail=1)] == ["two"]
        return
    with pytest.raises(NotFoundError, match="archived: name the Argo Server"):
        list(argo.logs(run, "train"))


def test_what_is_over_is_read_once_however_long_the_run_goes_on(
    cluster: Cluster, controller: Controller, client: Client
) -> None:
    controller.behave("train", log="one")
    run = start(client)
    waiting(cluster, run)
    lines = argo.logs(run, keep_on=True)
    assert next(lines) == ("train", "one")
    approved(cluster, run)
    assert list(lines) == []
    assert len([call for call in cluster.log if "-train-" in call.path and call.path.endswith("/log")]) == 1


@pytest.mark.parametrize("seconds", [0.5, 7.0, 100.0])
def test_logs_are_shown_as_they_are_written_each_line_once(
    cluster: Cluster, controller: Controller, client: Client, seconds: float
) -> None:
    lines = [f"line {number}" for number in range(40)]
    controller.behave("train", seconds=seconds, log="\n".join(lines))
    controller.behave("approve", log="")
    run = start(client)
    shown = []
    for each in argo.logs(run, keep_on=True):
        shown.append(each)
        if len(shown) == 40:
            approved(cluster, run)
    assert shown == [("train", line) for line in lines]


def test_a_cluster_without_argo_is_told(client: Client) -> None:
    bare = argo_client(Cluster())
    for ask in (lambda: start(bare), lambda: argo.find("x", client=bare)):
        with pytest.raises(UsageError, match="does not know Argo's Workflow"):
            ask()


def test_a_token_is_in_no_message(cluster: Cluster) -> None:
    from tests.fakes.kubernetes.access import User

    cluster.tokens = {"secret-of-another": User("another")}
    with pytest.raises(UsageError, match="does not accept the credentials") as error:
        start(argo_client(cluster, "planted"))
    assert "planted" not in str(error.value) + repr(error.value.__cause__) + repr(error.value.__context__)
