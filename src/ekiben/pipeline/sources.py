"""What a project works from: its recipes, and W&B as its settings name it."""

import os
from typing import TYPE_CHECKING

from ekiben.config import Project
from ekiben.errors import NotFoundError
from ekiben.recipe import Recipe

if TYPE_CHECKING:
    from ekiben.registry import Registry


def recipe(project: Project, name: str) -> Recipe:
    names = project.names("bentos", "recipe.py")
    if name not in names:
        raise NotFoundError(
            f"no recipe {name!r} in {project.root / 'bentos'}",
            wanted=f"one of {', '.join(names)}" if names else "bentos/<name>/recipe.py",
        )
    found = project.load(f"bentos.{name}.recipe:RECIPE")
    assert isinstance(found, Recipe)
    return found


def registry(project: Project) -> "Registry":
    from ekiben import tracking
    from ekiben.registry import Registry

    os.environ.update(tracking.environment(project))
    return Registry(os.environ["WANDB_PROJECT"], os.environ["WANDB_ENTITY"])
