"""Our client of Argo against a real cluster, where EKIBEN_ARGO_CONTEXT names one; against the fake one everywhere.

EKIBEN_ARGO_CONTEXT is a context of the kubeconfig whose cluster runs Argo Workflows' controller, EKIBEN_ARGO_NAMESPACE
(default: ekiben-argo-client) a namespace there in which pods may report their results, EKIBEN_ARGO_IMAGE an image with
`sh`. What holds for both is how the fake is held to what Argo does.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ekiben.errors import ConflictError, EkibenError, NotFoundError, StepError, UsageError
from ekiben.pipeline import argo
from ekiben.pipeline.argo import approval, follow
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.cluster import Cluster
from ekiben.pipeline.argo.install import Place
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.kubeconfig import configured
from tests.fakes.argo import controller as fake
from tests.fakes.argo.controller import Controller
from tests.fakes.kubernetes.http import served, write_kubeconfig

CONTEXT = os.environ.get("EKIBEN_ARGO_CONTEXT", "")
NAMESPACE = os.environ.get("EKIBEN_ARGO_NAMESPACE", "ekiben-argo-client")
IMAGE = os.environ.get("EKIBEN_ARGO_IMAGE", "busybox:1.36")
LONGEST = 300.0 if CONTEXT else 60.0
MODEL = '{"entity": "acme", "project": "vision", "name": "digits", "version": "v3", "digest": ""}'
TEMPLATE = """
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: ekiben-client}
spec:
  entrypoint: main
  onExit: bye
  arguments: {parameters: [{name: code, value: "0"}, {name: lock, value: none}]}
  templates:
  - name: main
    dag:
      tasks:
      - {name: work, template: work}
      - {name: ask, template: ask, depends: work.Succeeded}
      - name: follow
        template: follow
        depends: ask.Succeeded
        when: "{{tasks.ask.outputs.parameters.decision}} == approve"
  - name: work
    retryStrategy: {limit: "1", retryPolicy: Always}
    outputs: {parameters: [{name: model, valueFrom: {path: /tmp/model}}]}
    container:
      image: IMAGE
      command: [sh, -c]
      args: ["echo one; echo two; printf '%s' 'MODEL' > /tmp/model; exit {{workflow.parameters.code}}"]
  - name: ask
    inputs: {parameters: [{name: decision, default: reject, enum: [approve, reject]}]}
    outputs: {parameters: [{name: decision, valueFrom: {supplied: {}, default: reject}}]}
    suspend: {}
  - name: follow
    synchronization: {mutexes: [{name: "ekiben-{{workflow.parameters.lock}}"}]}
    dag: {tasks: [{name: hold, template: hold}]}
  - {name: hold, suspend: {duration: "5"}}
  - {name: bye, suspend: {duration: "1"}}
