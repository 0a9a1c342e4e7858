"""What the local engine does not do is refused by name before anything runs, and so is what cannot work on Argo."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ekiben.errors import UnsupportedError, UsageError
from ekiben.pipeline import checks, document
from ekiben.pipeline.model import Document

DOCUMENT: dict[str, Any] = {
    "kind": "Workflow",
    "metadata": {"generateName": "t-"},
    "spec": {
        "entrypoint": "main",
        "arguments": {"parameters": [{"name": "who", "value": "x"}]},
        "templates": [
            {
                "name": "main",
                "dag": {
                    "tasks": [
                        {
                            "name": "a",
                            "template": "echo",
                            "arguments": {"parameters": [{"name": "text", "value": "{{workflow.parameters.who}}"}]},
                        },
                        {
                            "name": "b",
                            "template": "echo",
                            "depends": "a.Succeeded",
                            "arguments": {
                                "parameters": [{"name": "text", "value": "{{tasks.a.outputs.parameters.text}}"}]
                            },
                        },
                    ]
                },
            },
            {
                "name": "echo",
                "inputs": {"parameters": [{"name": "text"}]},
                "outputs": {"parameters": [{"name": "text", "valueFrom": {"path": "/tmp/x"}}]},
                "script": {
                    "image": "python",
                    "command": ["python"],
                    "args": ["-m", "hera.workflows.runner", "-e", "m:f"],
                    "source": "{{inputs.parameters}}",
                },
            },
        ],
    },
}


def changed(change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    made = copy.deepcopy(DOCUMENT)
    main, echo = made["spec"]["templates"]
    change(made["spec"], main["dag"]["tasks"][1], echo)
    return made


def checked(made: dict[str, Any]) -> Document:
    checks.require(made)
    return document.read(made)


def test_the_plain_document_is_read() -> None:
    read = checked(DOCUMENT)
    assert read.name == "t"
    assert [task.name for task in read.templates["main"].tasks] == ["a", "b"]
    assert read.templates["echo"].entrypoint == "m:f"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda spec, task, echo: spec.update(templateDefaults={"name": "x"}), "spec.templateDefaults"),
        (lambda spec, task, echo: spec.update(suspend=True), "spec.suspend"),
        (lambda spec, task, echo: spec.update(synchronization={"semaphores": []}), "synchronization.semaphores"),
        (lambda spec, task, echo: task.update(inline={"name": "x"}), "dag.b.inline"),
        (lambda spec, task, echo: echo.update(daemon=True), "templates.echo.daemon"),
        (lambda spec, task, echo: echo.update(retryStrategy={"wait": {}}), "retryStrategy.wait"),
        (lambda spec, task, echo: echo.update(retryStrategy={"retryPolicy": "OnTransientError"}), "OnTransientError"),
        (lambda spec, task, echo: echo["script"].update(args=["-c", "1"]), "python -c 1"),
        (lambda spec, task, echo: echo["inputs"]["parameters"][0].update(valueFrom={"event": "x"}), "echo.inputs.text"),
        (lambda spec, task, echo: spec["templates"].append({"name": "c", "container": {"image": "x"}}), "c.container"),
        (
            lambda spec, task, echo: task["arguments"]["parameters"][0].update(value="{{=sprig.trim('x')}}"),
            "sprig",
        ),
        (
            lambda spec, task, echo: task["arguments"]["parameters"][0].update(value="{{=map([1], {# * 2})}}"),
            "cannot read",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change: Any, name: str) -> None:
    with pytest.raises(UnsupportedError, match=name.replace(".", r"\.")):
        document.read(changed(change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec, task, echo: spec.update(entrypoint="mian"), "'mian'"),
        (lambda spec, task, echo: spec.update(onExit="gone"), "'gone'"),
        (lambda spec, task, echo: task.update(template="ecco"), "'ecco'"),
        (lambda spec, task, echo: task.update(depends="z.Succeeded"), "'z'"),
        (lambda spec, task, echo: task.update(depends="b.Succeeded"), "b"),
        (lambda spec, task, echo: task["arguments"]["parameters"][0].update(name="txt"), "'txt'"),
        (lambda spec, task, echo: task.update(arguments={}), "echo needs 'text'"),
        (
            lambda spec, task, echo: task["arguments"]["parameters"][0].update(
                value="{{tasks.a.outputs.parameters.x}}"
            ),
            r"tasks\.a\.outputs\.parameters\.x",
        ),
        (
            lambda spec, task, echo: task["arguments"]["parameters"][0].update(value="{{workflow.parameters.nope}}"),
            r"workflow\.parameters\.nope",
        ),
        (lambda spec, task, echo: task.update(depends="", when="{{tasks.a.status}} == x"), r"tasks\.a\.status"),
    ],
)
def test_what_could_never_work_is_found_before_it_runs(change: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        checked(changed(change))


def test_what_only_places_pods_changes_nothing_here() -> None:
    placed = changed(
        lambda spec, task, echo: (spec.update(podGC={"strategy": "x"}), echo.update(nodeSelector={"a": "b"}))
    )
    assert checked(placed) == checked(DOCUMENT)


@pytest.mark.parametrize(
    ("text", "value"), [("10s", 10), ("1.5m", 90), ("2h", 7200), (30, 30), ("250ms", 0.25), ("1h30m", 5400)]
)
def test_durations(text: Any, value: float) -> None:
    assert document.seconds(text) == value
