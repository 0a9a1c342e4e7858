"""A project's workflow definitions, loaded by name and turned into Argo documents."""

from pathlib import Path
from typing import Any

import yaml

from ekiben.config import Project
from ekiben.errors import NotFoundError, UsageError

PARTS = ("steps", "on_cluster")
"""The modules beside the workflows that hold what they are made of."""


def names(project: Project) -> list[str]:
    """The project's workflows: the modules below workflows/ that are not parts of others."""
    return [each for each in project.names("workflows", "*.py") if each not in PARTS]


def load(project: Project, name: str) -> Any:
    """The document of `workflows/<name>.py`, as plain dictionaries; of several the first, which the others start."""
    # By way of YAML, as Argo would read it: Hera's own dictionaries hold enums and other Python values.
    return next(yaml.safe_load_all(export(project, name)))


def export(project: Project, name: str) -> str:
    """The document of `workflows/<name>.py` as YAML. NotFoundError, with what there is, if there is none."""
    known = names(project)
    if name not in known:
        raise NotFoundError(
            f"no workflow {name!r} in {project.root / 'workflows'}",
            wanted=f"one of {', '.join(known)}" if known else "workflows/<name>.py with define()",
        )
    made = project.load(f"workflows.{name}:define")()
    return "---\n".join(map(_yaml, made if isinstance(made, list) else [made]))


def _yaml(made: Any) -> str:
    if hasattr(made, "to_yaml"):
        return str(made.to_yaml())
    # Hera has event bindings as plain models only.
    return yaml.safe_dump(made.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False)


def golden(project: Project, name: str) -> Path:
    """Where a workflow's committed YAML lies: beside its definition."""
    return project.root / "workflows" / f"{name}.yaml"


def is_file(name: str) -> bool:
    """Whether a person means a file and not a workflow below workflows/."""
    return name.endswith((".yaml", ".yml", ".json"))


def file(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file, at least one. UsageError for a file that holds none."""
    try:
        found = [each for each in yaml.safe_load_all(Path(name).read_text()) if each is not None]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {name}: {error}", wanted="a Workflow document as YAML") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{name} is not YAML: {error}") from None
    if not found or not all(isinstance(each, dict) for each in found):
        raise UsageError(f"{name} holds no workflow", wanted="documents with kind and spec")
    return found


def holds(there: Any, here: Any) -> bool:
    """Whether a cluster's object says all that a document does; an API server may add defaults of its own."""
    if isinstance(here, dict):
        return isinstance(there, dict) and all(key in there and holds(there[key], each) for key, each in here.items())
    if isinstance(here, list):
        same = isinstance(there, list) and len(there) == len(here)
        return same and all(holds(*pair) for pair in zip(there, here, strict=True))
    return bool(there == here)
