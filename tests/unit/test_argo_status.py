"""What is read out of a Workflow object: its steps, why they wait, which one is to blame; packed node statuses.

It stands on Argo Workflows 4.1: node types (Pod, Retry, DAG, Steps, StepGroup, TaskGroup, Suspend, Skipped), names of
attempts `name(0)` and of items `name(0:x)`, `.onExit`, and compressedNodes (JSON, gzip, base64).
"""

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.errors import EkibenError, IntegrityError
from ekiben.pipeline.argo import documents, status, suspension

Json = dict[str, Any]
WF = "release-abc"


def node(name: str, kind: str = "Pod", phase: str = "Succeeded", at: int = 0, **more: Any) -> Json:
    """`at` is the minute at which it ended."""
    full = f"{WF}{name}" if name[:1] in ".[" or not name else name
    stamp = f"2026-01-01T00:{at:02}:00Z"
    ended = stamp if phase not in ("Running", "Pending") else None
    made = {"id": f"{WF}-{abs(hash(full)) % 10**9}", "name": full, "type": kind, "phase": phase, "startedAt": stamp}
    return {**made, "finishedAt": ended, "templateName": name.strip(".").partition("(")[0], **more}


def workflow(*nodes: Json, **more: Any) -> Json:
    found = {"phase": "Running", "nodes": {each["id"]: each for each in nodes}, **more}
    return {"metadata": {"name": WF, "uid": "u", "resourceVersion": "1"}, "spec": {}, "status": found}


def read(*nodes: Json, **more: Any) -> status.Status:
    return status.read(workflow(*nodes, **more))


def test_groups_and_attempts_are_not_steps_of_their_own() -> None:
    seen = read(
        node("", "DAG", "Running"),
        node(".train", "Retry", "Succeeded", 2),
        node(".train(0)", phase="Failed", at=1),
        node(".train(1)", at=2),
        node(".each", "TaskGroup", "Running", 3),
        node(".each(0:a)", at=4),
        node(".each(1:b(x))", "Retry", "Running", 5),
        node(".each(1:b(x))(0)", phase="Running", at=5),
        node(".inner", "Steps", "Running", 6),
        node(".inner[0]", "StepGroup", "Running", 6),
        node(".inner[0].first", phase="Running", at=7),
        node(".left-out", "Skipped", "Omitted", 8),
        node(".onExit", "DAG", "Running", 9),
        node(".onExit.conclude", phase="Pending", at=9),
    )
    assert [step.name for step in seen.steps] == [
        "train", "each(0:a)", "each(1:b(x))", "inner[0].first", "left-out", "onExit.conclude",
    ]  # fmt: skip
    assert len(seen.steps[0].attempts) == 2
    assert seen.steps[3].called("first")
    assert seen.steps[5].on_exit
    assert not seen.steps[3].on_exit


@pytest.mark.parametrize(
    ("nodes", "blamed"),
    [
        ([node(".a", phase="Failed", at=2), node(".b", phase="Failed", at=1)], "b"),
        ([node(".onExit", phase="Error", at=1), node(".b", phase="Failed", at=2)], "b"),
        ([node(".onExit", phase="Error", at=1), node(".b", at=2)], "onExit"),
        ([node(".a", "Retry", "Succeeded", 1), node(".a(0)", phase="Failed"), node(".b", phase="Error", at=2)], "b"),
        ([node(".b", "Skipped", "Omitted", 1), node(".a", phase="Failed", at=3)], "a"),
        ([node("", "DAG", "Error", 1, message="failed to resolve {{x}}")], WF),
        ([node("", "DAG", "Failed", 2), node(".inner", "DAG", "Error", 1, message="bad when")], "inner"),
        ([node("", "DAG", "Failed", 2)], None),
    ],
)
def test_the_step_to_blame(nodes: list[Json], blamed: str | None) -> None:
    found = read(*nodes, phase="Failed").failed_step()
    assert (found and found.name) == blamed


def test_what_a_retried_step_waits_for_is_its_last_attempt_s_word() -> None:
    seen = read(
        node(".a", "Retry", "Running", 1),
        node(".a(0)", phase="Failed", at=1, message="Error (exit code 1)"),
        node(".a(10)", phase="Pending", at=3, message="Unschedulable: 0/1 nodes"),
        node(".a(2)", phase="Failed", at=2, message="Error (exit code 2)"),
    )
    assert (seen.steps[0].phase, seen.steps[0].why) == ("Pending", "Unschedulable: 0/1 nodes")


def test_what_is_memoized_is_a_step_and_says_so() -> None:
    """A hit makes a node of the template's type, which for one with retries is Retry, with nothing in it."""
    hit = {"hit": True, "key": "digits-1", "cacheName": "ekiben-retrain"}
    seen = read(
        node(".train", "Retry", memoizationStatus=hit),
        node(".group", "Retry", "Running", children=["x"]),
        node(".group(0)", "DAG", "Running"),
    )
    assert [step.name for step in seen.steps] == ["train"]
    assert seen.steps[0].why == "known already: digits-1 in ekiben-retrain"


