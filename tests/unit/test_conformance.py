"""The local engine and Argo Workflows 4.1, feature by feature: what Argo does, where it says so, what is done here.

Each row runs a document with the engine's real scheduler; a performer in memory takes the place of processes, which
tests/unit/test_local_engine.py covers. `docs` names the page of Argo's documentation, or the part of its controller.
"""

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.errors import UnsupportedError
from ekiben.pipeline import decisions, document
from ekiben.pipeline.attempts import Attempt, Call
from ekiben.pipeline.local import Engine
from ekiben.pipeline.nodes import Event, Result

Json = dict[str, Any]


class Performed:
    """Steps in memory: the parameter `do` says how each attempt ends; a comma parts the attempts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.env: list[Mapping[str, str]] = []
        self.at_once = self.most = 0
        self._tries: dict[str, int] = {}
        self._lock, self._over = threading.Lock(), threading.Event()

    def run(self, call: Call, line: Callable[[str], None]) -> Attempt:
        with self._lock:
            self.calls.append((call.name, dict(call.inputs)))
            self.env.append(call.env)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            number = self._tries[call.name] = self._tries.get(call.name, 0) + 1
        ways = call.inputs.get("do", "Succeeded").split(",")
        way, _, rest = ways[min(number, len(ways)) - 1].partition(":")
        if way == "wait":
            self._over.wait(float(rest))
        else:
            self._over.wait(0.002)
        with self._lock:
            self.at_once -= 1
        if way == "wait":
            return Attempt("Error" if self._over.is_set() else "Succeeded", outputs={"out": "waited"})
        if way == "Failed":
            return Attempt("Failed", exit_code=int(rest or 1), message=f"failed with {rest or 1}")
        outputs = {"out": call.inputs.get("text", "")}
        return Attempt(way, outputs=outputs, result=outputs["out"], message="lost" if way == "Error" else "")

    def end(self) -> None:
        self._over.set()

    def open(self) -> None:
        self._over.clear()


def step(**more: Any) -> Json:
    """The template that all tasks call: `do` says how it ends, `text` what it gives as `out`."""
    return {
        "name": "step",
        "inputs": {"parameters": [{"name": "do", "default": "Succeeded"}, {"name": "text", "default": "dflt"}]},
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
        "script": {"image": "x", "command": ["python"], "args": ["-m", "hera.workflows.runner", "-e", "m:f"]},
        **more,
    }


def task(name: str, depends: str = "", *, do: str = "", text: str = "", template: str = "step", **more: Any) -> Json:
    parameters = [{"name": key, "value": value} for key, value in (("do", do), ("text", text)) if value]
    return {"name": name, "template": template, "depends": depends, "arguments": {"parameters": parameters}, **more}


def dag(*tasks: Json, name: str = "main", **more: Any) -> Json:
    return {"name": name, "dag": {"tasks": list(tasks), **more}}


def workflow(*templates: Json, **spec: Any) -> Json:
    have = {each["name"] for each in templates}
    return {
        "kind": "Workflow",
        "metadata": {"name": "t"},
        "spec": {"entrypoint": "main", "templates": [*templates, *([] if "step" in have else [step()])], **spec},
    }


@dataclass
class Ran:
    result: Result
    steps: Performed
    events: list[Event] = field(default_factory=list)

    @property
    def phases(self) -> dict[str, str]:
        return {node.name: node.phase for node in self.result.nodes}

    @property
    def texts(self) -> dict[str, str]:
        return {name: inputs["text"] for name, inputs in self.steps.calls}


def ran(made: Json, folder: Path, tell: Callable[[Event], None] = lambda event: None, name: str = "run") -> Ran:
    steps, events = Performed(), list[Event]()

    def told(event: Event) -> None:
        events.append(event)
        tell(event)

    engine = Engine(
        document.read(made), name=name, folder=folder / name, state=folder / "state", parameters={}, steps=steps,
        tell=told,
    )  # fmt: skip
    return Ran(engine.run(), steps, events)


@dataclass
class Row:
    """`argo`: what it does; `docs`: where that is written; `expected`: phases of nodes, and texts that steps got."""

    feature: str
    argo: str
    docs: str
    made: Json
    phase: str
    phases: dict[str, str]
    texts: dict[str, str] = field(default_factory=dict)


S, F, E, K, O = "Succeeded", "Failed", "Error", "Skipped", "Omitted"  # noqa: E741
LOOP = dag(
    task("a", text="{{item.x}}", withItems=[{"x": 1}, {"x": 2}]),
    task("b", "a.Succeeded", text="{{tasks.a.outputs.parameters.out}}"),
    task("c", "a.Succeeded", text="{{item}}", withParam="{{tasks.a.outputs.parameters.out}}"),
)
RETRY = {"limit": "3", "retryPolicy": "Always", "expression": 'lastRetry.exitCode in ["4", "6"]'}
INNER = {
    "name": "inner",
    "inputs": {"parameters": [{"name": "text"}]},
    "outputs": {"parameters": [
        {"name": "up", "valueFrom": {"parameter": "{{tasks.x.outputs.parameters.out}}"}},
        {"name": "worked", "valueFrom": {"expression": "tasks.x.status == 'Succeeded' ? 'yes' : 'no'"}},
    ]},
    "dag": {"tasks": [task("x", text="{{inputs.parameters.text}}!")]},
}  # fmt: skip
STEPS: dict[str, Any] = {"name": "main", "steps": [
    [task("a", text="one"), task("b", do=F, continueOn={"failed": True})],
    [task("c", text="{{steps.a.outputs.parameters.out}} {{steps.b.status}}")],
    [task("d", do=F)],
    [task("e")],
]}  # fmt: skip
for each in STEPS["steps"]:
    for one in each:
        del one["depends"]

ROWS = [
    Row(
        "depends: Failed, Errored, Omitted", "starts a task by the result of others", "enhanced-depends-logic",
        workflow(dag(task("a", do=F), task("b", "a.Succeeded"), task("c", "a.Failed"), task("d", do=E),
                     task("e", "d.Errored && b.Omitted"))),
        S, {"a": F, "b": O, "c": S, "d": E, "e": S} | {"e": S},
    ),
    Row(
        "depends: a name alone", "means Succeeded, Skipped or Daemoned", "enhanced-depends-logic",
        workflow(dag(task("a", when="1 == 2"), task("b", "a"), task("c", do=F), task("d", "c"))),
        F, {"a": K, "b": S, "c": F, "d": O},
    ),
    Row(
        "depends: AnySucceeded, AllFailed", "speak of the items of a loop", "enhanced-depends-logic",
        workflow(dag(task("a", do="{{item}}", withItems=[S, F]), task("b", "a.AnySucceeded"),
                     task("c", "a.AllFailed"), task("z", do=F, withItems=[1, 2]), task("y", "z.AllFailed"))),
        F, {"a(0:Succeeded)": S, "a(1:Failed)": F, "b": S, "c": O, "z(0:1)": F, "z(1:2)": F, "y": S},
    ),
    Row(
        "a DAG's phase", "is that of its worst leaf; a leaf that did not run passes on what it waited for",
        "controller: assessDAGPhase",
        workflow(dag(task("a", do=F), task("b", "a.Failed", when="1 == 2"))),
        F, {"a": F, "b": K},
    ),
    Row(
        "failFast", "once a branch has failed and nothing runs, nothing is started", "walk-through/dag",
        workflow(dag(task("a", do=F), task("b", do="wait:0.2"), task("c", "b.Succeeded"), task("d", "c.Succeeded"))),
        F, {"a": F, "b": S, "c": O, "d": O},
    ),
    Row(
        "failFast: false", "lets other branches run to their end", "walk-through/dag",
        workflow(dag(task("a", do=F), task("c", do="wait:0.05"), task("d", "c.Succeeded"), failFast=False)),
        F, {"a": F, "c": S, "d": S},
    ),
    Row(
        "continueOn", "a failure that is tolerated lets `dependencies` go on, and fails nothing", "fields: ContinueOn",
        workflow(dag({**task("a", do=F, continueOn={"failed": True})},
                     {**task("b"), "depends": None, "dependencies": ["a"]})),
        S, {"a": F, "b": S},
    ),
    Row(
        "steps", "groups follow each other; after a failure there is nothing more", "walk-through/steps",
        workflow(STEPS), F, {"a": S, "b": F, "c": S, "d": F, "e": O}, {"c": "one Failed"},
    ),
    Row(
        "when", "skips a task", "walk-through/conditionals",
        workflow(dag(task("a", when="{{workflow.parameters.go}} == yes"), task("b", when="{{=1 < 2 && true}}")),
                 arguments={"parameters": [{"name": "go", "value": "no"}]}),
        S, {"a": K, "b": S},
    ),
    Row(
        "outputs of what was skipped",
        "from 4.0.7: the producer's default; else the input's, where the argument is that alone; nil in expressions",
        "upgrading: 4.0.7; variables: outputs of skipped and omitted nodes",
        workflow(dag(task("a", when="1 == 2"), task("b", "a.Skipped", text="{{tasks.a.outputs.parameters.out}}"),
                     task("c", "a.Skipped", text="{{=tasks.a.outputs.parameters.out ?? 'none'}}"),
                     task("d", when="1 == 2", template="kept"),
                     task("e", "d.Skipped", text="got {{tasks.d.outputs.parameters.out}}")),
                 {**step(), "name": "kept", "outputs": {"parameters": [
                     {"name": "out", "valueFrom": {"path": "/tmp/out", "default": "kept"}}]}}),
        S, {"a": K, "b": S, "c": S, "d": K, "e": S}, {"b": "dflt", "c": "none", "e": "got kept"},
    ),
    Row(
        "outputs of what was skipped, with nothing to take their place",
        "from 4.0.7: end what refers to them in Error, unless its own `when` is false", "upgrading: 4.0.7",
        workflow(dag(task("a", when="1 == 2"), task("b", "a.Skipped", text="x{{tasks.a.outputs.parameters.out}}"),
                     task("c", "a.Skipped", text="{{=tasks.a.outputs.parameters.out}}"),
                     task("d", "a.Skipped", text="x{{tasks.a.outputs.parameters.out}}", when="1 == 2"),
                     failFast=False)),
        E, {"a": K, "b": E, "c": E, "d": K},
    ),
    Row(
        "an output by an expression that comes to nothing", "ends the DAG in Error, unless it has a default",
        "upgrading: 4.0.7",
        workflow({**dag(task("x", when="1 == 2"), name="strict"), "outputs": {"parameters": [
                     {"name": "up", "valueFrom": {"expression": "tasks.x.outputs.parameters.out"}}]}},
                 {**dag(task("x", when="1 == 2"), name="lenient"), "outputs": {"parameters": [
                     {"name": "up", "valueFrom": {"expression": "tasks.x.outputs.parameters.out", "default": "d"}},
                     {"name": "by", "valueFrom": {"parameter": "{{tasks.x.outputs.parameters.out}}", "default": "p"}},
                 ]}},
                 dag(task("a", template="strict"), task("b", template="lenient"),
                     task("c", "b.Succeeded",
                          text="{{tasks.b.outputs.parameters.up}}{{tasks.b.outputs.parameters.by}}"),
                     failFast=False)),
        E, {"a": E, "a.x": K, "b.x": K, "c": S}, {"c": "dp"},
    ),
    Row(
        "withItems, withParam, aggregated outputs", "one node an item; outputs together as JSON lists",
        "walk-through/loops", workflow(LOOP), S,
        {"a(0:x:1)": S, "a(1:x:2)": S, "b": S, "c(0:1)": S, "c(1:2)": S},
        {"b": '["1", "2"]', "c(0:1)": "1", "c(1:2)": "2"},
    ),
    Row(
        "withParam of nothing", "skips the task", "walk-through/loops",
        workflow(dag(task("a", withParam="[]"), task("b", "a.Skipped"))), S, {"a": K, "b": S},
    ),
    Row(
        "withSequence", "counts, with a format", "walk-through/loops",
        workflow(dag(task("a", text="{{item}}", withSequence={"start": "9", "count": "2", "format": "w-%02d"}))),
        S, {"a(0:w-09)": S, "a(1:w-10)": S}, {"a(0:w-09)": "w-09", "a(1:w-10)": "w-10"},
    ),
    Row(
        "nested DAGs and outputs by expression", "pass up what their tasks gave", "fields: ValueFrom",
        workflow(INNER, dag(task("a", template="inner", text="hi"),
                            task("b", "a.Succeeded", text="{{tasks.a.outputs.parameters.up}} "
                                                          "{{tasks.a.outputs.parameters.worked}}"))),
        S, {"a.x": S, "b": S}, {"a.x": "hi!", "b": "hi! yes"},
    ),
    Row(
        "expressions", "{{=…}} is what it comes to, as JSON unless it is text", "variables: expression",
        workflow(dag(task("a", text="{{=asInt(workflow.parameters['n-1']) + 1}} {{=toJson([1, 'x'])}} "
                                    "{{=jsonpath('{\"a\": [7]}', '$.a[0]')}}")),
                 arguments={"parameters": [{"name": "n-1", "value": "41"}]}),
        S, {"a": S}, {"a": '42 [1,"x"] 7'},
    ),
    Row(
        "retryStrategy: expression", "asks again only while it holds", "retries: conditional retries",
        workflow(step(retryStrategy=RETRY), dag(task("a", do="Failed:4,Failed:6,Succeeded"), task("b", do="Failed:1"))),
        F, {"a": S, "b": F},
    ),
    Row(
        "retryStrategy: OnError", "does not ask again for what failed", "retries: retry policies",
        workflow(step(retryStrategy={"limit": 2, "retryPolicy": "OnError"}),
                 dag(task("a", do="Error,Succeeded"), task("b", do="Failed,Succeeded"))),
        F, {"a": S, "b": F},
    ),
    Row(
        "retryStrategy: lastRetry", "is the last attempt: exit code, -1 where there is none, status, message",
        "retries: conditional retries",
        workflow(
            step(retryStrategy={
                "limit": "2",
                "expression": "asInt(lastRetry.exitCode) < 0 && lastRetry.status == 'Error'"
                              " || lastRetry.message contains 'with 9'",
            }),
            dag(task("a", do="Error,Failed:9,Succeeded"), task("b", do="Error,Failed:8,Succeeded"),
                task("c", do="Failed:9,Failed:9,Failed:9,Succeeded"))),
        F, {"a": S, "b": F, "c": F},
    ),
    Row(
        "retryStrategy of a DAG", "runs it again as a whole", "fields: RetryStrategy",
        workflow({**dag(task("x", text="{{inputs.parameters.text}}"), task("y", "x.Succeeded", do="Failed,Succeeded"),
                        name="inner"),
                  "inputs": {"parameters": [{"name": "text"}]}, "retryStrategy": {"limit": 1, "retryPolicy": "Always"}},
                 dag(task("a", template="inner", text="t"))),
        F, {"a(0).x": S, "a(0).y": F, "a(1).x": S, "a(1).y": F},
    ),
    Row(
        "steps in a DAG, a DAG in steps", "each is one task or step of what is around it", "walk-through/dag",
        workflow({"name": "list", "steps": [[{k: v for k, v in task("x", text="1").items() if k != "depends"}],
                                            [{k: v for k, v in task("y", template="pair").items() if k != "depends"}]]},
                 dag(task("p"), task("q", "p.Succeeded", do=F), name="pair"),
                 dag(task("a", template="list"), task("b", "a.Failed"))),
        S, {"a.x": S, "a.y.p": S, "a.y.q": F, "b": S},
    ),
    Row(
        "hooks of the workflow", "run once, when workflow.status first makes their expression true", "lifecyclehook",
        workflow(dag(task("a", do=F)), {**step(), "name": "note"}, hooks={
            "on": {"template": "note", "expression": 'workflow.status == "Running"'},
            "off": {"template": "note", "expression": 'workflow.status == "Failed"'},
            "well": {"template": "note", "expression": 'workflow.status == "Succeeded"'},
        }),
        F, {"a": F, "workflow.hooks.on": S, "workflow.hooks.off": S},
    ),
    Row(
        "exit handler", "sees status and failures, whatever happened", "walk-through/exit-handlers",
        workflow(dag(task("a", do="Failed:3")), dag(task("bye", text="{{workflow.status}} {{workflow.failures}}"),
                                                    name="exit"), onExit="exit"),
        F, {"a": F, "onExit.bye": S},
        {"onExit.bye": 'Failed [{"displayName": "a", "message": "failed with 3", "phase": "Failed",'
                       ' "templateName": "step"}]'},
    ),
    Row(
        "exit handler's own arguments", "are the workflow's, by name", "controller: onExit",
        workflow(dag(task("a")), {**step(), "name": "bye"}, onExit="bye",
                 arguments={"parameters": [{"name": "text", "value": "mine"}]}),
        S, {"a": S, "onExit": S}, {"a": "dflt", "onExit": "mine"},
    ),
    Row(
        "hooks", "run when their expression first holds; `exit` at the end", "lifecyclehook",
        workflow(dag(task("a", do=F, hooks={
            "running": {"template": "note", "expression": 'tasks["a"].status == "Running"'},
            "broken": {"template": "note", "expression": 'tasks["a"].status == "Failed"'},
            "never": {"template": "note", "expression": 'tasks["a"].status == "Succeeded"'},
            "exit": {"template": "note", "arguments": {"parameters": [
                {"name": "text", "value": "{{tasks.a.status}}"}]}},
        })), {**step(), "name": "note"}),
        F, {"a": F, "a.hooks.running": S, "a.hooks.broken": S, "a.onExit": S}, {"a.onExit": "Failed"},
    ),
    Row(
        "suspend with a duration", "goes on when its time is over", "walk-through/suspending",
        workflow({"name": "nap", "suspend": {"duration": "100ms"}}, dag(task("a", template="nap"),
                                                                       task("b", "a.Succeeded"))),
        S, {"a": S, "b": S},
    ),
    Row(
        "suspend: time-out of a choice", "takes the output's default", "intermediate-inputs",
        workflow({"name": "ask", "suspend": {"duration": "100ms"},
                  "inputs": {"parameters": [{"name": "decision", "enum": ["approve", "reject"], "default": "reject"}]},
                  "outputs": {"parameters": [{"name": "decision",
                                              "valueFrom": {"supplied": {}, "default": "reject"}}]}},
                 dag(task("a", template="ask"),
                     task("b", "a.Succeeded", text="{{tasks.a.outputs.parameters.decision}}"))),
        S, {"a": S, "b": S}, {"b": "reject"},
    ),
    Row(
        "suspend: time-out without a default", "ends in Error", "controller: suspend",
        workflow({"name": "ask", "suspend": {"duration": "100ms"},
                  "outputs": {"parameters": [{"name": "d", "valueFrom": {"supplied": {}}}]}},
                 dag(task("a", template="ask"))),
        E, {"a": E},
    ),
    Row(
        "activeDeadlineSeconds of the workflow", "ends what runs; it has failed; the exit handler runs",
        "fields: WorkflowSpec",
        workflow(dag(task("a", do="wait:30"), task("b", "a.Succeeded")), dag(task("bye"), name="exit"), onExit="exit",
                 activeDeadlineSeconds=1),
        F, {"a": E, "b": O, "onExit.bye": S},
    ),
    Row(
        "globalName", "an output is the workflow's too, for whoever runs later, and for the exit handler",
        "variables: Global",
        workflow(step(outputs={"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}, "globalName": "g"}]}),
                 dag(task("a", text="x"), task("b", "a.Succeeded", template="inner")),
                 dag(task("c", text="{{workflow.outputs.parameters.g}}y"), name="inner"),
                 dag(task("bye", text="{{=workflow.outputs.parameters['g']}}"), name="exit"), onExit="exit"),
        S, {"a": S, "b.c": S, "onExit.bye": S}, {"b.c": "xy", "onExit.bye": "xy"},
    ),
    Row(
        "what cannot be worked out", "ends its node in Error", "controller: executeTemplate",
        workflow(dag(task("a", withParam="nonsense"), task("b", "a.Errored"))), S, {"a": E, "b": S},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.feature)
def test_what_argo_does_is_done_here(row: Row, tmp_path: Path) -> None:
    seen = ran(row.made, tmp_path)
    assert seen.phases == row.phases
    assert {name: seen.texts[name] for name in row.texts} == row.texts
    assert seen.result.phase == row.phase


REFUSED = {
    "container, containerSet, http, resource, data, plugin templates": {"container": {"image": "x"}},
    "daemon": {**step(), "daemon": True},
    "sidecars and init containers": {**step(), "sidecars": [{"name": "s", "image": "x"}]},
    "semaphores": {**step(), "synchronization": {"semaphores": [{"configMapKeyRef": {"name": "x", "key": "y"}}]}},
    "templateRef": {"dag": {"tasks": [{"name": "a", "templateRef": {"name": "x", "template": "y"}}]}},
    "global outputs that are artifacts": {
        **step(),
        "outputs": {"artifacts": [{"name": "a", "path": "/a", "globalName": "b"}]},
    },
}


@pytest.mark.parametrize("feature", REFUSED)
def test_what_is_not_done_here_is_refused_by_name(feature: str) -> None:
    with pytest.raises(UnsupportedError, match=r"not supported|neither|none of"):
        document.read(workflow({**REFUSED[feature], "name": "main"}))


def test_retries_wait_longer_each_time_up_to_a_cap_and_end_when_their_time_is_over(tmp_path: Path) -> None:
    """Argo: fields, Backoff: duration · factor^n, at most `cap`; none begins after `maxDuration`."""
    backoff = {"duration": "20ms", "factor": 2, "cap": "60ms"}
    strategy = {"limit": 4, "retryPolicy": "Always"}
    made = workflow(step(retryStrategy={**strategy, "backoff": backoff}), dag(task("a", do=F)))
    waits = [each.text.rpartition(" in ")[2] for each in ran(made, tmp_path).events if each.kind == "retry"]
    assert waits == ["0.02 s", "0.04 s", "0.06 s", "0.06 s"]
    late = {**strategy, "backoff": {"duration": "200ms", "factor": 1, "maxDuration": "300ms"}}
    seen = ran(workflow(step(retryStrategy=late), dag(task("a", do=F))), tmp_path, name="late")
    assert len(seen.steps.calls) == 2


def test_parallelism_of_a_template_bounds_its_own_steps(tmp_path: Path) -> None:
    made = workflow({**dag(task("a", do="wait:0.05", withSequence={"count": "6"})), "parallelism": 2})
    assert ran(made, tmp_path).steps.most == 2


def test_a_memoized_step_runs_once_for_each_key_across_runs(tmp_path: Path) -> None:
    memo = {"key": "d-{{inputs.parameters.text}}", "maxAge": "1h", "cache": {"configMap": {"name": "c"}}}
    again = task("b", "a.Succeeded", text="{{tasks.a.outputs.parameters.out}}")
    made = workflow(step(memoize=memo), dag(task("a", text="x"), again))
    first, second = ran(made, tmp_path), ran(made, tmp_path, name="again")
    assert [name for name, _ in first.steps.calls] == ["a"], "b has the same key"
    assert second.steps.calls == []
    assert second.phases == {"a": S, "b": S}
    failed = workflow(step(memoize=memo), dag(task("a", text="y", do=F)))
    assert len(ran(failed, tmp_path, name="f1").steps.calls + ran(failed, tmp_path, name="f2").steps.calls) == 2


def test_a_mutex_is_held_against_other_runs_and_a_decision_is_taken_from_its_file(tmp_path: Path) -> None:
    ask = {
        "name": "ask",
        "suspend": {},
        "inputs": {"parameters": [{"name": "decision", "enum": ["approve", "reject"], "default": "reject"}]},
        "outputs": {"parameters": [{"name": "decision", "valueFrom": {"supplied": {}}}]},
    }
    locked = {**dag(task("ask", template="ask"), task("b", "ask.Succeeded",
                                                     text="{{tasks.ask.outputs.parameters.decision}}"),
                    name="locked"), "synchronization": {"mutexes": [{"name": "m"}]}}  # fmt: skip
    made, waiting, both = workflow(ask, locked, dag(task("l", template="locked"))), threading.Event(), list[Ran]()

    def tell(event: Event) -> None:
        if "waits for the lock m" in event.text:
            waiting.set()

    runs = [
        threading.Thread(target=lambda name=name: both.append(ran(made, tmp_path, tell, name))) for name in ("x", "y")
    ]
    for run in runs:
        run.start()
    assert waiting.wait(20), "one of them waits for the other's lock"
    for _ in runs:
        asking = None
        while asking is None:
            asking = next((f for f in (tmp_path / "x", tmp_path / "y") if decisions.open_questions(f)), None)
        decisions.decide(asking, "approve", "ada", "fine")
        while decisions.open_questions(asking):
            threading.Event().wait(0.05)
    for run in runs:
        run.join(20)
    assert [each.phases for each in both] == [{"l.ask": S, "l.b": S}] * 2
    assert all(each.texts["l.b"] == "approve" for each in both)


NAMES = "abcdef"
WAYS = [S, F, E, K]


@st.composite
def dags(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Tasks with what they wait for and how they end, in an order that has no circle."""
    found = []
    for at, name in enumerate(NAMES[: draw(st.integers(1, 6))]):
        atoms = st.tuples(st.sampled_from(NAMES[:at] or "-"), st.sampled_from(["", ".Succeeded", ".Failed", ".Errored",
                                                                              ".Skipped", ".Omitted"]))  # fmt: skip
        terms = draw(st.lists(atoms, max_size=2)) if at else []
        op = draw(st.sampled_from([" && ", " || "]))
        found.append((name, op.join(f"{other}{word}" for other, word in terms), draw(st.sampled_from(WAYS))))
    return found


