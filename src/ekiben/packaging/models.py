"""A model from W&B into the BentoML model store, as it is: no framework wrapper, no pickle."""

import shutil
from pathlib import Path
from typing import Any

from ekiben.errors import IntegrityError
from ekiben.registry import Registry
from ekiben.types import ModelVersion

VERSION, DIGEST, RUN = "wandb.version", "wandb.digest", "wandb.run"
"""Labels of models and Bentos: the W&B version, its digest, and the run that logged it."""

_PICKLES = ("*.pkl", "*.pickle", "*.joblib", "*.pt", "*.pth")


def pull(registry: Registry, model: ModelVersion, scratch: Path) -> str:
    """The store's tag for `model`, downloaded and verified first if it is not there. Idempotent.

    The tag is `name:vN`. Where the store, which all projects on a machine share, holds another model by that tag,
    it is `name:vN-<digest>`: a Bento that pinned the other one must keep it.
    """
    for tag in (f"{model.name.lower()}:{model.version}", f"{model.name.lower()}:{model.version}-{model.digest[:8]}"):
        found = _find(tag) or _create(registry, model, tag, scratch)
        if found.info.labels.get(DIGEST) == model.digest:
            return tag
    raise IntegrityError(
        f"the BentoML model store holds another model as {tag}",
        wanted=f"{model} with digest {model.digest}",
        next_step=f"bentoml models delete {tag}",
    )


def _find(tag: str) -> Any:
    """The model of exactly that tag: the store itself takes "v1" for a prefix of "v10"."""
    import bentoml

    return next((model for model in bentoml.models.list() if str(model.tag) == tag), None)


def _create(registry: Registry, model: ModelVersion, tag: str, scratch: Path) -> Any:
    import bentoml
    from bentoml.exceptions import BentoMLException

    folder = scratch / "model"
    registry.download(model, folder)
    _refuse_pickles(folder)
    metadata = {key: value for key, value in registry.metadata(model).items() if value is not None}
    labelled = labels(model, registry.lineage(model).made_by)
    try:
        with bentoml.models.create(tag, labels=labelled, metadata=metadata) as created:
            shutil.copytree(folder, created.path, dirs_exist_ok=True)
    except BentoMLException:
        if (found := _find(tag)) is None:
            raise
        return found  # another process was quicker
    return created


def labels(model: ModelVersion, run: str) -> dict[str, str]:
    return {VERSION: str(model), DIGEST: model.digest, RUN: run}


def _refuse_pickles(folder: Path) -> None:
    for pattern in _PICKLES:
        for path in folder.rglob(pattern):
            raise IntegrityError(
                f"the model holds a pickle: {path.relative_to(folder)}",
                wanted="a format that cannot run code when it is loaded, such as skops or safetensors",
                next_step="change the recipe's save()",
            )
