"""W&B's artifact manifest: which files a version holds, and the digest that follows from them. Pure."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ekiben.tracker.graphql import GraphQLError
from ekiben.tracker.paths import check_path

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One file. `md5` is hexadecimal, and None for a reference to somewhere else; `size` is in bytes."""

    path: str
    digest: str
    md5: str | None
    size: int


def hex_digest(text: str) -> str:
    """The hexadecimal MD5 of what the protocol writes in base64. Raises GraphQLError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 16:
        raise GraphQLError(f"{text[:80]!r} is not an MD5 in base64")
    return raw.hex()


def parse(raw: bytes) -> Manifest:
    """The manifest, its contents in their place. Raises GraphQLError for anything else."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("contents"), dict):
        raise GraphQLError("the artifact's manifest is not a JSON object with contents")
    entries(value)
    return value


def text(manifest: Manifest) -> bytes:
    return json.dumps(manifest, sort_keys=True).encode()


def entries(manifest: Manifest) -> list[Entry]:
    """Raises GraphQLError for names that lead out of the artifact and entries without digest or size."""
    return [_entry(path, item) for path, item in manifest["contents"].items()]


def _entry(path: str, item: Any) -> Entry:
    check_path(path)
    if not isinstance(item, dict):
        raise GraphQLError(f"the manifest's entry {path[:200]!r} is not an object")
    digest, size, ref = item.get("digest"), item.get("size", 0), item.get("ref")
    if not isinstance(digest, str) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise GraphQLError(f"the manifest's entry {path[:200]!r} has no digest or an impossible size")
    return Entry(path, digest, None if ref is not None else hex_digest(digest), size)


def digest(manifest: Manifest) -> str:
    """The artifact's digest: 32 hexadecimal digits."""
    lines = "".join(f"{path}:{item['digest']}\n" for path, item in sorted(manifest["contents"].items()))
    return hashlib.md5(f"wandb-artifact-manifest-v1\n{lines}".encode(), usedforsecurity=False).hexdigest()
