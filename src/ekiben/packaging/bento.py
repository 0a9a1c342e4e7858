"""A Bento that pins one exact model, under a version that says what is in it."""

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ekiben.errors import EkibenError
from ekiben.types import BentoRef, ModelVersion

CONTENT = "ekiben.content-digest"
_NEVER = {".git", ".venv", "venv", ".ekiben", "__pycache__", "node_modules"}


def build(
    root: Path,
    *,
    name: str,
    service: str,
    model_tag: str,
    model: ModelVersion,
    labels: Mapping[str, str],
    scratch: Path,
) -> BentoRef:
    """Build the Bento `name` of `service` with the model `model_tag`, by the root's bentofile.yaml; or find it.

    Its version is `vN-<first 8 of the content digest>`. What has the same content is not built again.
    """
    import bentoml
    from bentoml.bentos import BentoBuildConfig
    from bentoml.exceptions import BentoMLException, NotFound

    source = scratch / "source"
    config = BentoBuildConfig.from_file(str(root / "bentofile.yaml")).with_defaults()
    _stage(root, source, config.include, config.exclude)
    shutil.copy(root / "bentofile.yaml", source)
    digest = content_digest(source, Path(bentoml.models.get(model_tag).path))
    ref = BentoRef(name=name, version=f"{model.version}-{digest[:8]}", digest=digest, model=model)
    try:
        found = bentoml.bentos.get(ref.tag)
        if found.info.labels.get(CONTENT) == digest:
            return ref
    except NotFound:
        pass
    try:
        bentoml.bentos.build_bentofile(
            str(source / "bentofile.yaml"),
            service=service,
            name=name,
            version=ref.version,
            labels={**labels, CONTENT: digest},
            build_ctx=str(source),
            args={"model": model_tag},
            reload=True,  # without, a second build in this process would keep the first one's model
        )
    except BentoMLException as error:
        raise EkibenError(f"the Bento {ref.tag} could not be built: {error}", next_step="bentoml build") from error
    return ref


def _stage(root: Path, target: Path, include: list[str], exclude: list[str]) -> None:
    """Copy what goes into the Bento to a folder of its own: what is hashed is then what is built, whatever an editor
    does meanwhile, and BentoML need not walk the whole project."""
    from pathspec import PathSpec

    included = PathSpec.from_lines("gitwildmatch", include)
    excluded = PathSpec.from_lines("gitwildmatch", exclude)
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in _NEVER]
        for file in files:
            path = (Path(folder) / file).relative_to(root)
            if included.match_file(path) and not excluded.match_file(path):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / path, target / path)


def content_digest(source: Path, model: Path) -> str:
    """SHA-256 over what decides how a Bento behaves: its files, its bentofile, its model's files and Python's version.

    Names, times and labels are not in it, so equal content has an equal digest wherever and whenever it is built.
    """
    lines = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for kind, folder in (("source", source), ("model", model)):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if kind == "model" and path.name == "model.yaml":  # BentoML's own, with the time of import
                continue
            with path.open("rb") as file:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
            lines.append(f"{kind} {path.relative_to(folder).as_posix()} {checksum}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
