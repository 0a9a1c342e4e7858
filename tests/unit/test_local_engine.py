"""The local engine against what Argo Workflows 4 does, feature by feature. Hera makes the documents, as for users."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from hera.workflows import DAG, Parameter, Workflow

from ekiben.errors import UsageError
from ekiben.pipeline import checks, document
from ekiben.pipeline.attempts import Processes
from ekiben.pipeline.local import Engine
from ekiben.pipeline.nodes import Event, Result
from tests.fakes import engine_steps as steps

ROOT = Path(__file__).parents[2]


def executed(
    workflow: Any, folder: Path, tell: Callable[[Event], None] = lambda event: None, **parameters: str
) -> Result:
    return engine(yaml.safe_load(workflow.to_yaml()), folder, tell, **parameters).run()


def engine(
    made: dict[str, Any], folder: Path, tell: Callable[[Event], None] = lambda event: None, **parameters: str
) -> Engine:
    checks.require(made)
    return Engine(
        document.read(made), name="test-1", folder=folder / "run", state=folder / "state", parameters=parameters,
        steps=Processes(ROOT, dict(os.environ)), tell=tell,
    )  # fmt: skip


def phases(result: Result) -> dict[str, str]:
    return {node.name: node.phase for node in result.nodes}


def texts(result: Result) -> dict[str, str]:
    return {node.name: node.outputs.get("text", "") for node in result.nodes}


def test_values_flow_along_the_edges_and_every_result_word_starts_what_it_should(tmp_path: Path) -> None:
    arguments = [Parameter(name="who", value="nobody"), Parameter(name="wanted", value="no")]
    with Workflow(name="t", entrypoint="main", arguments=arguments) as workflow, DAG(name="main"):
        a = steps.echo(name="a", arguments={"text": "{{workflow.parameters.who}} \"quoted\" {'x': 1}\nsecond line"})
        b = steps.fail(name="b", arguments={"text": a.get_parameter("text")})
        c = steps.echo(name="c", arguments={"text": "unreached"})
        d = steps.echo(name="d", arguments={"text": "{{tasks.b.status}} {{tasks.b.outputs.parameters.text}}"})
        e = steps.echo(name="e", arguments={"text": "x"}, when="{{workflow.parameters.wanted}} == yes")
        f = steps.echo(name="f", arguments={"text": "after skipped"})
        g = steps.echo(name="g", arguments={"text": "after omitted"})
        a >> b
        b.on_success(c)
        b.on_failure(d)
        a >> e >> f
        g.depends = "c.Omitted && (d.Succeeded || d.Failed)"
    result = executed(workflow, tmp_path, who="Ada")

    assert phases(result) == {
        "a": "Succeeded", "b": "Failed", "c": "Omitted", "d": "Succeeded", "e": "Skipped", "f": "Succeeded",
        "g": "Succeeded",
    }  # fmt: skip
    assert texts(result)["a"] == "Ada \"quoted\" {'x': 1}\nsecond line"
    assert texts(result)["d"] == f"Failed {texts(result)['a']}", "a failed step's outputs are kept, as Argo keeps them"
    assert result.phase == "Succeeded", "every leaf ended well: the failure was handled"
    assert "said Ada" in (result.folder / "steps" / "a" / "log").read_text()


def test_an_unhandled_failure_fails_the_workflow_and_the_exit_handler_sees_it(tmp_path: Path) -> None:
    with Workflow(name="t", entrypoint="main", on_exit="exit") as workflow:
        with DAG(name="exit"):
            steps.echo(name="tell", arguments={"text": "{{workflow.name}} {{workflow.status}}"})
        with DAG(name="main"):
            a = steps.complain(name="a", arguments={"text": "it"})
            b = steps.echo(name="b", arguments={"text": "unreached"})
            a.on_success(b)
            steps.die(name="killed", arguments={"text": ""})
    result = executed(workflow, tmp_path)

    assert phases(result) == {"a": "Failed", "b": "Omitted", "killed": "Error", "onExit.tell": "Succeeded"}
    assert result.phase == "Error"
    assert texts(result)["onExit.tell"] == "test-1 Error"
    complaint = next(node for node in result.nodes if node.name == "a")
    assert complaint.exit_code == UsageError.exit_code
    assert complaint.message == "it was seen\nwanted: something else\nnext:   try that"


def test_retries_follow_the_policy(tmp_path: Path) -> None:
    told: list[Event] = []
    with Workflow(name="t", entrypoint="main") as workflow, DAG(name="main"):
        steps.fail_until_third(name="plain", arguments={"text": str(tmp_path / "plain")})
    document_ = yaml.safe_load(workflow.to_yaml())
    template = next(t for t in document_["spec"]["templates"] if t["name"] == "fail-until-third")
    dag = next(t for t in document_["spec"]["templates"] if t["name"] == "main")["dag"]["tasks"]
    for name, policy, limit in (("enough", "Always", 2), ("few", "OnFailure", 1), ("other", "OnError", 5)):
        strategy = {"limit": limit, "retryPolicy": policy, "backoff": {"duration": "10ms", "factor": 2}}
        document_["spec"]["templates"].append({**template, "name": name, "retryStrategy": strategy})
        dag.append({"name": name, "template": name, "arguments": {"parameters": [
            {"name": "text", "value": str(tmp_path / name)}]}})  # fmt: skip
    result = engine(document_, tmp_path, told.append).run()

    assert phases(result) == {"plain": "Failed", "enough": "Succeeded", "few": "Failed", "other": "Failed"}
    assert {name: (tmp_path / name).read_text() for name in phases(result)} == {
        "plain": "1", "enough": "3", "few": "2", "other": "1",
    }  # fmt: skip
    assert sum(event.kind == "retry" for event in told) == 3
    assert (result.folder / "steps" / "enough" / "attempt-2" / "log").is_file()


def test_artifacts_travel_and_parallel_steps_do_not_share_a_folder(tmp_path: Path) -> None:
    with Workflow(name="t", entrypoint="main") as workflow, DAG(name="main"):
        for name in ("one", "three"):
            made = steps.write(name=f"write-{name}", arguments={"text": name})
            used = steps.read(name=f"read-{name}", arguments={"data": made.get_artifact("data")})
            made >> used
    result = executed(workflow, tmp_path)

    assert result.phase == "Succeeded"
    assert texts(result)["read-one"] == "one"
    assert texts(result)["read-three"] == "three"


@pytest.mark.parametrize(("parallelism", "overlap"), [(1, False), (2, True)])
def test_parallelism_bounds_what_runs_at_once(tmp_path: Path, parallelism: int, overlap: bool) -> None:
    with Workflow(name="t", entrypoint="main", parallelism=parallelism) as workflow, DAG(name="main"):
        for name in ("a", "b"):
            steps.sleep(name=name, arguments={"text": "1.5"})
    result = executed(workflow, tmp_path)
    spans = sorted(tuple(map(float, text.split())) for text in texts(result).values())
    assert (spans[1][0] < spans[0][1]) is overlap


def test_steps_end_with_the_engine_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
import yaml
from ekiben.pipeline import document
from ekiben.pipeline.attempts import Processes
from ekiben.pipeline.local import Engine
read = document.read(yaml.safe_load(Path({str(tmp_path / "document.yaml")!r}).read_text()))
Engine(read, name="k", folder=Path({str(tmp_path / "run")!r}), state=Path({str(tmp_path / "state")!r}),
       parameters={{}}, steps=Processes(Path({str(ROOT)!r}), dict(os.environ))).run()
"""
    with Workflow(name="t", entrypoint="main") as workflow, DAG(name="main"):
        steps.sleep(name="long", arguments={"text": "60"})
    (tmp_path / "document.yaml").write_text(workflow.to_yaml())
    parent = subprocess.Popen([sys.executable, "-c", script])
    step = _eventually(lambda: next((p for p in psutil.Process(parent.pid).children()), None))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _eventually(lambda: not step.is_running() or step.status() == psutil.STATUS_ZOMBIE)


def test_stop_ends_the_step_and_still_runs_the_exit_handler(tmp_path: Path) -> None:
    with Workflow(name="t", entrypoint="main", on_exit="exit") as workflow:
        with DAG(name="exit"):
            steps.echo(name="tell", arguments={"text": "{{workflow.status}}"})
        with DAG(name="main"):
            steps.sleep(name="a", arguments={"text": "60"}) >> steps.echo(name="b", arguments={"text": "x"})

    def tell(event: Event) -> None:
        if event.kind == "start" and event.task == "a":
            running.stop()

    running = engine(yaml.safe_load(workflow.to_yaml()), tmp_path, tell)
    started = time.monotonic()
    result = running.run()
    assert phases(result) == {"a": "Error", "b": "Omitted", "onExit.tell": "Succeeded"}
    assert texts(result)["onExit.tell"] == "Failed"
    assert result.phase == "Failed"
    assert time.monotonic() - started < 30


def _eventually(seen: Callable[[], Any], seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := seen()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
    return value