"""


def template() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEMPLATE.replace("IMAGE", IMAGE).replace("MODEL", MODEL.replace('"', '\\"')))
    return found


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if CONTEXT:
        yield Api(configured(CONTEXT))
        return
    made = fake.cluster()
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, "")
    controller = Controller(made)
    controller.behave("work", outputs={"model": MODEL}, log="one\ntwo", exit_parameter="code")
    with served(made, speed=10) as url, pytest.MonkeyPatch.context() as patch:
        file = write_kubeconfig(tmp_path_factory.mktemp("kubeconfig") / "config", url, namespace=NAMESPACE)
        patch.setenv("KUBECONFIG", str(file))
        yield Api(configured("fake"))


@pytest.fixture(scope="module")
def client(api: Api) -> Client:
    Place(api, NAMESPACE).apply([template()])
    return Cluster(api, NAMESPACE)


@pytest.fixture
def cleared(client: Client) -> Iterator[list[argo.Run]]:
    """Runs that are ended after the test."""
    runs: list[argo.Run] = []
    yield runs
    for run in runs:
        with contextlib.suppress(UsageError):  # it is over
            argo.terminate(run)


def start(client: Client, runs: list[argo.Run], **parameters: str) -> argo.Run:
    runs.append(argo.submit("ekiben-client", parameters, client=client, labels={"ekiben.dev/test": "client"}))
    return runs[-1]


class _Reached(Exception):
    pass


def until(run: argo.Run, wanted: Any) -> argo.Status:
    """The first state of the run that is as wanted."""
    found: list[argo.Status] = []

    def look(status: argo.Status) -> None:
        if wanted(status):
            found.append(status)
            raise _Reached

    with pytest.raises(_Reached):
        argo.wait(run, LONGEST, look)
    return found[0]


def phases(status: argo.Status) -> dict[str, str]:
    return {step.name: step.phase for step in status.steps}


def test_an_approved_run_goes_on_to_its_end(client: Client, cleared: list[argo.Run]) -> None:
    run = start(client, cleared)
    until(run, lambda status: bool(status.waiting))
    assert list(argo.logs(run, "work")) == [("work", "one"), ("work", "two")]
    told: list[Any] = []
    approval.decide(run, "approve", "ada", "fine", lambda model, config: told.append((str(model), config["by"])))
    assert told == [("acme/vision/digits:v3", "ada")]
    status = argo.wait(run, LONGEST)
    assert phases(status) == {
        "work": "Succeeded", "ask": "Succeeded", "follow.hold": "Succeeded", "onExit": "Succeeded",
    }  # fmt: skip
    assert next(step for step in status.steps if step.name == "ask").message == "approved by ada: fine"
    with pytest.raises(ConflictError, match="was approved by ada"):
        approval.decide(run, "reject", "bob", "no", lambda model, config: None)


def test_a_rejected_run_passes_over_the_rest(client: Client, cleared: list[argo.Run]) -> None:
    run = start(client, cleared)
    until(run, lambda status: bool(status.waiting))
    argo.resume(run, message="by nobody")  # by its default
    status = argo.wait(run, LONGEST)
    assert phases(status)["follow"] == "Skipped"
    assert next(step for step in status.steps if step.name == "ask").outputs["decision"] == "reject"


def test_a_failed_step_is_told_with_its_lines(client: Client, cleared: list[argo.Run]) -> None:
    run = start(client, cleared, code="3")
    with pytest.raises(StepError, match=r"(?s)work of .*exit code 3.*\n    one\n    two"):
        argo.wait(run, LONGEST)
    step = next(step for step in argo.look(run).steps if step.name == "work")
    assert (step.exit_code, len(step.attempts)) == (3, 2)


def test_a_lock_is_waited_for(client: Client, cleared: list[argo.Run]) -> None:
    lock = secrets.token_hex(3)
    runs = [start(client, cleared, lock=lock) for _ in range(2)]
    for run in runs:
        until(run, lambda status: bool(status.waiting))
    for run in runs:
        argo.resume(run, "ask", {"decision": "approve"})
    seen: list[str] = []
    for run in (runs[1], runs[0]):
        assert argo.wait(run, LONGEST, lambda status: seen.append(follow.standing(status))).phase == "Succeeded"
    assert any(f"follow Pending (Waiting for {NAMESPACE}/Mutex/ekiben-{lock} lock" in line for line in seen), seen


def test_a_stopped_run_runs_its_exit_handler(client: Client, cleared: list[argo.Run]) -> None:
    run = start(client, cleared)
    until(run, lambda status: bool(status.waiting))
    argo.stop(run)
    with pytest.raises(StepError, match=r"[Ss]topped"):
        argo.wait(run, LONGEST)
    assert any(step.on_exit for step in argo.look(run).steps)
    with pytest.raises(UsageError, match="is over already"):
        argo.stop(run)


def test_a_terminated_run_does_not(client: Client, cleared: list[argo.Run]) -> None:
    run = start(client, cleared)
    until(run, lambda status: bool(status.waiting))
    argo.terminate(run)
    with pytest.raises(EkibenError):
        argo.wait(run, LONGEST)
    assert not any(step.on_exit for step in argo.look(run).steps)


def test_the_same_key_is_the_same_run(client: Client, cleared: list[argo.Run]) -> None:
    key = secrets.token_hex(8)
    cleared += [argo.submit("ekiben-client", client=client, key=key) for _ in range(2)]
    assert cleared[0] == cleared[1]


def test_applied_again_nothing_changes(api: Api, client: Client) -> None:
    place = Place(api, NAMESPACE)
    assert [change.what for change in place.planned([template()])] == ["unchanged"]
    other = template()
    other["spec"]["arguments"]["parameters"][0]["value"] = "1"
    (change,) = place.planned([other])
    assert [line for line in change.diff.splitlines() if line[0] in "+-"][2:] == [
        "-      value: '0'",
        "+      value: '1'",
    ]


def test_what_is_not_there_is_told(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no Workflow nothing"):
        argo.find("nothing", client=client)
    with pytest.raises(NotFoundError, match="no WorkflowTemplate nothing"):
        argo.submit("nothing", client=client)
    with pytest.raises(UsageError, match="has no parameter 'x'"):
        argo.submit("ekiben-client", {"x": "1"}, client=client)
