"""What is wrong with an Argo document that neither Hera nor Argo's definitions refuse, before it is sent. Pure.

What the engine on this machine cannot run is another question: see pipeline/document.py.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ekiben.errors import UsageError
from ekiben.pipeline import expression
from ekiben.pipeline.checks import absent, edges, references
from ekiben.pipeline.checks.problem import Problem, one_of
from ekiben.pipeline.checks.scope import BODIES, Scope, calls, hooks, named

Json = dict[str, Any]
_RUNNER = ["-m", "hera.workflows.runner", "-e"]
_LEGACY = {
    "mutex": "mutexes, a list",
    "semaphore": "semaphores, a list",
    "podPriority": "podPriorityClassName",
    "schedule": "schedules, a list",
}
"""What Argo 4 dropped, and what took its place."""


def check(
    document: Json, known: Mapping[str, Json] | None = None, importable: Callable[[str], str] | None = None
) -> list[Problem]:
    """What is wrong with a Workflow, a template, a CronWorkflow or a WorkflowEventBinding.

    `known` are WorkflowTemplates that it may refer to, by name. `importable` says why "module:function" cannot be
    imported, '' where it can; without it, that is not asked.
    """
    kind, spec = document.get("kind"), document.get("spec") or {}
    known = known or {}
    match kind:
        case "Workflow" | "WorkflowTemplate" | "ClusterWorkflowTemplate":
            return list(_workflow("spec", spec, known, importable, submitted=kind == "Workflow"))
        case "CronWorkflow":
            return [*_cron(spec), *_workflow("spec.workflowSpec", spec.get("workflowSpec") or {}, known, importable)]
        case "WorkflowEventBinding":
            return list(_binding(spec, known))
    return [Problem("kind", f"{kind!r} is none of Argo's", "a Workflow, WorkflowTemplate, CronWorkflow or such")]


def require(document: Json) -> None:
    """UsageError, with all that keeps it from working, unless nothing does."""
    if problems := [problem for problem in check(document) if not problem.works]:
        raise UsageError("the workflow cannot work:\n" + "\n".join(map(str, problems)))


def _workflow(
    path: str,
    spec: Json,
    known: Mapping[str, Json],
    importable: Callable[[str], str] | None,
    submitted: bool = True,
) -> Iterator[Problem]:
    yield from _duplicates(f"{path}.templates", spec.get("templates") or ())
    yield from _twice(f"{path}.arguments", spec.get("arguments"))
    reference = spec.get("workflowTemplateRef")
    if reference:
        yield from _against(f"{path}.arguments", spec.get("arguments"), known.get(reference.get("name", "")))
        return
    scope = Scope.of(path, spec, known)
    yield from _entries(scope, submitted)
    yield from _values(scope, submitted)
    yield from _legacy(path, spec)
    yield from edges.circles(scope)
    yield from references.of_spec(scope)
    for name, template in scope.templates.items():
        yield from _template(scope, f"{path}.templates.{name}", template, importable)


def _entries(scope: Scope, submitted: bool) -> Iterator[Problem]:
    """Entry point, exit handler and hooks: they get the workflow's own arguments."""
    spec, path = scope.spec, scope.path
    if submitted and not spec.get("entrypoint"):
        yield Problem(path, "names no entrypoint", one_of(scope.templates))
    for key in ("entrypoint", "onExit"):
        name = spec.get(key)
        if name and name not in scope.templates:
            yield Problem(f"{path}.{key}", f"the template {name!r} is not there", one_of(scope.templates))
        for needed in _needed(scope.templates.get(name or "", {})) - scope.parameters:
            yield Problem(f"{path}.{key}", f"{name} needs {needed!r}, and the workflow has no such parameter")
    for where, hook in hooks(path, spec):
        yield from scope.dangling(where, hook)


def _values(scope: Scope, submitted: bool) -> Iterator[Problem]:
    for name, each in named(scope.spec.get("arguments"), "parameters").items():
        path, value = f"{scope.path}.arguments.{name}", each.get("value", each.get("default"))
        if submitted and value is None and not each.get("valueFrom"):
            yield Problem(path, "has no value, and nobody is asked for one")
        yield from _choice(path, each.get("enum"), value)


def _template(scope: Scope, path: str, template: Json, importable: Callable[[str], str] | None) -> Iterator[Problem]:
    bodies = [key for key in BODIES if key in template]
    if len(bodies) != 1:
        yield Problem(path, f"is {' and '.join(bodies) or 'nothing'}", f"exactly {one_of(BODIES)}")
    for side in ("inputs", "outputs"):
        yield from _twice(f"{path}.{side}", template.get(side))
    if "dag" in template:
        yield from _duplicates(f"{path}.dag.tasks", template["dag"].get("tasks") or ())
        yield from edges.problems(f"{path}.dag", template["dag"])
        yield from absent.problems(scope, f"{path}.dag", template["dag"])
    if "steps" in template:
        yield from _duplicates(f"{path}.steps", [step for group in template["steps"] for step in group])
    for where, call in calls(template):
        yield from _call(scope, f"{path}.{where}", call)
    yield from references.of_template(scope, path, template)
    yield from _suspended(path, template)
    args = (template.get("script") or {}).get("args") or []
    if importable and args[:3] == _RUNNER and len(args) > 3 and (why := importable(args[3])):
        yield Problem(f"{path}.script", f"{args[3]} cannot be imported: {why}", "correct the step's module or function")


