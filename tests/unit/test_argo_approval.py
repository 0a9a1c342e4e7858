"""Approving and rejecting: claimed on the workflow, recorded in W&B, then carried out; each once, whatever breaks off.

It stands on Argo Workflows 4.1 (see test_argo_submit.py): its own label of who resumed is overwritten by the next.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster as KubeServer
from lightkube.config.models import Context, User

from ekiben.errors import ConflictError, EkibenError, UnavailableError, UnsupportedError, UsageError
from ekiben.pipeline import argo
from ekiben.pipeline.argo import approval, follow
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.cluster import Cluster as Argo
from ekiben.pipeline.argo.server import Server
from ekiben.platforms.kubernetes.api import Api
from ekiben.types import ModelVersion
from tests.contract.conftest import KEY, start_tracker, stop
from tests.fakes.argo import controller as fake
from tests.fakes.argo import server as argo_server
from tests.fakes.argo.controller import Controller
from tests.fakes.argo.server import ArgoServer
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.unit.test_argo_commands import PROJECT, ekiben, started
from tests.unit.test_argo_submit import RELEASE, argo_client, until, waiting

MODEL = ModelVersion.parse("acme/vision/digits:v3", "0" * 32)
TRAINED: dict[str, Any] = json.loads(json.dumps(RELEASE))
TRAINED["spec"]["templates"][3]["outputs"] = {"parameters": [{"name": "model", "valueFrom": {"path": "/tmp/model"}}]}


class Records:
    """What W&B was told; `fails` times it does not answer, before or after it has taken it."""

    def __init__(self, fails: int = 0, after: bool = False) -> None:
        self.fails, self.after = fails, after
        self.told: list[tuple[ModelVersion, dict[str, str]]] = []

    def __call__(self, model: ModelVersion, config: Any) -> None:
        self.fails -= 1
        if self.fails < 0 or self.after:
            self.told.append((model, dict(config)))
        if self.fails >= 0:
            raise UnavailableError("W&B does not answer")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = fake.cluster()
    monkeypatch.setattr(follow, "sleep", lambda seconds: made.advance(max(seconds, 0.1)))
    return made


def at_the_question(cluster: Cluster, client: Client | None = None, **conduct: Any) -> argo.Run:
    """A run that waits for its decision."""
    controller = Controller(cluster)
    controller.behave("train", **({"outputs": {"model": MODEL.model_dump_json()}} | conduct))
    run = argo.submit(TRAINED, client=client or argo_client(cluster))
    waiting(cluster, run)
    return run


@pytest.mark.parametrize(("verb", "phase"), [("approve", "Succeeded"), ("reject", "Skipped")])
def test_recorded_before_it_is_carried_out(cluster: Cluster, verb: Any, phase: str) -> None:
    run = at_the_question(cluster)
    records = Records()

    def record(model: ModelVersion, config: Any) -> None:
        assert argo.look(run).waiting  # nothing was resumed yet
        assert json.loads(argo.look(run).annotations[approval.ANNOTATION])["by"] == "ada"
        records(model, config)

    decision = approval.decide(run, verb, "ada", "  looked\n fine ", record)
    assert (decision.by, decision.why, decision.decision) == ("ada", "looked fine", verb)
    ((model, told),) = records.told
    assert model == MODEL
    expected = {"run": run.name, "decision": verb, "by": "ada", "why": "looked fine", "time": decision.time}
    assert told == expected
    status = argo.wait(run, 60)
    steps = {step.name: step for step in status.steps}
    assert steps["deploy"].phase == phase
    assert steps["approve"].message == f"{'approved' if verb == 'approve' else 'rejected'} by ada: looked fine"
    assert json.loads(status.annotations[approval.ANNOTATION])["recorded"] is True


def test_the_same_again_says_what_was_decided(cluster: Cluster) -> None:
    run = at_the_question(cluster)
    records = Records()
    first = approval.decide(run, "approve", "ada", "fine", records)
    for _ in range(2):
        assert str(approval.decide(run, "approve", "ada", "in other words", records)) == str(first)
        argo.wait(run, 60)
    assert len(records.told) == 1
    with pytest.raises(ConflictError, match=rf"{run.name} was approved by ada at .*Z: fine"):
        approval.decide(run, "reject", "bob", "no", records)
    with pytest.raises(ConflictError, match="was approved by ada"):
        approval.decide(run, "approve", "bob", "me too", records)


def test_nothing_is_carried_out_that_is_not_recorded(cluster: Cluster) -> None:
    run = at_the_question(cluster)
    with pytest.raises(UnavailableError):
        approval.decide(run, "approve", "ada", "fine", Records(fails=1))
    assert argo.look(run).waiting
    with pytest.raises(
        ConflictError, match=r"(?s)was approved by ada.*not carried out yet: ada repeats `ekiben approve`"
    ):
        approval.decide(run, "reject", "bob", "no", Records())
    records = Records()
    approval.decide(run, "approve", "ada", "fine", records)
    assert len(records.told) == 1
    assert {step.name: step.phase for step in argo.wait(run, 60).steps}["deploy"] == "Succeeded"


@settings(max_examples=25, deadline=None)
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(["lost", "reset", "status"]), st.integers(0, 3), st.integers(1, 3)), max_size=3
    ),
    fails=st.integers(0, 2),
    others=st.lists(st.sampled_from([("approve", "ada"), ("reject", "bob"), ("approve", "eve")]), min_size=1),
)  # fmt: skip
def test_whatever_breaks_off_one_decision_is_carried_out_and_recorded(
    faults: list[tuple[str, int, int]], fails: int, others: list[tuple[Any, str]]
) -> None:
    """Several deciders in turn, each with lost answers and a W&B that is away for a while, until one has its way."""
    cluster = fake.cluster()
    run = at_the_question(cluster)
    records = Records(fails)
    for kind, skip, times in faults:
        cluster.fail("patch workflows", times=times, skip=skip, **{kind: 503 if kind == "status" else True})
    done: list[approval.Decision] = []
    for _ in range(8):
        for verb, by in others:
            try:
                done.append(approval.decide(run, verb, by, f"{by} says so", records))
            except EkibenError:
                cluster.advance(1)
    assert done
    assert len({(each.decision, each.by) for each in done}) == 1
    status = until(cluster, run, lambda seen: seen.over)
    step = next(step for step in status.steps if step.name == "approve")
    assert step.outputs["decision"] == done[0].decision
    assert {(told["decision"], told["by"]) for _, told in records.told} == {(done[0].decision, done[0].by)}


def test_a_decision_that_comes_too_late_is_recorded_as_such(cluster: Cluster) -> None:
    """Somebody resumes the step in Argo itself between the record and our own resuming."""
    run = at_the_question(cluster)
    step = argo.look(run).waiting[0]
    records = Records()

    def record(model: ModelVersion, config: Any) -> None:
        records(model, config)
        if len(records.told) == 1:
            run.client.resume_step(run.name, step, {"decision": "reject"}, "in the UI")

    with pytest.raises(ConflictError, match="waits no longer: in the UI"):
        approval.decide(run, "approve", "ada", "fine", record)
    assert [told["decision"] for _, told in records.told] == ["approve", "not carried out"]
    with pytest.raises(ConflictError, match=r"was decided: reject \(in the UI\)"):
        approval.decide(run, "approve", "ada", "fine", record)


def test_of_many_who_decide_at_the_same_moment_one_has_its_way(cluster: Cluster) -> None:
    """Real threads, each with a connection of its own to the API server on a socket."""
    run = at_the_question(cluster)
    records = Records()
    with served(cluster) as url:
        server = SingleConfig("fake", Context("fake"), KubeServer(server=url), User())
        runs = [replace(run, client=Argo(Api(server), "default")) for _ in range(6)]

        def decide(at: int) -> str:
            try:
                return approval.decide(runs[at], "approve" if at % 2 else "reject", f"person {at}", "x", records).by
            except ConflictError:
                return ""

        with ThreadPoolExecutor(6) as pool:
            winners = [name for name in pool.map(decide, range(6)) if name]
    assert len(winners) == 1
    assert [told["by"] for _, told in records.told] == winners
    assert argo.look(run).steps[1].message.endswith(f"by {winners[0]}: x")


@pytest.mark.parametrize(
    ("by", "why"), [("", "x"), (" ", "x"), ("ada", ""), ("ada", "x" * 2001), ("a" * 201, "x"), ("a\x00", "x")]
)
def test_who_and_why_must_be_said(cluster: Cluster, by: str, why: str) -> None:
    with pytest.raises(UsageError, match=r"words, at most"):
        approval.decide(at_the_question(cluster), "approve", by, why, Records())


def test_where_nothing_waits_it_is_refused(cluster: Cluster) -> None:
    Controller(cluster).behave("train", seconds=10_000)
    run = argo.submit(TRAINED, client=argo_client(cluster))
    cluster.advance(5)
    with pytest.raises(UsageError, match=r"nothing waits in .*: train Running"):
        approval.decide(run, "approve", "ada", "fine", Records())
    assert approval.ANNOTATION not in argo.look(run).annotations


def test_a_time_out_is_told(cluster: Cluster) -> None:
    document = json.loads(json.dumps(TRAINED))
    document["spec"]["templates"][4]["suspend"] = {"duration": "30s"}
    Controller(cluster).behave("train", outputs={"model": MODEL.model_dump_json()})
    run = argo.submit(document, client=argo_client(cluster))
    cluster.advance(120)
    with pytest.raises(ConflictError, match=r"was decided: reject .*its time was up"):
        approval.decide(run, "approve", "ada", "fine", Records())


def test_a_run_without_a_model_is_refused_before_anything_is_written(cluster: Cluster) -> None:
    run = at_the_question(cluster, outputs={"model": "no model"})
    with pytest.raises(UnsupportedError, match="names no model version"):
        approval.decide(run, "approve", "ada", "fine", Records())
    assert approval.ANNOTATION not in argo.look(run).annotations
    argo.resume(run, outputs={"decision": "approve"})
    assert {step.name: step.phase for step in argo.wait(run, 60).steps}["deploy"] == "Succeeded"


def test_through_the_argo_server_the_record_is_w_and_b_and_the_step(cluster: Cluster) -> None:
    transport = argo_server.transport(ArgoServer(cluster))
    client = Server("http://argo.invalid", "default", transport=transport, sleep=cluster.advance)
    run = at_the_question(cluster, client)
    records = Records()
    approval.decide(run, "approve", "ada", "fine", records)
    assert len(records.told) == 1
    with pytest.raises(ConflictError, match=r"was decided: approve \(approved by ada: fine\)"):
        approval.decide(run, "reject", "bob", "no", records)


def _bento() -> str:
    return json.dumps({"name": "digits", "version": "1", "digest": "0" * 64, "model": MODEL.model_dump()})


@pytest.mark.parametrize(
    "value",
    [
        MODEL.model_dump_json(),
        _bento(),
        json.dumps({"repository": "r/digits", "digest": f"sha256:{'0' * 64}", "bento": json.loads(_bento())}),
    ],
)
def test_the_model_is_found_in_what_steps_put_out(value: str) -> None:
    node = {"id": "a", "outputs": {"parameters": [{"name": "n", "value": "1"}, {"name": "x", "value": value}]}}
    workflow = {"metadata": {"name": "w"}, "status": {"nodes": {"a": node}}}
    assert approval.model_of(workflow) == MODEL


def test_the_model_is_found_in_what_a_run_was_given() -> None:
    given = {"parameters": [{"name": "by", "value": "ada"}, {"name": "model", "value": str(MODEL)}]}
    found = approval.model_of({"metadata": {"name": "w"}, "spec": {"arguments": given}})
    assert str(found) == str(MODEL)


def test_the_command_writes_a_run_to_w_and_b(tmp_path: Path) -> None:
    """With the real client, against a tracker of the W&B protocol: the record is a run that used the model."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "bentofile.yaml").touch()
    (project / "pyproject.toml").write_text(PROJECT)
    tracker, address = start_tracker(tmp_path / "tracker")
    wandb = {"WANDB_BASE_URL": address, "WANDB_API_KEY": KEY, "WANDB_PROJECT": "vision"}
    cluster = fake.cluster()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    controller = Controller(cluster)
    try:
        logged = python(project, LOG_A_MODEL, **wandb)
        controller.behave("train", outputs={"model": logged})
        with served(cluster, speed=20) as url:
            write_kubeconfig(project / "kubeconfig", url, namespace="ml")
            (project / "release.yaml").write_text(json.dumps(TRAINED))
            run = ekiben(project, "workflow", "submit", "release.yaml")[0].strip()
            shown = started(project, "workflow", "watch", run)
            assert shown.stderr is not None
            while "waits for decision" not in (line := shown.stderr.readline()):
                assert line, "the watch ended"
            out, _ = ekiben(project, "approve", run, "--by", "ada", "--why", "looked fine", "--json", **wandb)
            assert json.loads(out)["recorded"] is True
            out, _ = ekiben(project, "approve", run, "--by", "ada", "--why", "again", **wandb)
            assert out.startswith(f"{run} was approved by ada at ")
            assert (
                "was approved by ada" in ekiben(project, "reject", run, "--by", "bob", "--why", "x", code=6, **wandb)[1]
            )
            shown.communicate(timeout=60)
            assert shown.returncode == 0
        told = json.loads(python(project, READ_APPROVALS, **wandb))
        assert [(each["by"], each["why"], each["decision"], each["run"]) for each in told] == [
            ("ada", "looked fine", "approve", run)
        ]
    finally:
        stop(tracker)


LOG_A_MODEL = """
import pathlib, os
from ekiben.recipe import Evaluation
from ekiben.registry import Registry
folder = pathlib.Path("weights"); folder.mkdir(); (folder / "w").write_text("w")
evaluation = Evaluation({"accuracy": 0.9}, {})
print(Registry(os.environ["WANDB_PROJECT"]).log("digits", {}, evaluation, folder, {}).model_dump_json())
"""
READ_APPROVALS = """
import json, os, wandb
runs = wandb.Api().runs(os.environ["WANDB_PROJECT"])
print(json.dumps([dict(run.config) for run in runs if run.job_type == "approval"]))
"""


def python(folder: Path, code: str, **env: str) -> str:
    """The last line that it printed."""
    import os
    import subprocess
    import sys

    variables = {**os.environ, **env, "WANDB_SILENT": "true", "WANDB_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]
