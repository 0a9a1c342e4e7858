"""A project's workflow definitions, loaded by name and turned into Argo documents."""

from pathlib import Path
from typing import Any

import yaml

from ekiben.config import Project
from ekiben.errors import NotFoundError


def load(project: Project, name: str) -> Any:
    """The document of `workflows/<name>.py`, as plain dictionaries."""
    names = project.names("workflows", "*.py")
    if name not in names:
        raise NotFoundError(
            f"no workflow {name!r} in {project.root / 'workflows'}",
            wanted=f"one of {', '.join(n for n in names if n != 'steps')}",
        )
    # By way of YAML, as Argo would read it: Hera's own dictionaries hold enums and other Python values.
    return yaml.safe_load(export(project, name))


def export(project: Project, name: str) -> str:
    """The document of `workflows/<name>.py` as YAML."""
    return str(project.load(f"workflows.{name}:define")().to_yaml())


def golden(project: Project, name: str) -> Path:
    """Where a workflow's committed YAML lies: beside its definition."""
    return project.root / "workflows" / f"{name}.yaml"