def _call(scope: Scope, path: str, call: Json) -> Iterator[Problem]:
    yield from scope.dangling(path, call)
    yield from _twice(f"{path}.arguments", call.get("arguments"))
    for word in expression.calculated(call.get("when") or ""):
        yield Problem(f"{path}.when", f"{word} stands without quotes: Argo calculates with it", f"write '{word}'")
    template = scope.called(call)
    if template is None:
        return
    name = template.get("name", "the template")
    for kind in ("parameters", "artifacts"):
        given, wanted = named(call.get("arguments"), kind), named(template.get("inputs"), kind)
        for each in given.keys() - wanted.keys():
            yield Problem(f"{path}.arguments.{each}", f"{name} has no input {each!r}", one_of(wanted))
        for each in given.keys() & wanted.keys():
            value = given[each].get("value")
            if isinstance(value, str) and "{{" not in value:
                yield from _choice(f"{path}.arguments.{each}", wanted[each].get("enum"), value)
    given_at_all = {*named(call.get("arguments"), "parameters"), *named(call.get("arguments"), "artifacts")}
    for each in sorted(_needed(template) - given_at_all):
        yield Problem(
            f"{path}.arguments", f"{name} needs {each!r}", f"give it: in Hera, arguments={{'{each}': …}} by keyword"
        )


def _needed(template: Json) -> set[str]:
    """The inputs without which a template cannot start."""
    inputs = template.get("inputs") or {}
    parameters = named(inputs, "parameters").items()
    needed = {name for name, p in parameters if not {"value", "default", "valueFrom"} & p.keys()}
    if "suspend" in template:  # what a person supplies is an output too, and its input only says how to ask
        needed -= named(template.get("outputs"), "parameters").keys()
    built_in = ("raw", "s3", "git", "http", "gcs", "oss", "azure", "hdfs", "artifactory", "plugin")
    artifacts = named(inputs, "artifacts").items()
    return needed | {n for n, a in artifacts if not a.get("optional") and not any(a.get(key) for key in built_in)}


def _suspended(path: str, template: Json) -> Iterator[Problem]:
    if not (template.get("suspend") or {}).get("duration"):
        return
    for name, each in named(template.get("outputs"), "parameters").items():
        source = each.get("valueFrom") or {}
        if "supplied" in source and source.get("default") is None:
            yield Problem(
                f"{path}.outputs.{name}",
                "has no default for when its time is up: the step then ends in Error",
                "give valueFrom a default beside supplied; in Hera by Suspend(inputs=…, outputs=…), for"
                " intermediate_parameters cannot",
            )


def _cron(spec: Json) -> Iterator[Problem]:
    yield from _legacy("spec", {key: value for key, value in spec.items() if key != "workflowSpec"})
    if not spec.get("schedules") and not spec.get("schedule"):
        yield Problem("spec.schedules", "says no time", "give cron expressions, such as '0 3 * * *'")


def _binding(spec: Json, known: Mapping[str, Json]) -> Iterator[Problem]:
    if not (spec.get("event") or {}).get("selector"):
        yield Problem("spec.event.selector", "chooses no event", "an expression such as discriminator == 'wandb'")
    submit = spec.get("submit") or {}
    name = (submit.get("workflowTemplateRef") or {}).get("name")
    if not name:
        yield Problem("spec.submit.workflowTemplateRef", "names no WorkflowTemplate", one_of(known))
    yield from _twice("spec.submit.arguments", submit.get("arguments"))
    yield from _against("spec.submit.arguments", submit.get("arguments"), known.get(name or ""))


def _against(path: str, arguments: Json | None, template: Json | None) -> Iterator[Problem]:
    """Arguments for a WorkflowTemplate, where that is known."""
    if template is None:
        return
    given, declared = named(arguments, "parameters"), named((template.get("spec") or {}).get("arguments"), "parameters")
    called = template["metadata"]["name"]
    for name in given.keys() - declared.keys():
        yield Problem(f"{path}.{name}", f"{called} has no such parameter", one_of(declared))
    for name, each in declared.items():
        if name not in given and each.get("value") is None and each.get("default") is None:
            yield Problem(path, f"{called} needs the parameter {name!r}")


def _choice(path: str, choices: list[Any] | None, value: Any) -> Iterator[Problem]:
    if choices and value is not None and str(value) not in map(str, choices):
        yield Problem(path, f"{value!r} is none of its choices", one_of(choices))


def _duplicates(path: str, things: Any) -> Iterator[Problem]:
    seen: set[str] = set()
    for each in things:
        name = each.get("name")
        if not name:
            yield Problem(path, "has an entry without a name")
        elif name in seen:
            yield Problem(f"{path}.{name}", "is there twice: Argo takes one of them", "rename one")
        seen.add(name or "")


def _twice(path: str, holder: Json | None) -> Iterator[Problem]:
    for kind in ("parameters", "artifacts"):
        yield from _duplicates(path, (holder or {}).get(kind) or ())


def _legacy(path: str, thing: Any) -> Iterator[Problem]:
    """Fields of Argo 3 that Argo 4 does not have; it drops them without a word."""
    if isinstance(thing, list):
        for at, each in enumerate(thing):
            yield from _legacy(f"{path}.{each.get('name', at) if isinstance(each, dict) else at}", each)
    if not isinstance(thing, dict):
        return
    for key, value in thing.items():
        here = f"{path}.{key}"
        singular = key in ("mutex", "semaphore") and path.endswith(".synchronization")
        if singular or key == "podPriority" or (key == "schedule" and path == "spec"):
            yield Problem(here, f"Argo 4 has no {key} any more", f"write {_LEGACY[key]}")
        elif key not in ("arguments", "inputs", "outputs", "env"):
            yield from _legacy(here, value)
