"""Housekeeping: what a start puts right, and gc, which removes what nothing refers to."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from ekiben.tracker.blobs import Blobs
from ekiben.tracker.graph.placing import settle_latest
from ekiben.tracker.state import open_blobs, open_store
from ekiben.tracker.store import Store

GRACE = timedelta(hours=24)  # what is younger may belong to an artifact that is being made

_REFERRED = (
    "SELECT md5 FROM artifact_files WHERE md5 IS NOT NULL UNION SELECT md5 FROM run_files"
    " UNION SELECT manifest_md5 FROM artifacts WHERE manifest_md5 IS NOT NULL"
)


class Collected(NamedTuple):
    """What gc removed or, in a dry run, would remove. `bytes` is the size of the blobs."""

    blobs: int
    bytes: int
    drafts: int
    expired: tuple[str, ...]  # versions whose time to live is over, as entity/project/collection:vN


def gc(data: Path, dry_run: bool, grace: timedelta = GRACE) -> Collected:
    """Removes unreferenced blobs and drafts older than `grace`, and versions past their time to live.

    Safe beside a running server. A version that is linked to a registry is kept whatever its time to live.
    """
    store, blobs = open_store(data), open_blobs(data)
    before = datetime.now(UTC) - grace
    try:
        with store.write() as db:
            expired = _expired(db)
            drafts = [
                row["id"]
                for row in db.execute(
                    "SELECT id FROM artifacts WHERE state = 'PENDING' AND created_at < ?", (before.isoformat(),)
                )
            ]
            db.execute("SAVEPOINT before_gc")
            _delete(db, {row["id"] for row in expired} | set(drafts))
            unreferenced = _unreferenced(db, blobs, before.timestamp())
            size = sum(path.stat().st_size for path in unreferenced)
            if dry_run:
                db.execute("ROLLBACK TO before_gc")  # the deletions only served to see what they would leave
        if not dry_run:
            _remove(store, blobs, before.timestamp())
        return Collected(len(unreferenced), size, len(drafts), tuple(row["name"] for row in expired))
    finally:
        store.close()


def _expired(db: sqlite3.Connection) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT a.id, p.entity || '/' || p.name || '/' || c.name || ':v' || m.version AS name"
        " FROM artifacts a JOIN collections c ON c.id = a.collection JOIN projects p ON p.id = c.project"
        " JOIN memberships m ON m.artifact = a.id AND m.collection = c.id"
        " WHERE a.state = 'COMMITTED' AND a.ttl_seconds IS NOT NULL"
        " AND julianday(a.created_at) + a.ttl_seconds / 86400.0 < julianday('now')"
        " AND NOT EXISTS (SELECT 1 FROM memberships l WHERE l.artifact = a.id AND l.collection != a.collection)"
    ).fetchall()


def _delete(db: sqlite3.Connection, artifacts: set[int]) -> None:
    for artifact in artifacts:
        collection = db.execute("SELECT collection FROM artifacts WHERE id = ?", (artifact,)).fetchone()[0]
        db.execute("DELETE FROM artifacts WHERE id = ?", (artifact,))
        settle_latest(db, collection)


def _unreferenced(db: sqlite3.Connection, blobs: Blobs, before: float) -> list[Path]:
    referred = {row[0] for row in db.execute(_REFERRED)}
    return [path for path in blobs.all() if path.name not in referred and path.stat().st_mtime < before]


def _remove(store: Store, blobs: Blobs, before: float) -> None:
    # Only now, when the deletions are on disk: a crash in between leaves blobs too many, never too few. And again under
    # the writers' lock: what a draft was told is here already (Blobs.touch) is young from then on.
    with store.write() as db:
        for path in _unreferenced(db, blobs, before):
            path.unlink(missing_ok=True)


def missing_blobs(store: Store, blobs: Blobs) -> list[str]:
    """Files of committed versions whose bytes are not here, or not of the right size, as collection:vN/file."""
    with store.read() as db:
        rows = db.execute(
            "SELECT f.md5, f.size, c.name || ':v' || m.version || '/' || f.name AS name"
            " FROM artifact_files f JOIN artifacts a ON a.id = f.artifact JOIN collections c ON c.id = a.collection"
            " JOIN memberships m ON m.artifact = a.id AND m.collection = c.id WHERE f.md5 IS NOT NULL"
        )
        sizes: dict[str, int] = {}
        lost = []
        for row in rows:
            if row["md5"] not in sizes:
                path = blobs.path(row["md5"])
                sizes[row["md5"]] = path.stat().st_size if path.is_file() else -1
            if sizes[row["md5"]] != row["size"]:
                lost.append(row["name"])
        return sorted(lost)
