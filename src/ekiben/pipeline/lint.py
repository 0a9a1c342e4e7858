"""Finds in a workflow document what neither Hera nor Argo's CRDs do, before anything runs. Pure."""

from collections.abc import Iterable, Mapping

from ekiben.errors import UnsupportedError, UsageError
from ekiben.pipeline import expression
from ekiben.pipeline.document import REFERENCE, Document, Task, Template


def check(document: Document) -> None:
    """Raise on dangling templates and references, unknown or missing arguments, and cycles."""
    for wanted in filter(None, (document.entrypoint, document.on_exit)):
        _known_template(document, wanted, "spec")
    if not document.entrypoint:
        raise UsageError("the workflow names no entrypoint", next_step="set spec.entrypoint")
    for template in document.templates.values():
        _check_tasks(document, template)
    _check_nesting(document, document.entrypoint, ())
    if document.on_exit:
        _check_nesting(document, document.on_exit, ())


def _known_template(document: Document, name: str, where: str) -> None:
    if name not in document.templates:
        raise UsageError(f"{where} names the template {name!r}, which is not there", wanted=_names(document.templates))


def _names(names: Iterable[str]) -> str:
    return f"one of {', '.join(sorted(names))}"


def _check_tasks(document: Document, template: Template) -> None:
    tasks = {task.name: task for task in template.tasks}
    waits: dict[str, set[str]] = {}
    for task in template.tasks:
        where = f"templates.{template.name}.dag.{task.name}"
        _known_template(document, task.template, where)
        called = document.templates[task.template]
        for given, known in ((task.parameters, called.inputs), (task.artifacts, called.input_artifacts)):
            for name in set(given) - set(known):
                raise UsageError(f"{where} gives {name!r} to {called.name}", wanted=_names(known))
        required = {name for name, default in called.inputs.items() if default is None}
        required |= {name for name, optional in called.input_artifacts.items() if not optional}
        for name in required - set(task.parameters) - set(task.artifacts):
            raise UsageError(f"{where} does not give {name!r}, which {called.name} needs")
        waits[task.name] = expression.dependencies(task.depends)
        for name in waits[task.name] - set(tasks):
            raise UsageError(f"{where} depends on {name!r}, which is not there", wanted=_names(tasks))
        for reference in _references(task):
            _check_reference(document, template, tasks, reference, where)
    above: dict[str, set[str]] = {}
    for name in order(waits):
        above[name] = waits[name].union(*(above[need] for need in waits[name]))
        for reference in _references(tasks[name]):
            kind, _, rest = reference.partition(".")
            if kind == "tasks" and (needed := rest.partition(".")[0]) not in above[name]:
                raise UsageError(
                    f"templates.{template.name}.dag.{name} uses {{{{{reference}}}}} but does not wait for {needed}",
                    next_step=f"add {needed} to its dependencies",
                )


def order(waits: Mapping[str, set[str]]) -> list[str]:
    """The names so ordered that each follows all that it waits for; a cycle is refused with its members."""
    ordered: list[str] = []
    left = dict(waits)
    while left:
        ready = [name for name, needs in left.items() if needs <= set(ordered)]
        if not ready:
            raise UsageError(f"these tasks wait for each other: {', '.join(sorted(left))}")
        ordered += ready
        left = {name: needs for name, needs in left.items() if name not in ready}
    return ordered


def _references(task: Task) -> list[str]:
    texts = [*task.parameters.values(), task.when]
    return [reference for text in texts for reference in REFERENCE.findall(text)] + list(task.artifacts.values())


def _check_reference(
    document: Document, template: Template, tasks: Mapping[str, Task], reference: str, where: str
) -> None:
    parts = reference.split(".")
    match parts:
        case ["workflow", "name" | "uid" | "status" | "failures"]:
            return
        case ["workflow", "parameters", name] if name in document.arguments:
            return
        case ["inputs", "parameters", name] if name in template.inputs:
            return
        case ["inputs", "artifacts", name] if name in template.input_artifacts:
            return
        case ["tasks", task, "status"] if task in tasks:
            return
        case ["tasks", task, "outputs", "result"] if task in tasks:
            return
        case ["tasks", task, "outputs", "parameters", name] if task in tasks:
            if name in document.templates[tasks[task].template].outputs:
                return
        case ["tasks", task, "outputs", "artifacts", name] if task in tasks:
            if name in document.templates[tasks[task].template].output_artifacts:
                return
    if reference.startswith("="):
        raise UnsupportedError(
            f"{where}: {{{{{reference}}}}} is an expression, which the local engine does not evaluate"
        )
    raise UsageError(f"{where}: nothing provides {{{{{reference}}}}}")


def _check_nesting(document: Document, name: str, above: tuple[str, ...]) -> None:
    if name in above:
        raise UnsupportedError(f"templates call each other in a circle: {' → '.join([*above, name])}")
    for task in document.templates[name].tasks:
        _check_nesting(document, task.template, (*above, name))
