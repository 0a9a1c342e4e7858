"""The documents of a project, each with its mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ekiben.config import Project
from ekiben.errors import EkibenError, NotFoundError, UsageError
from ekiben.pipeline import checks, definitions
from ekiben.pipeline.checks import schema
from ekiben.pipeline.checks.problem import Problem

Json = dict[str, Any]


def mistakes(
    project: Project, names: Sequence[str], crds: Path | None, *, imports: bool = True
) -> dict[str, list[Problem]]:
    """By what was asked for: modules below workflows/ or files, all modules where nothing is named.

    `crds` is a folder with Argo's definitions; without it, fields are not looked up.
    """
    if crds is not None and not crds.is_dir():
        raise NotFoundError(f"no such folder: {crds}", wanted="Argo's custom resource definitions, as JSON")
    asked = documents(project, names)
    known = _templates(each for found in asked.values() for each in found)
    for name in set(definitions.names(project)) - set(asked):
        if definitions.golden(project, name).is_file():  # as committed: what others refer to is not what is checked
            known = {**_templates(definitions.file(str(definitions.golden(project, name)))), **known}

    def importable(reference: str) -> str:
        try:
            made = project.load(reference)
        except (EkibenError, ImportError) as error:
            return getattr(error, "seen", str(error))
        except Exception as error:  # a module may fail in any way while it is imported
            return f"{type(error).__name__}: {error}"
        return "" if callable(made) else "it is no function"

    found: dict[str, list[Problem]] = {}
    for name, each in asked.items():
        found[name] = []
        for document in each:
            found[name] += checks.check(document, known, importable if imports else None)
            if crds is not None:
                found[name] += schema.problems(document, crds)
    return found


def documents(project: Project, names: Sequence[str]) -> dict[str, list[Json]]:
    """The documents of modules below workflows/ or of files, by what was asked for; of all modules where nothing is."""
    return {name: _documents(project, name) for name in names or definitions.names(project)}


def require_none(found: Mapping[str, Sequence[Problem]]) -> None:
    """UsageError, with all of them, where there are mistakes."""
    lines = [f"{name}: {problem}" for name, each in found.items() for problem in each]
    if lines:
        raise UsageError("\n".join(lines), wanted="workflows without mistakes", next_step="ekiben workflow lint")


def _documents(project: Project, name: str) -> list[Json]:
    if definitions.is_file(name):
        return definitions.file(name)
    return [each for each in yaml.safe_load_all(definitions.export(project, name)) if each]


def _templates(documents: Any) -> Mapping[str, Json]:
    kinds = ("WorkflowTemplate", "ClusterWorkflowTemplate")
    return {each["metadata"]["name"]: each for each in documents if each.get("kind") in kinds}
