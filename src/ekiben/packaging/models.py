"""A model from W&B into the BentoML model store, as it is: no framework wrapper, no pickle."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ekiben.errors import IntegrityError
from ekiben.packaging import content, pickles, store
from ekiben.packaging.lineage import DATA, DIGEST, FILES, RUN, TRAINED, VERSION
from ekiben.packaging.store import Stored
from ekiben.types import ModelVersion

if TYPE_CHECKING:
    from ekiben.registry import Registry


def pull(registry: "Callable[[], Registry]", model: ModelVersion, allowed: Mapping[str, str]) -> Stored:
    """`model` in the BentoML model store, downloaded and verified first if it is not there. Idempotent.

    `registry` is only asked for what is not in the store. `allowed` names the pickles that the recipe answers for.
    The tag is `name:vN`. Where the store, which all projects on a machine share, holds another model by that tag,
    it is `name:vN-<digest>`: a Bento that pinned the other one must keep it.
    """
    name = model.name.lower()
    tags = [f"{name}:{model.version}", f"{name}:{model.version}-{model.digest[:8]}"]
    with store.only("model", name):
        for tag in tags:
            found = store.model(tag) or _create(registry(), model, tag, allowed)
            if (found.labels.get(VERSION), found.labels.get(DIGEST)) == (str(model), model.digest):
                _verify(found)
                pickles.refuse(found.path, allowed)
                return found
    raise IntegrityError(
        f"the BentoML model store holds another model as {tags[-1]}",
        wanted=f"{model} with digest {model.digest}",
        next_step=f"bentoml models delete {tags[-1]}",
    )


def _verify(model: Stored) -> None:
    """IntegrityError if the model's files in the store are no longer those that were downloaded."""
    wanted, seen = model.labels.get(FILES, ""), content.of_model(model.path)
    if seen != wanted:
        raise IntegrityError(
            f"the files of the model {model.tag} in {model.path} have the digest {seen[:12]}",
            wanted=wanted[:12] or "a model that `ekiben pull` brought",
            next_step=f"bentoml models delete {model.tag}, then `ekiben pull` it again",
        )


def _create(registry: "Registry", model: ModelVersion, tag: str, allowed: Mapping[str, str]) -> Stored:
    import bentoml

    metadata = {key: value for key, value in registry.metadata(model).items() if value is not None}
    known = {RUN: registry.lineage(model).made_by, DATA: metadata.get("data", ""), TRAINED: metadata.get("git", "")}
    with store.scratch() as scratch:
        folder = scratch / "model"
        registry.download(model, folder)
        pickles.refuse(folder, allowed)
        labels = {VERSION: str(model), DIGEST: model.digest, FILES: content.of_model(folder)}
        labels |= {key: str(value) for key, value in known.items() if value}
        with bentoml.models.create(tag, labels=labels, metadata=metadata) as created:
            for path in folder.iterdir():
                path.rename(Path(created.path) / path.name)
    found = store.model(tag)
    assert found is not None
    return found
