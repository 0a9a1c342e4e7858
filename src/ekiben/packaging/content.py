"""The content digest: a SHA-256 that says what a Bento does.

It is the digest of these lines, each ending where the next begins with a newline:

    ekiben content 2                the version of this definition
    python 3.11                     the Python that the Bento asks for
    bentoml 1.4.39                  the BentoML that built it
    config <sha256>                 of the bentofile, as canonical JSON, without what only names or describes
    source <path> <sha256>          each file of the Bento's `src`, the locked requirements among them, sorted by path
    model <sha256>                  of its model's files: `of_model`

Names, versions, labels, times and places are not in it, so what has the same content has the same digest wherever and
whenever it is built. It can be computed before a build from the sources, and after it from the Bento.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ekiben.packaging import store

BENTOFILE = "bentofile.yaml"
_DESCRIBES = {"name", "description", "labels", "owner", "stage", "include", "exclude", "models"}
_BYTECODE = "__pycache__"  # a Bento that was served from the store has some


def of_source(source: Path, model: str) -> str:
    """The digest that a Bento built from the staged folder `source` and the model of digest `model` will have."""
    from importlib.metadata import version

    config = store.read_yaml(source / BENTOFILE)
    asked = (config.get("docker") or {}).get("python_version")
    python = str(asked or f"{sys.version_info.major}.{sys.version_info.minor}")
    return _digest(python, version("bentoml"), config, source, model)


def of_bento(bento: Path, model: str) -> str:
    """The digest of the Bento in the folder `bento` with the model of digest `model`."""
    document = store.read_yaml(bento / "bento.yaml")
    python = str(document["image"]["python_version"])
    # What is served is what bento.yaml names, whatever the bentofile beside it says.
    config = {**store.read_yaml(bento / "src" / BENTOFILE), "service": document["service"]}
    return _digest(python, str(document["bentoml_version"]), config, bento / "src", model)


def of_model(folder: Path) -> str:
    """The digest of a model's files: of a line `model <path> <sha256>` for each but BentoML's own description."""
    return hashlib.sha256("\n".join(_files("model", folder, skip="model.yaml")).encode()).hexdigest()


def _digest(python: str, bentoml: str, config: Mapping[str, Any], source: Path, model: str) -> str:
    does = {key: value for key, value in config.items() if key not in _DESCRIBES}
    does["args"] = {key: value for key, value in (config.get("args") or {}).items() if key != "model"}
    canonical = json.dumps(does, sort_keys=True, default=str).encode()
    lines = [
        "ekiben content 2",
        f"python {python}",
        f"bentoml {bentoml}",
        f"config {hashlib.sha256(canonical).hexdigest()}",
        *_files("source", source, skip=BENTOFILE),
        f"model {model}",
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files(kind: str, folder: Path, skip: str) -> list[str]:
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != skip and _BYTECODE not in path.parts:
            with path.open("rb") as file:
                lines.append(f"{kind} {name} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return lines
