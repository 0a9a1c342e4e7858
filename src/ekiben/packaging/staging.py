"""What goes into a Bento, copied to a folder of its own before it is hashed and built.

What is hashed is then what is built, whatever an editor does meanwhile, and BentoML need not walk the whole project.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ekiben.errors import UsageError
from ekiben.packaging import store
from ekiben.packaging.content import BENTOFILE
from ekiben.packaging.requirements import LOCK

NEVER = (
    *(".git/", ".ekiben/", ".venv/", "venv/", "__pycache__/", "node_modules/", "/tests/", "/wandb/"),
    *(".env", ".env.*", ".netrc", ".DS_Store"),
)
"""What is in no Bento, whatever the bentofile includes."""

_IGNORE = ".bentoignore"


def stage(root: Path, bentofile: Path, target: Path, service: str) -> None:
    """Copy what `bentofile` includes of the project in `root` to `target`, with its requirements.lock if it has one.

    The bentofile goes in with `service` as its service and everything staged as its `include`.
    """
    config = store.read_yaml(bentofile)
    target.mkdir(parents=True)
    count = 0
    for name in _included(root, config):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target / name)
        count += 1
    if count == 0:
        raise UsageError(f"{bentofile} includes no file of {root}", wanted="include: such as ['service/**']")
    if (lock := bentofile.with_name(LOCK)).is_file():
        shutil.copy(lock, target / LOCK)
    for name in _referred(config):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target / name)
    # With the bentofile itself among what is included, BentoML keeps it as it is, and so the digest can be checked.
    staged = {**config, "service": service, "include": ["**"], "exclude": []}
    if str(config.get("description", "")).startswith("file:"):
        staged["description"] = (root / config["description"][5:].strip()).read_text(encoding="utf-8")
    (target / BENTOFILE).write_text(yaml.safe_dump(staged, sort_keys=True), encoding="utf-8")


def _included(root: Path, config: dict[str, Any]) -> Iterator[str]:
    from pathspec import GitIgnoreSpec

    def spec(lines: Any) -> GitIgnoreSpec:
        return GitIgnoreSpec.from_lines(lines)

    include, exclude, never = spec(config.get("include") or ["*"]), spec(config.get("exclude") or []), spec(NEVER)
    ignored: dict[Path, GitIgnoreSpec] = {}
    for folder, inner, files in os.walk(root):
        here = Path(folder)
        inner[:] = sorted(name for name in inner if not never.match_file(f"{(here / name).relative_to(root)}/"))
        if _IGNORE in files:
            ignored[here] = spec((here / _IGNORE).read_text(encoding="utf-8").splitlines())
        for file in sorted(files):
            path = here / file
            name = path.relative_to(root).as_posix()
            if not include.match_file(name) or exclude.match_file(name) or never.match_file(name):
                continue
            above = ((folder, path.relative_to(folder)) for folder in ignored if path.is_relative_to(folder))
            if not any(ignored[folder].match_file(relative) for folder, relative in above):
                yield name


def _referred(config: dict[str, Any]) -> Iterator[str]:
    """Files that the bentofile names and BentoML reads while it builds."""
    python, docker, conda = (config.get(key) or {} for key in ("python", "docker", "conda"))
    yield from python.get("wheels") or []
    single = python.get("requirements_txt"), docker.get("dockerfile_template"), docker.get("setup_script")
    yield from filter(None, (*single, conda.get("environment_yml")))
