"""Labels that say where a model or Bento comes from. A Bento carries its model's labels and its own."""

import subprocess
from pathlib import Path

VERSION, DIGEST, RUN = "wandb.version", "wandb.digest", "wandb.run"
"""The model's version in W&B, its digest there, and the run that logged it."""
DATA, TRAINED = "data.digest", "train.commit"
"""The digest of the data that the model was trained on, and the git commit that trained it."""
FILES = "ekiben.model-digest"
"""Of a model: the digest of its files as they were verified, so that a later change of the store is seen."""
COMMIT, DIRTY, BY, CONTENT = "git.commit", "git.dirty", "ekiben.version", "ekiben.content-digest"
"""Of a Bento: the git commit that it was built from, whether files differed from it, and what it does."""
PACKAGES = "ekiben.packages"
"""Of a runtime image: the digest of its Python and its locked packages."""


def of_build(root: Path) -> dict[str, str]:
    """The labels that a build of the project in `root` adds to its model's."""
    from importlib.metadata import version

    commit, dirty = git(root)
    return {BY: version("ekiben"), **({COMMIT: commit, DIRTY: str(dirty).lower()} if commit else {})}


def git(root: Path) -> tuple[str, bool]:
    """The commit that is checked out in `root` and whether files differ from it, untracked ones included.

    ("", False) outside a repository.
    """
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "", False
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
    return ("" if commit == "(initial)" else commit), any(not line.startswith("#") for line in lines)
