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
    import bentoml
    from bentoml.exceptions import BentoMLException

    for tag in (f"{model.name.lower()}:{model.version}", f"{model.name.lower()}:{model.version}-{model.digest[:8]}"):
        try:
            # Only an exact match: the store takes "v1" for a prefix of "v10".
            found = next((m for m in bentoml.models.list(model.name.lower()) if str(m.tag) == tag), None)
            if found is None:
                return _create(registry, model, tag, scratch)
        except BentoMLException:
            found = bentoml.models.get(tag)  # somebody else created it meanwhile
        if found.info.labels.get(DIGEST) == model.digest:
            return tag
    raise IntegrityError(
        f"the BentoML model store holds another model as {tag}",
        wanted=f"{model} with digest {model.digest}",
        next_step=f"bentoml models delete {tag}",
    )


def _create(registry: Registry, model: ModelVersion, tag: str, scratch: Path) -> str:
    import bentoml

    folder = scratch / "model"
    registry.download(model, folder)
    _refuse_pickles(folder)
    metadata: dict[str, Any] = {key: value for key, value in registry.metadata(model).items() if value is not None}
    with bentoml.models.create(tag, labels=labels(model, registry.run(model)), metadata=metadata) as created:
        shutil.copytree(folder, created.path, dirs_exist_ok=True)
    return tag


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
