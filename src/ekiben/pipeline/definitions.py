"""A project's workflow definitions, loaded by name and turned into Argo documents."""

from pathlib import Path
from typing import Any

import yaml

from ekiben.config import Project
from ekiben.errors import NotFoundError

STEPS = "steps"
"""The module beside the workflows that holds what they are made of."""


def load(project: Project, name: str) -> Any:
    """The document of `workflows/<name>.py`, as plain dictionaries."""
    # By way of YAML, as Argo would read it: Hera's own dictionaries hold enums and other Python values.
    return yaml.safe_load(export(project, name))


def export(project: Project, name: str) -> str:
    """The document of `workflows/<name>.py` as YAML. NotFoundError, with what there is, if there is none."""
    names = [each for each in project.names("workflows", "*.py") if each != STEPS]
    if name not in names:
        raise NotFoundError(
            f"no workflow {name!r} in {project.root / 'workflows'}",
            wanted=f"one of {', '.join(names)}" if names else "workflows/<name>.py with define()",
        )
    return str(project.load(f"workflows.{name}:define")().to_yaml())


def golden(project: Project, name: str) -> Path:
    """Where a workflow's committed YAML lies: beside its definition."""
    return project.root / "workflows" / f"{name}.yaml"
