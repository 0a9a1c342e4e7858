"""API keys: made here, shown once, kept as hashes."""

import hashlib
import re
import secrets
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ekiben.errors import NotFoundError, UsageError
from ekiben.tracker.graph.base import User
from ekiben.tracker.state import open_store
from ekiben.tracker.store import Store, now

DEFAULT_ENTITY = "local"
_LONG_ENOUGH = re.compile(r"[A-Za-z0-9_-]{40,128}")


class Key(NamedTuple):
    """What may be shown of a key. `revoked_at` is empty while it works; `admin` keys may move protected aliases."""

    name: str
    entity: str
    admin: bool
    created_at: str
    revoked_at: str


def create_key(data: Path, name: str, entity: str = DEFAULT_ENTITY, admin: bool = False, key: str = "") -> str:
    """Makes a key of 40 hexadecimal digits and returns it; it cannot be read again.

    `entity` is where its runs go unless they say otherwise. From the first key on, the tracker needs one. `key` is one
    that was made elsewhere, such as in a Kubernetes Secret; to create it again under its name changes nothing.
    """
    if key and not _LONG_ENOUGH.fullmatch(key):
        raise UsageError("not a key for the wandb client", wanted="40 to 128 letters, digits, '-' or '_'")
    given, key = bool(key), key or secrets.token_hex(20)
    with closing(open_store(data)) as store, store.write() as db:
        row = db.execute("SELECT hash FROM keys WHERE name = ? AND revoked_at IS NULL", (name,)).fetchone()
        if given and row is not None and row["hash"] == _hash(key):
            return key
        if db.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchone():
            raise UsageError(f"a key named {name!r} exists", next_step="choose another name")
        db.execute(
            "INSERT INTO keys (name, entity, hash, created_at, admin) VALUES (?, ?, ?, ?, ?)",
            (name, entity, _hash(key), now(), admin),
        )
    return key


def list_keys(data: Path) -> list[Key]:
    with closing(open_store(data)) as store, store.read() as db:
        rows = db.execute("SELECT name, entity, admin, created_at, COALESCE(revoked_at, '') FROM keys ORDER BY id")
        return [Key(name, entity, bool(admin), created, revoked) for name, entity, admin, created, revoked in rows]


def revoke_key(data: Path, name: str) -> None:
    """It stops working at once, in a running server too."""
    with closing(open_store(data)) as store, store.write() as db:
        done = db.execute("UPDATE keys SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (now(), name))
        if done.rowcount == 0:
            raise NotFoundError(f"no working key named {name!r}", next_step="list the keys to see their names")


def any_made(store: Store) -> bool:
    """Whether keys are in use. Once one was made, one is needed, even when all are revoked."""
    with store.read() as db:
        return db.execute("SELECT 1 FROM keys").fetchone() is not None


def check(store: Store, key: str) -> User | None:
    """Whose key it is; None if it is nobody's. Before the first key is made, whoever asks is `local`."""
    with store.read() as db:
        row = db.execute("SELECT * FROM keys WHERE hash = ?", (_hash(key),)).fetchone()
        if row is not None:
            return None if row["revoked_at"] else User(row["name"], row["entity"], bool(row["admin"]))
        if db.execute("SELECT 1 FROM keys").fetchone() is None:
            return User(DEFAULT_ENTITY, DEFAULT_ENTITY, admin=True, keyless=True)
    return None


def _hash(key: str) -> str:
    # Keys are 160 random bits: there is nothing to guess, so a slow hash would only slow requests down.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