def model(tasks: list[tuple[str, str, str]]) -> tuple[dict[str, str], str]:
    """What each task ends as, and the DAG, said again in as few words as possible."""
    words = {S: "Succeeded", F: "Failed", E: "Errored", K: "Skipped", O: "Omitted"}
    ended: dict[str, str] = {}
    needs: dict[str, list[str]] = {}

    def true(atom: str) -> bool:
        name, _, word = atom.partition(".")
        return words[ended[name]] == word if word else ended[name] in (S, K)

    for name, depends, way in tasks:
        parts = depends.split(" && ") if " && " in depends else depends.split(" || ")
        needs[name] = [part.partition(".")[0] for part in parts if part]
        start = not depends or (all if " && " in depends else any)(true(part) for part in parts)
        ended[name] = way if start else O
    leaves = set(ended) - set(itertools.chain.from_iterable(needs.values()))

    def worst(name: str) -> str:
        if ended[name] in (K, O) and needs[name]:
            return min((worst(need) for need in needs[name]), key=[E, F, S, K, O].index)
        return ended[name]

    bad = [worst(leaf) for leaf in leaves if worst(leaf) in (E, F)]
    return ended, E if E in bad else F if bad else S


@settings(max_examples=60, deadline=None)
@given(dags())
def test_depends_and_when_follow_a_small_model(tmp_path_factory: pytest.TempPathFactory, tasks: Any) -> None:
    made = workflow(
        dag(
            *(task(name, depends, do=way, **({"when": "1 == 2"} if way == K else {})) for name, depends, way in tasks),
            failFast=False,
        )
    )
    seen = ran(made, tmp_path_factory.mktemp("model"))
    assert (seen.phases, seen.result.phase) == model(tasks)


class Killed(BaseException):
    pass


def test_a_run_that_is_cut_off_after_any_step_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """Cut off by an exception out of the listener, which leaves the ledger as `kill -9` would."""
    made = workflow(INNER, dag(task("a", text="x"), task("b", "a.Succeeded", template="inner", text="y"),
                               task("c", "b.Succeeded", do=F), task("d", "c.Failed", text="{{item}}",
                                                                    withItems=["p", "q"])),
                    dag(task("bye"), name="exit"), onExit="exit")  # fmt: skip
    whole = ran(made, tmp_path, name="whole")
    done: list[str] = []
    for _ in range(20):
        begun = list[str]()

        def tell(event: Event, begun: list[str] = begun) -> None:
            if event.kind == "start":
                begun.append(event.task)
            if event.kind == "end" and event.task in begun and not event.task.startswith("onExit"):
                raise Killed

        try:
            cut = ran(made, tmp_path, tell, name="cut")
            break
        except Killed:
            done += begun
    assert cut.phases == whole.phases
    assert cut.result.phase == whole.result.phase
    finished = [name for name in done if not name.startswith("d(")]
    assert sorted(set(finished)) == sorted(finished), "no step that had ended was done again"
