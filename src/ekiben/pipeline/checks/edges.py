"""The order of a DAG's tasks: `depends`, what it names, circles, and edges that lead past a skipped task. Pure."""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ekiben.pipeline.checks.problem import Problem, one_of
from ekiben.pipeline.checks.scope import Scope, calls

Json = dict[str, Any]
RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed")
_ATOM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")


def waits(task: Json) -> set[str]:
    """The tasks that a task speaks of."""
    named = {atom.partition(".")[0] for atom in _ATOM.findall(task.get("depends") or "")}
    return named | set(task.get("dependencies") or ())


def above(tasks: Mapping[str, Json]) -> dict[str, set[str]]:
    """For each task all that it waits for, directly or not."""
    found: dict[str, set[str]] = {}

    def of(name: str, path: tuple[str, ...]) -> set[str]:
        if name not in found:
            direct = {each for each in waits(tasks[name]) if each in tasks and each not in path}
            found[name] = direct.union(*(of(each, (*path, name)) for each in direct))
        return found[name]

    for name in tasks:
        of(name, (name,))
    return found


def problems(path: str, dag: Json) -> Iterator[Problem]:
    tasks = {task["name"]: task for task in dag.get("tasks") or () if task.get("name")}
    for name, task in tasks.items():
        yield from _edge(f"{path}.tasks.{name}", task, tasks)
    circle = _circle({name: waits(task) & set(tasks) for name, task in tasks.items()})
    if circle:
        yield Problem(path, f"these tasks wait for each other: {' → '.join(circle)}", "take one of the edges out")
    for target in (dag.get("target") or "").split():
        if target not in tasks and "{{" not in target:
            yield Problem(f"{path}.target", f"the task {target!r} is not there", one_of(tasks))


def _edge(path: str, task: Json, tasks: Mapping[str, Json]) -> Iterator[Problem]:
    name, text = task["name"], task.get("depends") or ""
    if text and task.get("dependencies"):
        yield Problem(path, "has both depends and dependencies", "keep depends")
    if text and not _reads(text):
        yield Problem(f"{path}.depends", f"{text!r} cannot be read", "tasks and results with &&, || and !")
        return
    bare = list(task.get("dependencies") or ())
    for atom in _ATOM.findall(text):
        other, _, result = atom.partition(".")
        if result and result not in RESULTS:
            yield Problem(f"{path}.depends", f"there is no result {atom}", one_of(RESULTS))
        elif not result:
            bare.append(other)
    for other in sorted(waits(task)):
        if other not in tasks:
            yield Problem(f"{path}.depends", f"the task {other!r} is not there", one_of(tasks))
    for other in dict.fromkeys(bare):
        if other in tasks:
            yield Problem(
                f"{path}.depends",
                f"{name} starts after a skipped {other} too: `{other}` alone means Succeeded, Skipped or Daemoned",
                f"write {other}.Succeeded; in Hera {other}.on_success({name}) instead of {other} >> {name}",
                works=True,
            )


def circles(scope: Scope) -> Iterator[Problem]:
    """Templates that call each other without end. With a `when` on the way, a circle is a loop that may end."""
    graph = {
        name: {call["template"] for _, call in calls(template) if call.get("template") and not call.get("when")}
        for name, template in scope.templates.items()
    }
    circle = _circle({name: found & set(graph) for name, found in graph.items()})
    if circle:
        yield Problem(f"{scope.path}.templates", f"these call each other without end: {' → '.join(circle)}")


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A path that ends where it began; empty where there is none."""
    left = dict(graph)
    while True:
        done = [name for name, found in left.items() if not found & set(left)]
        if not done:
            break
        for name in done:
            del left[name]
    if not left:
        return []
    path = [min(left)]
    while True:
        following = min(left[path[-1]] & set(left))
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def _reads(text: str) -> bool:
    """Whether it is an expression: the same in Python's grammar, which has the same precedence."""
    python = _ATOM.sub("x", text).replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    try:
        parsed = ast.parse(python.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    allowed = (ast.Expression, ast.BoolOp, ast.UnaryOp, ast.Name, ast.And, ast.Or, ast.Not, ast.Load)
    return all(isinstance(node, allowed) for node in ast.walk(parsed))
