"""A Bento that pins one exact model, under a version that says what is in it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ekiben.errors import EkibenError, IntegrityError
from ekiben.packaging import content, lineage, requirements, store
from ekiben.packaging.lineage import CONTENT, FILES
from ekiben.packaging.staging import stage
from ekiben.types import BentoRef, ModelVersion

SECRETS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
"""What the build, which imports the service's code, does not get to see."""


def bentofile(root: Path, name: str) -> Path:
    """The bentofile of the Bento `name`: its own in `bentos/<name>/`, or else the project's."""
    own = root / "bentos" / name / content.BENTOFILE
    return own if own.is_file() else root / content.BENTOFILE


def build(root: Path, *, name: str, service: str, model: store.Stored, version: ModelVersion) -> BentoRef:
    """Build the Bento `name` of `service` with `model`, which `models.pull` has verified to be W&B's `version`; or
    find it.

    Its version is `vN-<first 8 of the content digest>`. What has the same content is not built again, and of several
    builds at once one builds and the others find what it built. IntegrityError for a Bento in the store that is no
    longer what its label says.
    """
    with store.scratch() as scratch:
        source = scratch / "source"
        stage(root, bentofile(root, name), source, service)
        requirements.check(source)
        digest = content.of_source(source, model.labels[FILES])
        ref = BentoRef(name=name, version=f"{version.version}-{digest[:8]}", digest=digest, model=version)
        if _found(ref, model) and _content(ref, model) == digest:
            return ref
        with store.only("bento", name):
            if _found(ref, model):  # by now: what another build makes meanwhile is seen before it is complete
                _verify_found(ref, model)
                return ref
            labels = {**model.labels, **lineage.of_build(root), CONTENT: digest}
            order = {"name": name, "version": ref.version, "labels": labels, "args": {"model": model.tag}}
            _run(order, source)
            _verify_built(ref, model)
    return ref


def _found(ref: BentoRef, model: store.Stored) -> bool:
    stored = store.bento(ref.tag)
    return (
        stored is not None and stored.labels.get(CONTENT) == ref.digest and store.pinned_models(stored) == [model.tag]
    )


def _content(ref: BentoRef, model: store.Stored) -> str:
    """The content digest of the Bento as it lies in the store."""
    return content.of_bento(store.existing_bento(ref.tag).path, model.labels[FILES])


def _verify_found(ref: BentoRef, model: store.Stored) -> None:
    if (seen := _content(ref, model)) != ref.digest:
        raise IntegrityError(
            f"the Bento {ref.tag} was changed in the store: it has the content digest {seen[:12]}",
            wanted=f"{ref.digest[:12]}, as its label says and the sources have",
            next_step=f"bentoml delete {ref.tag}, then `ekiben build` makes it anew",
        )


def _verify_built(ref: BentoRef, model: store.Stored) -> None:
    built = store.bento(ref.tag)
    if built is None or store.pinned_models(built) != [model.tag]:
        raise IntegrityError(
            f"the Bento {ref.tag} pins {store.pinned_models(built) if built else 'nothing'}",
            wanted=f"[{model.tag!r}], the model that it was built with",
            next_step="declare it on the service's class: model = BentoModel(MODEL.tag)",
        )
    if (seen := _content(ref, model)) != ref.digest:
        shutil.rmtree(built.path)
        raise IntegrityError(
            f"what BentoML built has the content digest {seen[:12]}",
            wanted=f"{ref.digest[:12]}, as the sources have",
            next_step="please report it with your bentofile.yaml; nothing was kept",
        )


def _run(order: Mapping[str, Any], source: Path) -> None:
    """Build in a process of its own: BentoML imports the service, and what is imported stays."""
    env = {key: value for key, value in os.environ.items() if key not in SECRETS}
    env |= {"BENTOML_DO_NOT_TRACK": "true"}
    command = [sys.executable, "-m", "ekiben.packaging.building"]
    done = subprocess.run(command, input=json.dumps(order), cwd=source, env=env, capture_output=True, text=True)
    if done.returncode:
        raise EkibenError(
            f"the Bento {order['name']}:{order['version']} could not be built:\n{done.stderr.strip()[-2000:]}",
            next_step=f"`bentoml build --arg model={order['args']['model']}` in the project shows the same",
        )
