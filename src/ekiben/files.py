"""Files that several processes share: replaced whole, or locked."""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from ekiben.errors import ConflictError


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` so that a reader, or a crash of the machine, meets the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with fresh.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(path: Path, timeout: float = 60.0) -> Iterator[None]:
    """Hold the exclusive lock on `path` (created when missing). The kernel frees it when the holder dies.

    ConflictError when another process holds it for longer than `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"{path} has been locked by another process for {timeout:.0f} s",
                        wanted="the lock, to change what it guards",
                        next_step="wait for the other ekiben command to end, or stop it; a dead one frees the lock",
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
