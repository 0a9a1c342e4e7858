"""`ekiben workflow lint`: each rule finds its mistake, and leaves what is right alone.

It stands on Argo Workflows 4.1: "Workflow Variables" (which names are there where), "Enhanced Depends Logic" (`a` alone
means Succeeded, Skipped or Daemoned), the dropped singular fields, and suspend nodes whose time is up.
"""
# ruff: noqa: E501 - tables read better in long lines

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.config import Project
from ekiben.pipeline import definitions
from ekiben.pipeline.checks import check, schema
from tests import crd_checks

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
GOOD = """
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: good}
spec:
  entrypoint: main
  onExit: bye
  arguments:
    parameters: [{name: recipe, value: digits}, {name: size, value: small, enum: [small, large]}, {name: late}]
  workflowMetadata: {labelsFrom: {recipe: {expression: workflow.parameters.recipe}}}
  templates:
  - name: main
    dag:
      tasks:
      - {name: train, template: train, arguments: {parameters: [{name: recipe, value: "{{workflow.parameters.recipe}}"}]}}
      - {name: ask, template: ask, depends: train.Succeeded}
      - name: deploy
        template: deploy
        depends: (ask.Succeeded || ask.Skipped) && !train.Failed
        when: "{{tasks.ask.outputs.parameters.decision}} == approve"
        arguments: {parameters: [{name: model, value: "{{tasks.train.outputs.parameters.model}}"}]}
      - name: each
        template: deploy
        depends: deploy.AnySucceeded
        withParam: "{{tasks.deploy.outputs.result}}"
        arguments: {parameters: [{name: model, value: "{{item}} {{item.name}} {{=tasks['train'].outputs.parameters.model}}"}]}
  - name: train
    inputs: {parameters: [{name: recipe}, {name: size, default: small, enum: [small, large]}]}
    outputs: {parameters: [{name: model, valueFrom: {path: /tmp/model}, globalName: model}]}
    retryStrategy: {limit: 2, expression: "asInt(lastRetry.exitCode) > 1 && lastRetry.message != ''"}
    script:
      image: python
      command: [python]
      args: [-m, hera.workflows.runner, -e, "module:function"]
      source: "{{inputs.parameters}} {{pod.name}} {{retries}} {{outputs.parameters.model.path}}"
  - name: ask
    inputs: {parameters: [{name: decision, default: reject, enum: [approve, reject]}]}
    outputs: {parameters: [{name: decision, valueFrom: {supplied: {}, default: reject}}]}
    suspend: {duration: 24h}
  - name: deploy
    inputs: {parameters: [{name: model}]}
    synchronization: {mutexes: [{name: "deploy-{{inputs.parameters.model}}"}]}
    metrics: {prometheus: [{name: d, help: h, gauge: {realtime: false, value: "{{duration}}"}, labels: [{key: s, value: "{{status}}"}]}]}
    container: {image: "x:{{=inputs.parameters['model'] + workflow.labels.team}}", args: ["{{workflow.outputs.parameters.model}}"]}
  - name: bye
    steps:
    - - {name: tell, template: deploy, arguments: {parameters: [{name: model, value: "{{workflow.status}}"}]}}
    - - {name: more, template: deploy, arguments: {parameters: [{name: model, value: "{{steps.tell.status}}"}]}}
"""


def good() -> Json:
    found: Json = yaml.safe_load(GOOD)
    return found


def changed(place: str, value: Any) -> Json:
    """The good document with another value at a dotted place, where lists are asked by name or index; None: removed."""
    made = good()
    holder: Any = made
    *way, last = place.split("/")
    for key in way:
        holder = _entry(holder, key)
    if isinstance(holder, list):
        at = next((i for i, each in enumerate(holder) if each.get("name") == last), None)
        holder.append(value) if at is None else holder.__setitem__(at, value) if value is not None else holder.pop(at)
    elif value is None:
        del holder[last]
    else:
        holder[last] = value
    return made


