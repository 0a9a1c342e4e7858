"""The SQLite file: its connections and its two kinds of transaction. What the tables mean is in schema.sql."""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from queue import Empty, LifoQueue

from ekiben.errors import IntegrityError
from ekiben.tracker.sqlfunctions import register

SCHEMA_VERSION = 2
# What turns an older version into the next one.
_MIGRATIONS = {1: "ALTER TABLE keys ADD COLUMN admin INTEGER NOT NULL DEFAULT 0"}
BUSY_SECONDS = 30.0


def now() -> str:
    """The time as the client reads it: 2026-01-31T12:00:00.123456Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Store:
    """Connections to one tracker's database. Any number of threads and processes may use the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._writing = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.write() as db:
            self._create(db)
            self.secret = bytes.fromhex(db.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0])

    def _create(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        while version in _MIGRATIONS:
            db.execute(_MIGRATIONS[version])
            version += 1
            db.execute(f"PRAGMA user_version = {version}")
        if version == SCHEMA_VERSION:
            return
        if version != 0:
            raise IntegrityError(
                f"{self.path} has schema {version}",
                wanted=f"schema {SCHEMA_VERSION}",
                next_step="use the ekiben that wrote it, or export from there into a new data folder",
            )
        self.path.chmod(0o600)
        # executescript() would commit first; statement by statement, the schema is there wholly or not at all.
        for statement in _statements("schema.sql"):
            db.execute(statement)
        db.execute("INSERT INTO meta VALUES ('secret', ?)", (secrets.token_hex(32),))
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A snapshot: everything read inside is of one moment."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """All of it or, when an exception leaves, nothing. It is on disk when the block ends."""
        # SQLite would make writers poll each other; within the process, a lock hands over at once.
        with self._writing, self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            db = self._idle.get_nowait()
        except Empty:
            db = self._connect()
        db.execute(begin)
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        finally:
            self._idle.put(db)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # an acknowledged commit survives a power cut as well
        db.execute("PRAGMA foreign_keys = ON")
        register(db)
        for statement in _statements("views.sql"):
            db.execute(statement)
        return db

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get_nowait().close()


@cache
def _statements(name: str) -> tuple[str, ...]:
    found, statement = [], ""
    for line in files(__package__).joinpath(name).read_text("utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return tuple(found)
