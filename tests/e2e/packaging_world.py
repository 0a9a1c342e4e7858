"""A tracker with two versions of a model, and clones of this project that package them, each with stores of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekiben.types import ModelVersion
from tests.contract.conftest import KEY, client_environment, start_tracker, stop

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
from ekiben.pipeline import stages
for strength in ("0.1", "0.2"):
    print(stages.train("digits", {"C": strength}).model_dump_json())
"""
STRANGERS = (".env", "service/.env.local", "tests/test_x.py", ".ekiben/state.json", "service/__pycache__/x.pyc", "note")
"""Files of a clone that no Bento may hold; `note` is a name that the bentofile does not include."""


@dataclass(frozen=True)
class Clone:
    """A copy of the project under git, a BENTOML_HOME and folders of the wandb client that it shares with nobody."""

    root: Path
    home: Path
    env: dict[str, str]
    before: tuple[str, ...] = ()  # the command that runs its commands

    def start(self, *args: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.before, sys.executable, "-m", "ekiben.cli", *args],
            cwd=self.root, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def ekiben(self, *args: str, code: int = 0) -> str:
        """What the command says: its output, or its complaint where it should fail with `code`."""
        process = self.start(*args)
        out, err = process.communicate(timeout=500)
        assert process.returncode == code, f"{args}: {process.returncode}\n{out}\n{err}"
        return out if code == 0 else err

    def json(self, *args: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.ekiben(*args, "--json").splitlines()[-1])
        return told

    def python(self, code: str, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            cwd=self.root,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def git(self, *args: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(self.root), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def bento(self, tag: str) -> Path:
        return self.home / "bentos" / tag.replace(":", "/")

    def model(self, tag: str) -> Path:
        return self.home / "models" / tag.replace(":", "/")


@dataclass(frozen=True)
class World:
    folder: Path
    url: str
    versions: tuple[ModelVersion, ...]

    @property
    def blobs(self) -> Path:
        return self.folder / "tracker" / "blobs"

    def clone(self, name: str) -> Clone:
        root = self.folder / name / "project"
        for part in ("bentos", "service"):
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("bentofile.yaml", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / file, root)
        for stranger in STRANGERS:
            (root / stranger).parent.mkdir(parents=True, exist_ok=True)
            (root / stranger).write_text("secret")
        (root / ".gitignore").write_text(".ekiben/\n.env*\n__pycache__/\nnote\n")
        home = self.folder / name / "bentoml"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("EKIBEN_")}
        client = client_environment(self.folder / name / "client", self.url, KEY)
        env = {**kept, **client, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
        env["HOME"] = os.environ["HOME"]
        made = Clone(root, home, env)
        made.git("init", "-q")
        made.git("add", ".")
        made.git("commit", "-qm", "as it is")
        return made


@contextmanager
def world(folder: Path) -> Iterator[World]:
    process, url = start_tracker(folder / "tracker")
    try:
        empty = World(folder, url, ())
        lines = empty.clone("trainer").python(TRAIN).splitlines()
        versions = tuple(ModelVersion.model_validate_json(line) for line in lines if line.startswith("{"))
        yield World(folder, url, versions)
    finally:
        stop(process)