def _entry(holder: Any, key: str) -> Any:
    if isinstance(holder, list):
        return holder[int(key)] if key.isdigit() else next(each for each in holder if each["name"] == key)
    return holder[key]


def told(document: Json, **more: Any) -> list[str]:
    return [str(problem) for problem in check(document, **more)]


TASKS = "spec/templates/main/dag/tasks"
ARGUMENTS = f"{TASKS}/train/arguments/parameters"
RULES = [
    ("dangling template", f"{TASKS}/ask/template", "aks", "main.dag.tasks.ask: the template 'aks' is not there"),
    ("no template", f"{TASKS}/ask/template", None, "ask: calls nothing"),
    ("dangling entrypoint", "spec/entrypoint", "mian", "spec.entrypoint: the template 'mian' is not there"),
    ("dangling exit handler", "spec/onExit", "by", "spec.onExit: the template 'by' is not there"),
    ("hook", "spec/hooks", {"running": {"template": "no", "expression": "true"}}, "hooks.running: the template 'no'"),
    ("cycle", f"{TASKS}/train/depends", "each.Succeeded", "wait for each other: ask → train → each → deploy → ask"),
    ("itself", f"{TASKS}/train/depends", "train.Failed", "wait for each other: train → train"),
    ("recursion", f"{TASKS}/more", {"name": "more", "template": "main"}, "call each other without end: main → main"),
    ("unknown argument", f"{ARGUMENTS}/x", {"name": "recipee", "value": "x"}, "train has no input 'recipee'"),
    ("missing argument", f"{TASKS}/train/arguments", None, "train.arguments: train needs 'recipe'"),
    ("value of an enum", f"{ARGUMENTS}/x", {"name": "size", "value": "huge"}, "'huge' is none of its choices"),
    ("workflow's enum", "spec/arguments/parameters/size/value", "huge", "arguments.size: 'huge' is none of"),
    ("workflow parameter", f"{ARGUMENTS}/recipe/value", "{{workflow.parameters.recipee}}", "no such parameter: one of"),
    ("in an expression", f"{ARGUMENTS}/recipe/value", "{{=workflow.parameters['x-y']}}", "workflow.parameters.x-y}}: the"),
    ("not upstream", f"{ARGUMENTS}/recipe/value", "{{tasks.ask.outputs.parameters.decision}}", "does not wait for ask"),
    ("unknown task", f"{TASKS}/deploy/when", "{{tasks.aks.status}} == x", "there is no task 'aks'"),
    ("unknown output", f"{TASKS}/deploy/when", "{{tasks.ask.outputs.parameters.x}} == y", "ask has no such output"),
    ("unknown variable", f"{TASKS}/deploy/when", "{{tasks.ask.phase}} == y", "a task has no such variable"),
    ("a sum", f"{TASKS}/deploy/when", "{{tasks.ask.name}} == ask-ada", "deploy.when: ask-ada stands without quotes"),
    ("undeclared input", "spec/templates/deploy/container/image", "{{inputs.parameters.nodel}}", "no such input: one of"),
    ("steps of a DAG", f"{TASKS}/deploy/when", "{{steps.ask.status}} == x", "nothing provides it here"),
    ("item without a loop", f"{ARGUMENTS}/recipe/value", "{{item}}", "there is an item only beside withItems"),
    ("status before the end", f"{ARGUMENTS}/recipe/value", "{{workflow.status}}", "only for the exit handler"),
    ("global output", f"{ARGUMENTS}/recipe/value", "{{workflow.outputs.parameters.no}}", "no step has an output of that"),
    ("typo", f"{ARGUMENTS}/recipe/value", "{{workflow.parameter.recipe}}", "a workflow has no such variable"),
    ("outside templates", "spec/volumes", [{"name": "v", "secret": {"secretName": "{{inputs.parameters.x}}"}}], "here"),
    ("labels", "spec/workflowMetadata/labelsFrom/recipe/expression", "workflow.parameters.no", "no such parameter"),
    ("later step", "spec/templates/bye/steps/0/0/arguments/parameters/model/value", "{{steps.more.status}}", "not wait"),
    ("bare depends", f"{TASKS}/ask/depends", "train", "ask starts after a skipped train too"),
    ("dependencies", f"{TASKS}/ask", {"name": "ask", "template": "ask", "dependencies": ["train"]}, "skipped train too"),
    ("both", f"{TASKS}/ask/dependencies", ["train"], "both depends and dependencies"),
    ("unknown result", f"{TASKS}/ask/depends", "train.Success", "there is no result train.Success"),
    ("depends on nothing", f"{TASKS}/ask/depends", "trian.Succeeded", "the task 'trian' is not there"),
    ("unreadable depends", f"{TASKS}/ask/depends", "train.Succeeded &&", "cannot be read"),
    ("unreadable, two in a row", f"{TASKS}/ask/depends", "train.Succeeded train.Failed", "cannot be read"),
    ("duplicate task", TASKS + "/", {"name": "train", "template": "train"}, "tasks.train: is there twice"),
    ("duplicate template", "spec/templates/", {"name": "ask", "suspend": {}}, "templates.ask: is there twice"),
    ("duplicate parameter", "spec/arguments/parameters/", {"name": "recipe"}, "arguments.recipe: is there twice"),
    ("two bodies", "spec/templates/ask/container", {"image": "x"}, "is container and suspend"),
    ("no body", "spec/templates/ask/suspend", None, "templates.ask: is nothing"),
    ("mutex", "spec/templates/deploy/synchronization", {"mutex": {"name": "m"}}, "has no mutex any more"),
    ("semaphore", "spec/synchronization", {"semaphore": {"configMapKeyRef": {}}}, "write semaphores, a list"),
    ("podPriority", "spec/podPriority", 3, "write podPriorityClassName"),
    ("no default in time", "spec/templates/ask/outputs/parameters/decision/valueFrom", {"supplied": {}}, "when its time"),
]  # fmt: skip
FINE = [
    ("a loop with a way out", f"{TASKS}/more", {"name": "more", "template": "main", "when": "{{workflow.name}} == x"}),
    ("a parameter of a hook", f"{TASKS}/ask/hooks", {"exit": {"template": "deploy", "arguments": {
        "parameters": [{"name": "model", "value": "{{tasks.ask.status}}"}]}}}),
    ("no entrypoint: a library", "spec/entrypoint", None),
    ("another's template", f"{TASKS}/more", {"name": "more", "templateRef": {"name": "other", "template": "x"}}),
    ("inline", f"{TASKS}/more", {"name": "more", "inline": {"container": {"image": "x"}}}),
    ("no time limit, no default", "spec/templates/ask", {"name": "ask", "suspend": {}, "outputs": {
        "parameters": [{"name": "decision", "valueFrom": {"supplied": {}}}]}}),
    ("all parameters", f"{ARGUMENTS}/recipe/value", "{{workflow.parameters.json}} {{workflow.creationTimestamp.Y}}"),
    ("annotations", f"{ARGUMENTS}/recipe/value", "{{workflow.annotations.ekiben.dev/by}}"),
    ("a sum that is meant", f"{TASKS}/deploy/when", "{{tasks.ask.status}}-1 > 3 && 'a-b' != 'c' || a =~ 'b-c'"),
    ("an operator with names", f"{ARGUMENTS}/recipe/value", "{{=sprig.trim(workflow.name) + '-tasks.x'}}"),
]  # fmt: skip


