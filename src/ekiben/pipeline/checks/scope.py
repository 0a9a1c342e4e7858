"""A workflow's templates, parameters and who calls whom: what the checks look things up in. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ekiben.pipeline.checks.problem import Problem, one_of

Json = dict[str, Any]
BODIES = ("container", "containerSet", "dag", "data", "http", "plugin", "resource", "script", "steps", "suspend")


def named(holder: Json | None, what: str) -> dict[str, Json]:
    """The parameters or artifacts of arguments, inputs or outputs, by name."""
    return {each["name"]: each for each in ((holder or {}).get(what) or ()) if "name" in each}


def calls(template: Json) -> Iterator[tuple[str, Json]]:
    """Path and task or step of everything that a template calls, with their hooks."""
    tasks = (template.get("dag") or {}).get("tasks") or ()
    found = [(f"dag.tasks.{task.get('name', '?')}", task) for task in tasks]
    groups = template.get("steps") or ()
    found += [(f"steps.{step.get('name', '?')}", step) for group in groups for step in group]
    for path, call in found:
        yield path, call
        yield from hooks(path, call)


def hooks(path: str, holder: Json) -> Iterator[tuple[str, Json]]:
    for name, hook in (holder.get("hooks") or {}).items():
        yield f"{path}.hooks.{name}", hook


@dataclass(frozen=True)
class Scope:
    """`known` are WorkflowTemplates beside this one, by name; `complete` says whether a template that is not among
    them is an error."""

    path: str
    spec: Json
    templates: Mapping[str, Json]
    parameters: frozenset[str]
    shared: frozenset[str]
    main: frozenset[str]
    known: Mapping[str, Json]

    @classmethod
    def of(cls, path: str, spec: Json, known: Mapping[str, Json]) -> "Scope":
        templates = {each["name"]: each for each in spec.get("templates") or () if each.get("name")}
        shared = {
            parameter["globalName"]
            for each in templates.values()
            for kind in ("parameters", "artifacts")
            for parameter in (each.get("outputs") or {}).get(kind) or ()
            if parameter.get("globalName")
        }
        parameters = frozenset(named(spec.get("arguments"), "parameters"))
        main = _reached(templates, spec.get("entrypoint") or "")
        return cls(path, spec, templates, parameters, frozenset(shared), main, known)

    def called(self, call: Json) -> Json | None:
        """The template that a task or step calls; None where it is not known here."""
        if call.get("inline"):
            return dict(call["inline"])
        reference = call.get("templateRef")
        if reference:
            other = self.known.get(reference.get("name", ""), {})
            templates = {each["name"]: each for each in (other.get("spec") or {}).get("templates") or ()}
            return templates.get(reference.get("template", ""))
        return self.templates.get(call.get("template") or "")

    def dangling(self, path: str, call: Json) -> Iterator[Problem]:
        """What is wrong with whom a task, step or hook calls."""
        ways = [key for key in ("template", "templateRef", "inline") if call.get(key)]
        if len(ways) != 1:
            yield Problem(path, f"calls {' and '.join(ways) or 'nothing'}", "give one of template, templateRef, inline")
        elif ways == ["template"] and call["template"] not in self.templates:
            yield Problem(path, f"the template {call['template']!r} is not there", one_of(self.templates))
        elif ways == ["templateRef"] and call["templateRef"].get("name") in self.known and self.called(call) is None:
            reference = call["templateRef"]
            yield Problem(path, f"{reference['name']} has no template {reference.get('template')!r}")


def _reached(templates: Mapping[str, Json], start: str) -> frozenset[str]:
    """The templates that a run passes through from `start`."""
    found: set[str] = set()
    left = [start]
    while left:
        name = left.pop()
        if name in templates and name not in found:
            found.add(name)
            left += [call.get("template") or "" for path, call in calls(templates[name]) if ".hooks." not in path]
    return frozenset(found)
