"""What a training depends on, as one key: trained once under it, nothing is gained by training again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ekiben.config import Project
from ekiben.pipeline import fingerprint, sources

LONGEST_NAME = 60


def key(name: str, params: Mapping[str, str], run: str) -> str:
    """`<recipe>-<digest>` of the recipe's code, its parameters and its data, fit for Argo's memoize: letters, digits
    and hyphens. Where the data's bytes are not known the key is this run's own, so that nothing is passed over."""
    project = Project.here()
    made = sources.recipe(project, name)
    values = made.with_params(params)
    data = fingerprint.of(made.data(values)) or f"unknown to {run}"
    code = {str(file.relative_to(project.root)): _sha256(file.read_bytes()) for file in _code(project, name)}
    parts = json.dumps([name, code, values, data], sort_keys=True, default=str)
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:LONGEST_NAME].strip("-")
    return f"{readable or 'recipe'}-{_sha256(parts.encode())[:40]}"


def _code(project: Project, name: str) -> list[Path]:
    return sorted((project.root / "bentos" / name).rglob("*.py"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