def test_what_is_right_is_left_alone() -> None:
    assert told(good()) == []


@pytest.mark.parametrize(("place", "value", "seen"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_a_mistake_is_found(place: str, value: Any, seen: str) -> None:
    assert any(seen in line for line in told(changed(place, value))), told(changed(place, value))


@pytest.mark.parametrize(("place", "value"), [case[1:] for case in FINE], ids=[case[0] for case in FINE])
def test_what_only_looks_like_one_is_not(place: str, value: Any) -> None:
    assert told(changed(place, value)) == []


def test_a_step_that_cannot_be_imported() -> None:
    assert told(good(), importable=lambda reference: "") == []
    (line,) = told(good(), importable=lambda reference: f"no {reference}")
    assert "templates.train.script: module:function cannot be imported: no module:function" in line


def test_the_arguments_of_a_template_of_another_document() -> None:
    other = {"metadata": {"name": "other"}, "spec": {"templates": [{"name": "x", "inputs": {"parameters": [{"name": "a"}]}}]}}  # fmt: skip
    call = {"name": "more", "templateRef": {"name": "other", "template": "x"}}
    assert "x needs 'a'" in told(changed(f"{TASKS}/more", call), known={"other": other})[0]
    call["templateRef"] = {"name": "other", "template": "y"}
    assert "other has no template 'y'" in told(changed(f"{TASKS}/more", call), known={"other": other})[0]


def _kind(kind: str, spec: Json) -> Json:
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize(
    ("document", "seen"),
    [
        (_kind("Workflow", good()["spec"]), ["arguments.late: has no value, and nobody is asked"]),
        (_kind("CronWorkflow", {"schedule": "* * * * *", "workflowSpec": {"workflowTemplateRef": {"name": "good"}}}),
         ["write schedules, a list", "good needs the parameter 'late'"]),
        (_kind("CronWorkflow", {"schedules": ["* * * * *"], "workflowSpec": {"workflowTemplateRef": {"name": "good"},
          "arguments": {"parameters": [{"name": "late", "value": "1"}]}}}), []),
        (_kind("WorkflowEventBinding", {"event": {"selector": "true"}, "submit": {"workflowTemplateRef":
          {"name": "good"}, "arguments": {"parameters": [{"name": "no", "valueFrom": {"event": "x"}},
          {"name": "late", "valueFrom": {"event": "x"}}]}}}), ["good has no such parameter"]),
        (_kind("WorkflowEventBinding", {}), ["chooses no event", "names no WorkflowTemplate"]),
        (_kind("Deployment", {}), ["'Deployment' is none of Argo's"]),
    ],
)  # fmt: skip
def test_other_kinds(document: Json, seen: list[str]) -> None:
    lines = told(document, known={"good": good()})
    assert len(lines) == len(seen), lines
    assert all(any(each in line for line in lines) for each in seen)


needs_crds = pytest.mark.skipif(
    not crd_checks.CRDS.is_dir(), reason=f"no Argo CRDs in {crd_checks.CRDS}: name their folder in EKIBEN_ARGO_CRDS"
)


@needs_crds
@pytest.mark.parametrize(
    ("place", "value", "seen"),
    [
        ("spec/onExitt", "bye", "spec.onExitt: Argo does not know this field"),
        ("spec/templates/train/retryStrategy/retryPolicy", 3, "retryPolicy: 3 is no string"),
        (f"{TASKS}/ask/dependson", "x", "dag.tasks.ask.dependson: Argo does not know"),
        ("spec/parallelism", "many", "'many' is no integer"),
    ],
)
def test_fields_that_argo_does_not_know(place: str, value: Any, seen: str) -> None:
    assert list(schema.problems(good(), crd_checks.CRDS)) == []
    lines = [str(problem) for problem in schema.problems(changed(place, value), crd_checks.CRDS)]
    assert any(seen in line for line in lines), lines


PROJECT = Project(ROOT)
NAMES = definitions.names(PROJECT)


@pytest.mark.parametrize("name", NAMES)
def test_our_own_workflows_have_no_mistake(name: str) -> None:
    for document in yaml.safe_load_all(definitions.export(PROJECT, name)):
        assert told(document) == []
        if crd_checks.CRDS.is_dir():
            assert list(schema.problems(document, crd_checks.CRDS)) == []


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from([f"{ARGUMENTS}/recipe/value", f"{TASKS}/ask/depends", f"{TASKS}/deploy/when"]), text=st.text(alphabet="{}=.|&!()[]'\" taskworlfinpu-", max_size=60))  # fmt: skip
def test_no_text_breaks_it(place: str, text: str) -> None:
    check(changed(place, text))


def test_nothing_is_changed_by_looking() -> None:
    document = good()
    before = copy.deepcopy(document)
    check(document)
    assert document == before


def lint(root: Path, *args: str, code: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ekiben.cli", "workflow", "lint", *args],
        cwd=root, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_the_command_tells_each_mistake_and_fails(tmp_path: Path) -> None:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "workflows").mkdir()
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(good()))
    assert "good.yaml: no mistakes" in lint(tmp_path, "good.yaml", "--no-imports", code=0)
    assert "templates.train.script: module:function cannot be imported" in lint(tmp_path, "good.yaml", code=2)
    bad = changed("spec/onExit", "by")
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump_all([good(), bad]))
    text = lint(tmp_path, "bad.yaml", "--no-imports", code=2)
    assert "bad.yaml: spec.onExit: the template 'by' is not there\n    next: one of ask, bye" in text
    told = json.loads(lint(tmp_path, "bad.yaml", "good.yaml", "--no-imports", "--json", code=2).splitlines()[0])
    assert told["problems"][0] | {"next_step": ""} == {
        "document": "bad.yaml", "path": "spec.onExit", "seen": "the template 'by' is not there", "next_step": "",
        "works": False,
    }  # fmt: skip
    assert told["checked"] == ["bad.yaml", "good.yaml"]
    (tmp_path / "broken.yaml").write_text("a: [")
    assert "broken.yaml is not YAML" in lint(tmp_path, "broken.yaml", code=2)
    (tmp_path / "list.yaml").write_text("- a")
    assert "list.yaml holds no workflow" in lint(tmp_path, "list.yaml", code=2)
    assert "no such folder" in lint(tmp_path, "good.yaml", "--crds", "nowhere", code=3)


