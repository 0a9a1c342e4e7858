"""Every `{{…}}` of a document, and whether anything provides it there. Pure.

Names as in Argo's "Workflow Variables". An expression, `{{=…}}`, is not evaluated: only the names in it are looked up.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ekiben.pipeline.checks import edges
from ekiben.pipeline.checks.problem import Problem, one_of
from ekiben.pipeline.checks.scope import Scope, named

Json = dict[str, Any]
_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NAMES = re.compile(
    r"""(?<![\w.'"\]-])(workflow|inputs|tasks|steps|outputs)((?:\??\.\w+|\[\s*(?:'[^']*'|"[^"]*")\s*\])+)"""
)
_PART = re.compile(r"""\??\.(\w+)|\[\s*['"]([^'"]*)['"]\s*\]""")
_EXPRESSIONS = ("expression", "fromExpression")
_WORKFLOW = ("name", "namespace", "uid", "mainEntrypoint", "serviceAccountName", "priority", "duration",
             "scheduledTime", "creationTimestamp", "parameters")  # fmt: skip
_OPEN = ("labels", "annotations", "creationTimestamp")
"""What a workflow gets only when it is submitted: any name below these may be there."""
_EXIT = ("status", "failures")
_NODE = ("id", "ip", "status", "exitCode", "startedAt", "finishedAt", "hostNodeName", "name")
_RETRY = ("exitCode", "status", "duration", "message")
_METRICS = ("status", "duration", "exitCode", "resourcesDuration.cpu", "resourcesDuration.memory", "outputs.result")


@dataclass(frozen=True)
class Place:
    """What is provided where a text stands. `called` are the templates of tasks or steps, by name (None: not known
    here); `above` those that have ended by then (None: all have)."""

    scope: Scope
    on_exit: bool = True
    inputs: Json = field(default_factory=dict)
    outputs: Json = field(default_factory=dict)
    called: Mapping[str, Mapping[str, Json | None]] = field(default_factory=dict)
    above: Collection[str] | None = None
    item: bool = False
    metrics: bool = False
    inside: bool = True  # in a template

    def missing(self, reference: str) -> str:
        """Why nothing provides it; '' where something does."""
        match reference.split("."):
            case ["workflow", *rest]:
                return self._workflow(rest)
            case ["inputs", "parameters"] | ["node", "name"] | ["pod", "name"] | ["retries"] if self.inside:
                return ""
            case ["inputs", kind, *rest] if kind in ("parameters", "artifacts") and self.inside:
                have = named(self.inputs, kind)
                return "" if _hit(rest, have) else f"the template has no such input: {one_of(have)}"
            case ["outputs", kind, *rest] if kind in ("parameters", "artifacts") and self.inside:
                have = named(self.outputs, kind)
                return "" if _hit(rest, have) else f"the template has no such output: {one_of(have)}"
            case ["lastRetry", name] if name in _RETRY and self.inside:
                return ""
            case ["item", *_]:
                return "" if self.item else "there is an item only beside withItems, withParam or withSequence"
            case ["tasks" | "steps" as kind, name, *rest] if kind in self.called:
                return self._task(kind, name, rest)
            case ["cron", *_] | ["request" | "response", *_]:
                return ""
        return "" if self.metrics and reference in _METRICS else "nothing provides it here"

    def _workflow(self, rest: list[str]) -> str:
        match rest:
            case [name] if name in _WORKFLOW:
                return ""
            case [name, *_] if name in _OPEN:
                return ""
            case ["parameters", *names]:
                known = self.scope.parameters
                found = ".".join(names) in known or names == ["json"]
                return "" if found else f"the workflow has no such parameter: {one_of(known)}"
            case ["outputs", "parameters" | "artifacts", name]:
                return "" if name in self.scope.shared else "no step has an output of that globalName"
            case [name] if name in _EXIT:
                return "" if self.on_exit else "it is there only for the exit handler"
        return "a workflow has no such variable"

    def _task(self, kind: str, name: str, rest: list[str]) -> str:
        known = self.called[kind]
        if name == "name" and not rest:
            return ""
        if name not in known:
            return f"there is no {kind[:-1]} {name!r}: {one_of(known)}"
        if self.above is not None and name not in self.above:
            return f"it does not wait for {name}"
        match rest:
            case [] | ["outputs", "result"] | ["outputs", "parameters"] | ["outputs"]:
                return ""
            case [one] if one in _NODE:
                return ""
            case ["outputs", "parameters" | "artifacts" as what, *names]:
                template = known[name]
                have = named((template or {}).get("outputs"), what)
                found = template is None or _hit(names, have)
                return "" if found else f"{name} has no such output: {one_of(have)}"
        return f"a {kind[:-1]} has no such variable"


def of_template(scope: Scope, path: str, template: Json) -> Iterator[Problem]:
    """The references of a template: in its own fields, and in each task or step."""
    place = Place(
        scope,
        on_exit=template["name"] not in scope.main,
        inputs=template.get("inputs") or {},
        outputs=template.get("outputs") or {},
    )
    own = {key: value for key, value in template.items() if key not in ("dag", "steps", "outputs", "metrics")}
    yield from _unprovided(path, own, place)
    yield from _unprovided(f"{path}.metrics", template.get("metrics"), replace(place, metrics=True))
    tasks = {task["name"]: task for task in (template.get("dag") or {}).get("tasks") or () if task.get("name")}
    groups = [[step for step in group if step.get("name")] for group in template.get("steps") or ()]
    called = {
        "tasks": {name: scope.called(task) for name, task in tasks.items()},
        "steps": {step["name"]: scope.called(step) for group in groups for step in group},
    }
    kinds = {kind: called[kind] for kind, key in (("tasks", "dag"), ("steps", "steps")) if key in template}
    yield from _unprovided(f"{path}.outputs", template.get("outputs"), replace(place, called=kinds))
    above = edges.above(tasks)
    for name, task in tasks.items():
        there = replace(place, called=kinds, above=above[name], item=_loops(task))
        yield from _of_call(f"{path}.dag.tasks.{name}", task, there)
    before: list[str] = []
    for group in groups:
        for step in group:
            there = replace(place, called=kinds, above=tuple(before), item=_loops(step))
            yield from _of_call(f"{path}.steps.{step['name']}", step, there)
        before += [step["name"] for step in group]


def of_spec(scope: Scope) -> Iterator[Problem]:
    """The references outside templates: volumes, labels, locks of the whole workflow."""
    own = {key: value for key, value in scope.spec.items() if key not in ("templates", "metrics", "templateDefaults")}
    own.pop("hooks", None)
    yield from _unprovided(scope.path, own, Place(scope, inside=False))


def _of_call(path: str, call: Json, place: Place) -> Iterator[Problem]:
    own = {key: value for key, value in call.items() if key not in ("hooks", "inline")}
    yield from _unprovided(path, own, place)
    for name, hook in (call.get("hooks") or {}).items():
        arguments = {"arguments": hook.get("arguments")}  # a hook's expression may speak of its own task
        yield from _unprovided(f"{path}.hooks.{name}", arguments, replace(place, above=None))


def _loops(call: Json) -> bool:
    return any(call.get(key) is not None for key in ("withItems", "withParam", "withSequence"))


def _hit(rest: list[str], have: Collection[str]) -> bool:
    """Whether the dotted rest names one of these, or the path of one; names may hold dots."""
    name = ".".join(rest)
    return name in have or (name.endswith(".path") and name.removesuffix(".path") in have)


def _unprovided(path: str, thing: Any, place: Place) -> Iterator[Problem]:
    for where, reference in sorted(set(_references(path, thing))):
        if why := place.missing(reference):
            yield Problem(where, f"{{{{{reference}}}}}: {why}")


def _references(path: str, thing: Any) -> Iterator[tuple[str, str]]:
    """Path and name of every reference in a text, however deep."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            here = f"{path}.{key}"
            if key in _EXPRESSIONS and isinstance(value, str) and "{{" not in value:
                yield from ((here, name) for name in _in_expression(value))
            else:
                yield from _references(here, value)
    elif isinstance(thing, list):
        for at, value in enumerate(thing):
            name = value.get("name", at) if isinstance(value, dict) else at
            yield from _references(f"{path}.{name}", value)
    elif isinstance(thing, str):
        for tag in _TAG.findall(thing):
            if tag.startswith("="):
                yield from ((path, name) for name in _in_expression(tag[1:]))
            else:
                yield path, tag.strip()


def _in_expression(text: str) -> Iterator[str]:
    for root, rest in _NAMES.findall(text):
        yield ".".join([root, *("".join(found) for found in _PART.findall(rest))])
