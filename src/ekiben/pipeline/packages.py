"""From a model's name, as a person writes it, to what is in the BentoML stores and in W&B."""

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ekiben.config import Project
from ekiben.errors import NotFoundError, UsageError
from ekiben.packaging import bento, bundle, models, requirements
from ekiben.packaging.store import Stored
from ekiben.pipeline import sources
from ekiben.recipe import Recipe
from ekiben.types import BentoRef, ModelVersion

if TYPE_CHECKING:
    from ekiben.packaging import image

_MODEL = re.compile(
    r"^(?:(?P<entity>[^/:@]+)/(?P<project>[^/:@]+)/)?(?P<name>[^/:@]+)(?::(?P<alias>[^/:@]+))?(?:@(?P<digest>[0-9a-f]{32}))?$"
)


def resolve(project: Project, text: str) -> ModelVersion:
    """The exact version that `[entity/project/]name[:alias|:vN][@digest]` names now; nothing later asks for it again.

    With entity, project, version and digest it is exact already, and W&B is not asked.
    """
    match = _MODEL.match(text)
    if match is None:
        raise UsageError(f"not a model: {text!r}", wanted="NAME, NAME:ALIAS, NAME:vN or ENTITY/PROJECT/NAME:vN@DIGEST")
    entity, name, alias, digest = match["entity"], match["name"], match["alias"] or "latest", match["digest"]
    if entity and digest and re.fullmatch(r"v\d+", alias):
        return ModelVersion.parse(f"{entity}/{match['project']}/{name}:{alias}", digest)
    registry = sources.registry(project)
    path = f"{entity}/{match['project']}/{name}" if entity else f"{registry.entity}/{registry.project}/{name}"
    found = registry.resolve_path(f"{path}:{alias}")
    if digest and digest != found.digest:
        raise UsageError(f"{text}: W&B has the digest {found.digest}", wanted=digest)
    return found


def pull(project: Project, model: ModelVersion) -> Stored:
    """The model, verified, in the BentoML model store."""
    made = _recipe(project, model.name)
    return models.pull(partial(sources.registry, project), model, made.pickles if made else {})


def build(project: Project, name: str, model: ModelVersion, service: str = "") -> BentoRef:
    """The Bento `name`, which serves the model by its recipe's service, or by `service`."""
    made = _recipe(project, name)
    wanted = service or (made.service if made else "")
    if not wanted:
        raise UsageError(
            f"no recipe {name!r}, so there is no service to build",
            wanted=f"bentos/{name}/recipe.py, or --service",
            next_step=f"ekiben build {name} --service service.{name}:Service",
        )
    return bento.build(project.root, name=name, service=wanted, model=pull(project, model), version=model)


def publish(project: Project, ref: BentoRef) -> str:
    """Log the Bento to W&B; returns the artifact's exact path."""
    return bundle.publish(sources.registry(project), ref)


def pull_bento(project: Project, text: str) -> BentoRef:
    """The published Bento that `NAME[:ALIAS]` names, verified, in the BentoML stores."""
    name, _, alias = text.partition(":")
    made = _recipe(project, name)
    return bundle.pull(partial(sources.registry, project), name, alias or "latest", made.pickles if made else {})


def published(project: Project, text: str) -> str:
    """The exact path in W&B of the published Bento that `NAME[:ALIAS]` names; NotFoundError where there is none."""
    name, _, alias = text.partition(":")
    return sources.registry(project).resolve_bento(bundle.collection(name), alias or "latest")[0]


def lock(project: Project, name: str) -> str:
    """Write the requirements.lock of the Bento `name`; returns its path from the project's root."""
    return str(requirements.lock(bento.bentofile(project.root, name), project.root).relative_to(project.root))


def plan_runtime(project: Project, name: str, place: "image.Place", engine: str) -> "image.Plan":
    from ekiben.packaging import image

    return image.plan_runtime(name, _packages(project, name), place, engine)


def build_runtime(project: Project, name: str, place: "image.Place", engine: str, sbom: Path) -> "image.Runtime":
    """Make the runtime image of the Bento `name`, by the lock of the project."""
    from ekiben.packaging import image

    return image.build_runtime(name, _packages(project, name), place, engine, sbom)


def _packages(project: Project, name: str) -> requirements.Packages:
    return requirements.Packages.of_project(bento.bentofile(project.root, name))


def described(model: ModelVersion, stored: Stored) -> dict[str, Any]:
    """What `ekiben pull --json` prints."""
    return {
        "tag": stored.tag,
        "path": str(stored.path),
        "model": model.model_dump(mode="json"),
        "labels": stored.labels,
        "metadata": stored.document.get("metadata") or {},
    }


def _recipe(project: Project, name: str) -> Recipe | None:
    """The recipe of that name; None where the project has none, and the model is somebody else's."""
    try:
        return sources.recipe(project, name)
    except NotFoundError:
        return None