def test_the_command_finds_the_project_s_own_workflows() -> None:
    text = lint(ROOT, code=0)
    assert all(f"{name}: no mistakes" in text for name in NAMES)


OUTPUT = "{{tasks.a.outputs.parameters.x}}"


@pytest.mark.parametrize(
    ("depends", "value", "found"),
    [
        ("a.Succeeded", OUTPUT, False),
        ("a.Succeeded || a.Skipped", OUTPUT, True),
        ("a", f"it is {OUTPUT}", True),
        ("a.Skipped && b.Failed", "{{tasks.a.outputs.result}}", True),
        ("(a.Skipped || b.Succeeded) && a.Failed", OUTPUT, False),
        ("!a.Failed && !a.Skipped", OUTPUT, False),
        ("b.Succeeded", OUTPUT, False),  # what it does not wait for is another mistake
        ("a", "{{=tasks.a.outputs.parameters.x ?? 'none'}}", False),
    ],
)
def test_an_output_of_what_may_have_been_skipped(depends: str, value: str, found: bool) -> None:
    step = {"name": "step", "outputs": {"parameters": [{"name": "x", "valueFrom": {"path": "/x"}}]}, "container": {}}
    takes = {"name": "takes", "inputs": {"parameters": [{"name": "y"}]}, "container": {"image": "x"}}
    c = {
        "name": "c",
        "template": "takes",
        "depends": depends,
        "arguments": {"parameters": [{"name": "y", "value": value}]},
    }
    a, b = {"name": "a", "template": "step", "when": "1 == 2"}, {"name": "b", "template": "step"}
    made: Json = {
        "kind": "Workflow",
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "dag": {"tasks": [a, b, c]}}, step, takes]},
    }

    def said() -> list[str]:
        return [str(each) for each in check(made) if "is nothing then" in each.seen]

    assert bool(said()) is found
    for change in (
        lambda: takes["inputs"]["parameters"][0].update(default=""),  # type: ignore[index]
        lambda: step["outputs"]["parameters"][0]["valueFrom"].update(default=""),  # type: ignore[index]
    ):
        change()
        assert not said() or value != OUTPUT
    assert not said() or "result" in value
    c["when"] = "{{tasks.a.status}} == Succeeded"
    assert not said()
