"""What a running tracker holds: its data folder, and what it has counted since it started."""

import fcntl
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from ekiben.errors import ConflictError
from ekiben.tracker.blobs import Blobs
from ekiben.tracker.multipart import Uploads
from ekiben.tracker.store import Store

MAX_NAMES = 300  # the client has about 150 operations


@dataclass
class State:
    store: Store
    blobs: Blobs
    uploads: Uploads
    protected_aliases: frozenset[str] = frozenset()
    missing: list[str] = field(default_factory=list)  # files of committed versions that a start did not find
    operations: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    received_bytes: int = 0
    sent_bytes: int = 0
    _counting: Lock = field(default_factory=Lock)

    def count(self, counter: Counter[str], name: str) -> None:
        """Counts by a name that a client chose: cut, and bounded in number."""
        with self._counting:
            if name in counter or len(counter) < MAX_NAMES:
                counter[name[:128]] += 1


def open_store(data: Path) -> Store:
    return Store(data / "tracker.db")


def open_blobs(data: Path) -> Blobs:
    return Blobs(data / "blobs")


def lock(data: Path) -> int:
    """Claims the data folder for this process until it ends, however it ends. Raises ConflictError."""
    data.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise ConflictError(
            f"another tracker (process {owner or '?'}) serves {data}",
            wanted="one tracker to a data folder",
            next_step="use that one, end it first, or give another folder with --data",
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
