"""`requirements.lock`: the exact packages of a Bento's image with their hashes, beside the bentofile they are for.

Without one a Bento builds all the same, and its image is locked when it is made. With one in git, every image of every
build has the same packages, and the content digest names them.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ekiben.errors import EkibenError, UsageError
from ekiben.files import write_atomically
from ekiben.packaging import store
from ekiben.packaging.store import Stored

LOCK = "requirements.lock"


@dataclass(frozen=True)
class Packages:
    """What an image has to hold beside the Bento: a Python, and the packages of a lock."""

    python: str
    lock: str

    @classmethod
    def of_bento(cls, bento: Stored) -> Self | None:
        """None for a Bento without a lock."""
        file = bento.path / "src" / LOCK
        python = str(bento.document["image"]["python_version"])
        return cls(python, file.read_text(encoding="utf-8")) if file.is_file() else None

    @classmethod
    def of_project(cls, bentofile: Path) -> Self:
        """By the lock beside the bentofile. UsageError where there is none."""
        file = bentofile.with_name(LOCK)
        if not file.is_file():
            raise UsageError(f"no {LOCK} beside {bentofile}", next_step="write it: ekiben lock")
        return cls(_asked_python(store.read_yaml(bentofile)), file.read_text(encoding="utf-8"))

    @classmethod
    def locked(cls, wanted: Iterable[str], python: str) -> Self:
        return cls(python, compile(wanted, python))

    @property
    def digest(self) -> str:
        """The same for locks that name the same packages."""
        lines = (line.partition("#")[0].strip() for line in self.lock.splitlines())
        return hashlib.sha256("\n".join([f"python {self.python}", *filter(None, lines)]).encode()).hexdigest()

    @property
    def versions(self) -> Mapping[str, str]:
        return versions(self.lock)


def lock(bentofile: Path, root: Path) -> Path:
    """Write the lock of `bentofile` beside it. Needs the package index."""
    config = store.read_yaml(bentofile)
    target = bentofile.with_name(LOCK)
    write_atomically(target, compile([*_asked(config, root), f"bentoml=={_bentoml()}"], _asked_python(config)))
    return target


def compile(wanted: Iterable[str], python: str) -> str:
    """A requirements file with all that `wanted` needs, for any platform, each with the hashes of its files."""
    from uv import find_uv_bin

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requirements.in"
        source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        command = [find_uv_bin(), "pip", "compile", "--quiet", "--generate-hashes", "--universal", "--no-annotate"]
        command += ["--no-header", "--python-version", python, *_find_links(), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise EkibenError(
            f"the requirements cannot be locked: {done.stderr.strip()[-1500:]}",
            wanted="a package index that has them all",
            next_step="check python.packages of the bentofile, and the index that uv is configured with",
        )
    return done.stdout


def check(source: Path) -> None:
    """UsageError if the staged lock in `source` does not hold what the bentofile beside it asks for."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    if not (source / LOCK).is_file():
        return
    locked = versions((source / LOCK).read_text(encoding="utf-8"))
    for text in [*_asked(store.read_yaml(source / "bentofile.yaml"), source), f"bentoml=={_bentoml()}"]:
        asked = Requirement(text)
        seen = locked.get(canonicalize_name(asked.name))
        if (asked.marker is None or asked.marker.evaluate()) and (seen is None or seen not in asked.specifier):
            raise UsageError(
                f"{LOCK} has {asked.name} {seen}" if seen else f"{LOCK} lacks {asked.name}",
                wanted=text,
                next_step="`ekiben lock` writes it anew",
            )


def versions(lock: str) -> Mapping[str, str]:
    """Canonical name -> version of each package in a lock."""
    from packaging.utils import canonicalize_name

    found = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def _asked_python(config: Mapping[str, Any]) -> str:
    asked = (config.get("docker") or {}).get("python_version")
    return str(asked or f"{sys.version_info.major}.{sys.version_info.minor}")


def _asked(config: Mapping[str, object], root: Path) -> list[str]:
    python = config.get("python") or {}
    assert isinstance(python, Mapping)
    if file := python.get("requirements_txt"):
        lines = (root / str(file)).read_text(encoding="utf-8").splitlines()
        return [text for line in lines if (text := line.partition("#")[0].strip()) and not text.startswith("-")]
    return list(python.get("packages") or [])


def _bentoml() -> str:
    from importlib.metadata import version

    return version("bentoml")


def _find_links() -> list[str]:
    """Folders of wheels that pip is configured with; uv reads a configuration of its own and not pip's."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.findall(r"^(?:global|install|:env:)\.find-links='(.*)'$", done.stdout, re.MULTILINE)
    folders = {part for value in found for part in value.replace("\\n", " ").split()}
    return [flag for folder in sorted(folders) if Path(folder).is_dir() for flag in ("--find-links", folder)]
