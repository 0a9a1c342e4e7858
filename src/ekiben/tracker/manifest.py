"""W&B's artifact manifest: which files a version holds, and the digest that follows from them. Pure."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ekiben.tracker.graphql import GraphQLError
from ekiben.tracker.paths import check_path


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


def read(text: bytes) -> list[Entry]:
    """Its entries. Raises GraphQLError for what is not a manifest, or names files outside the artifact."""
    try:
        contents = json.loads(text)["contents"]
        return [_entry(path, item) for path, item in contents.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GraphQLError(f"the artifact's manifest cannot be read: {type(error).__name__}") from None


def _entry(path: str, item: dict[str, object]) -> Entry:
    check_path(path)
    digest, size, ref = item["digest"], item.get("size", 0), item.get("ref")
    if not isinstance(digest, str) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise GraphQLError(f"the manifest's entry {path[:200]!r} has no digest or an impossible size")
    return Entry(path, digest, None if ref is not None else hex_digest(digest), size)


def digest(entries: Sequence[Entry]) -> str:
    """The artifact's digest: 32 hexadecimal digits."""
    lines = "".join(f"{entry.path}:{entry.digest}\n" for entry in sorted(entries, key=lambda entry: entry.path))
    return hashlib.md5(f"wandb-artifact-manifest-v1\n{lines}".encode(), usedforsecurity=False).hexdigest()
