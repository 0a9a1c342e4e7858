"""BentoML's stores on disk, read without importing BentoML: what is built already must be found at once.

The layout is BentoML's: `$BENTOML_HOME/models/<name>/<version>/model.yaml`, `…/bentos/<name>/<version>/bento.yaml`.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ekiben.errors import NotFoundError
from ekiben.files import locked
from ekiben.recipe import GOLDEN
from ekiben.types import BentoRef

BUILD_SECONDS = 600.0
"""How long a second build or pull of the same name waits for the first one."""


@dataclass(frozen=True)
class Stored:
    """A model or Bento in the store: `tag` is `name:version`, `document` its own YAML."""

    tag: str
    path: Path
    document: Mapping[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.document.get("labels") or {})


def home() -> Path:
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")


def model(tag: str) -> Stored | None:
    """The model of exactly that tag; BentoML itself takes the version "v1" for a prefix of "v10"."""
    return _read(home() / "models", tag, "model.yaml")


def bento(tag: str) -> Stored | None:
    return _read(home() / "bentos", tag, "bento.yaml")


def existing_bento(tag: str) -> Stored:
    """The Bento of that tag; of the newest version where it names none or `latest`. NotFoundError if there is none."""
    name, _, version = tag.partition(":")
    if version in ("", "latest"):
        with contextlib.suppress(OSError):
            version = (home() / "bentos" / name / "latest").read_text().strip()
    if (found := bento(f"{name}:{version}")) is None:
        raise NotFoundError(
            f"the BentoML store has no Bento {tag}",
            wanted="one of `bentoml list`",
            next_step="build it with `ekiben build MODEL`, or bring it from W&B with `ekiben pull --bento`",
        )
    return found


def pinned_models(bento: Stored) -> list[str]:
    """Tags of the models that the Bento pins."""
    entries = [*(bento.document.get("models") or [])]
    for service in bento.document.get("services") or []:
        entries += service.get("models") or []
    return sorted({str(entry["tag"]) for entry in entries})


def only(kind: str, name: str) -> "contextlib.AbstractContextManager[None]":
    """The lock of all who would write the model or Bento `name` into this store, whichever project they work for."""
    return locked(home() / ".ekiben" / f"{kind}-{name}.lock", timeout=BUILD_SECONDS)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder to work in, on the store's own disk, so that what is large is moved into the store and not copied."""
    parent = home() / ".ekiben"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="work-") as folder:
        yield Path(folder)


def read_yaml(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {}
    return document


def _read(root: Path, tag: str, file: str) -> Stored | None:
    name, _, version = tag.partition(":")
    folder = root / name / version
    if not version or not (folder / file).is_file():
        return None
    return Stored(tag, folder, read_yaml(folder / file))


def golden(bento: BentoRef) -> Path:
    """The golden answers that travel with the Bento's model, in the BentoML store."""
    import bentoml

    return Path(bentoml.models.get(bentoml.bentos.get(bento.tag).info.all_models[0].tag).path) / GOLDEN
