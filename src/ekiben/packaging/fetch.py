"""A published Bento into a folder that `bentoml serve` takes. Pods do this before they start: no project, no store."""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ekiben import tracking
from ekiben.errors import IntegrityError, UsageError
from ekiben.packaging import bundle

_EXACT = re.compile(
    r"(?P<entity>[^/:@]+)/(?P<project>[^/:@]+)/(?P<name>[^/:@]+):(?P<version>[^/:@]+)@(?P<digest>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Bundle:
    """Where a Bento was published, and its content digest: whatever else comes from there is refused."""

    entity: str
    project: str
    name: str
    version: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _EXACT.fullmatch(text)
        if match is None:
            raise UsageError(
                f"not an exact Bento: {text!r}", wanted="ENTITY/PROJECT/NAME:VERSION@ and the content digest, 64 digits"
            )
        return cls(**match.groupdict())


def fetch(wanted: Bundle, into: Path) -> str:
    """Bring it into the folder `into`, which appears whole or not at all; what is there and right stays.

    Returns the W&B artifact's exact path. The server and the key are those of WANDB_BASE_URL and WANDB_API_KEY.
    IntegrityError when the content digest, computed from what came, is another.
    """
    from ekiben.registry import Registry

    server = os.environ.get("WANDB_BASE_URL") or tracking.CLOUD
    tracking.reach(server)
    into.parent.mkdir(parents=True, exist_ok=True)
    # The client keeps a copy of all that it brings; in a pod it would stay as long as that lives.
    with tempfile.TemporaryDirectory() as scratch:
        folders = {f"WANDB_{name}_DIR": scratch for name in ("CACHE", "DATA", "CONFIG", "ARTIFACT")}
        os.environ.update({**folders, "WANDB_DIR": scratch, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"})
        registry = Registry(wanted.project, wanted.entity)
        path, _ = registry.resolve_bento(bundle.collection(wanted.name), wanted.version)
        if not _right(into, wanted, path):
            fresh = into.with_name(f"{into.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            registry.download_bento(path, fresh)
            bundle.check(fresh, wanted.digest, path)
            fresh.chmod(0o755)
            shutil.rmtree(into, ignore_errors=True)
            fresh.rename(into)
    return path


def _right(folder: Path, wanted: Bundle, path: str) -> bool:
    try:
        bundle.check(folder, wanted.digest, path)
    except (IntegrityError, OSError):
        return False
    return True
