"""Arguments that are outputs of tasks which may have been left out. From Argo 4.0.7 on whoever takes one ends in Error,
unless something takes its place. Pure.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from ekiben.errors import UnsupportedError
from ekiben.pipeline import expression
from ekiben.pipeline.checks import edges
from ekiben.pipeline.checks.problem import Problem
from ekiben.pipeline.checks.scope import Scope, named

Json = dict[str, Any]
_OUTPUT = re.compile(r"\{\{\s*tasks\.([\w-]+)\.outputs\.(?:result|parameters\.([\w.-]+))\s*\}\}")
_ENDS = (("Succeeded", "AnySucceeded"), ("Failed", "AllFailed"), ("Errored",), ("Skipped",), ("Omitted",))
_MOST = 5  # tasks that an expression speaks of, of which all results are tried


def problems(scope: Scope, path: str, dag: Json) -> Iterator[Problem]:
    tasks = {task["name"]: task for task in dag.get("tasks") or () if task.get("name")}
    for name, task in tasks.items():
        if task.get("when"):  # where it is false nothing is asked for
            continue
        for given, each in named(task.get("arguments"), "parameters").items():
            value = str(each.get("value", ""))
            for match in _OUTPUT.finditer(value):
                word = _left_out(task, tasks.get(match[1]))
                if word and not _provided(scope, task, given, value, tasks[match[1]], match):
                    yield Problem(
                        f"{path}.tasks.{name}.arguments.{given}",
                        f"{name} may start after {match[1]} was {word.lower()}, and {match[0]} is nothing then:"
                        " it ends in Error",
                        f"let it wait for {match[1]}.Succeeded, or give the output, or the input, a default",
                        works=True,
                    )


def _provided(scope: Scope, task: Json, given: str, value: str, other: Json, match: re.Match[str]) -> bool:
    """Whether the output has a default, or the input where the argument is the reference alone."""
    output = named((scope.called(other) or {}).get("outputs"), "parameters").get(match[2] or "", {})
    taken = named((scope.called(task) or {}).get("inputs"), "parameters").get(given, {})
    alone = match[0] == value.strip() and (taken.get("default") is not None or taken.get("value") is not None)
    return alone or (output.get("valueFrom") or {}).get("default") is not None


def _left_out(task: Json, other: Json | None) -> str:
    """How `other` may have been left out when `task` starts; '' where it cannot, as far as their expressions say."""
    text = task.get("depends") or " && ".join(task.get("dependencies") or ())
    named = sorted(edges.waits(task))
    if other is None or other["name"] not in named or len(named) > _MOST:
        return ""
    ways = [word for word, key in (("Skipped", "when"), ("Omitted", "depends")) if other.get(key)]
    for word in ways:
        for ends in itertools.product(*([(word,)] if name == other["name"] else _ENDS for name in named)):
            try:
                if expression.depends(text, dict(zip(named, ends, strict=True))):
                    return word
            except UnsupportedError:
                return ""
    return ""