def test_why_a_log_is_not_there_any_more() -> None:
    log = {"artifacts": [{"name": "main-logs", "s3": {"key": "x/main.log"}}]}
    workflow_ = workflow(node(".a"), node(".b", outputs=log))
    workflow_["status"]["storedWorkflowTemplateSpec"] = {"podGC": {"strategy": "OnPodSuccess"}}
    seen = status.read(workflow_)
    errors = [seen.without_log(step) for step in seen.steps]
    assert [error.seen for error in errors] == [
        f"the pods of {name} are gone, and their logs with them: podGC OnPodSuccess deletes pods" for name in "ab"
    ]
    assert "deleteDelayDuration" in errors[0].next_step
    assert "ARGO_SERVER" in errors[1].next_step


@pytest.mark.parametrize("kind", ["Pod", "Retry", "DAG", "Steps"])
def test_what_waits_for_a_lock_is_shown_whatever_it_will_be(kind: str) -> None:
    seen = read(node(".a", kind, "Pending", 1, synchronizationStatus={"waiting": "ml/Mutex/deploy"}))
    assert [(step.name, step.why) for step in seen.steps] == [("a", "Waiting for ml/Mutex/deploy lock")]


def test_an_empty_status_is_a_run_that_waits_for_its_controller() -> None:
    seen = status.read({"metadata": {"name": WF}, "spec": {"suspend": True}})
    assert (seen.phase, seen.over, seen.steps, seen.suspended) == ("Pending", False, (), True)
    assert seen.message == "no controller has taken it up yet"


names = st.text("abc.()[]0:", min_size=1, max_size=12)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(names, jsons, max_size=8))
def test_packed_and_unpacked_again_it_is_the_same(nodes: Json) -> None:
    assert status.unpacked(status.packed(nodes)) == nodes
    ours = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()  # as another library packs it
    assert status.unpacked(ours) == nodes


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()))
def test_what_is_no_packed_status_is_told(text: str) -> None:
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        status.unpacked(text)


def test_what_is_cut_off_or_too_large_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = base64.b64decode(status.packed({"a": {"x": "y" * 1000}}))
    with pytest.raises(IntegrityError):
        status.unpacked(base64.b64encode(whole[:-12]).decode())
    monkeypatch.setattr(status, "MOST_NODES", 100)
    with pytest.raises(IntegrityError, match="larger than 100 bytes"):
        status.unpacked(base64.b64encode(whole).decode())


phases = st.sampled_from(["", "Pending", "Running", "Succeeded", "Failed", "Error", "Skipped", "Omitted"])
kinds = st.sampled_from(["Pod", "Retry", "DAG", "Steps", "StepGroup", "TaskGroup", "Suspend", "Skipped", "HTTP", ""])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(names, kinds, phases), max_size=8), phases)
def test_every_node_is_read_once_and_a_failure_is_found(given: list[tuple[str, str, str]], phase: str) -> None:
    nodes = [
        {"id": f"i{at}", "name": f"{WF}.{name}", "type": kind, "phase": state}
        for at, (name, kind, state) in enumerate(given)
    ]
    seen = read(*nodes, phase=phase)
    assert sorted(step.id for step in (*seen.steps, *seen.other)) == sorted(each["id"] for each in nodes)
    blamed = seen.failed_step()
    if blamed is not None:
        assert blamed.phase in status.BAD


@settings(max_examples=100, deadline=None)
@given(base=st.text(max_size=100), key=st.text(max_size=20))
def test_every_name_is_one_that_kubernetes_takes(base: str, key: str) -> None:
    import re

    name = documents.named(base, key)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63
    assert documents.named(base, key) == name


asks = st.dictionaries(
    st.sampled_from(["decision", "size", "other"]),
    st.fixed_dictionaries({}, optional={"supplied": st.just({}), "default": st.just("d"), "enum": st.just(["a", "d"])}),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(asks=asks, outputs=st.dictionaries(st.sampled_from(["decision", "size", "x"]), st.sampled_from(["a", "b"])))
def test_a_resumed_step_has_every_value_that_it_asked_for_or_is_refused(asks: Json, outputs: dict[str, str]) -> None:
    from datetime import UTC, datetime

    inputs = [{"name": name, **({"enum": each["enum"]} if "enum" in each else {})} for name, each in asks.items()]
    asked = [
        {"name": name, "valueFrom": {key: each[key] for key in ("supplied", "default") if key in each}}
        for name, each in asks.items()
    ]
    suspended = node(".ask", "Suspend", "Running", inputs={"parameters": inputs}, outputs={"parameters": asked})
    made = workflow(suspended)
    try:
        changes = suspension.resumed(made, suspended, outputs, "by ada", datetime.now(UTC))
    except EkibenError:
        return
    changed = {change["path"].rpartition("/")[2]: change["value"] for change in changes if change["op"] == "add"}
    assert changed["phase"] == "Succeeded"
    values = {each["name"]: each.get("value") for each in changed.get("outputs", {"parameters": asked})["parameters"]}
    for name, each in asks.items():
        if "supplied" in each:
            assert values[name] == outputs.get(name, "d")
            assert "enum" not in each or name not in outputs or values[name] in each["enum"]
    assert set(outputs) <= {name for name, each in asks.items() if "supplied" in each}
