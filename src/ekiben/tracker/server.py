"""The tracker as a process: `serve` starts it, says where it listens, and ends with SIGTERM or SIGINT."""

import sys
import threading
from pathlib import Path

from ekiben import listening
from ekiben.errors import UsageError
from ekiben.tracker import keys
from ekiben.tracker.access import LOOPBACK
from ekiben.tracker.app import create_app
from ekiben.tracker.maintenance import missing_blobs
from ekiben.tracker.multipart import Uploads
from ekiben.tracker.state import State, lock, open_blobs, open_store

GRACE_SECONDS = 3


def serve(data: Path, host: str = "127.0.0.1", port: int = 0, protected_aliases: frozenset[str] = frozenset()) -> None:
    """Serves the tracker kept in `data` until a signal ends it. `port` 0 takes a free one.

    `protected_aliases` are moved by admin keys only; without keys, by everybody.
    Prints one line on standard output once it answers: `ekiben tracker listening on http://HOST:PORT`.
    Raises UsageError for an address beyond this machine without keys, ConflictError where `data` is being served,
    UnavailableError where the port is taken.
    """
    if "latest" in protected_aliases:
        raise UsageError("latest cannot be protected", next_step="protect another alias; each new version takes latest")
    lock(data)
    store = open_store(data)
    if host not in LOOPBACK and not keys.any_made(store):
        raise UsageError(
            f"{host} can be reached from other machines, and no key was made yet",
            wanted="keys for any address but 127.0.0.1, ::1 and localhost",
            next_step="make one with `ekiben tracker key create NAME`, or serve on 127.0.0.1",
        )
    blobs = open_blobs(data)
    unfinished = blobs.discard_unfinished()
    if unfinished:
        print(f"ekiben tracker: removed {unfinished} unfinished uploads", file=sys.stderr)  # noqa: T201
    listener = listening.listen(host, port)
    state = State(store, blobs, Uploads(blobs), protected_aliases)
    # Beside serving, since it reads as many entries of the file system as there are blobs.
    threading.Thread(target=_look_for_missing, args=(state,), daemon=True).start()
    listening.run(create_app(state), "tracker", listener, GRACE_SECONDS)


def _look_for_missing(state: State) -> None:
    state.missing = missing_blobs(state.store, state.blobs)
    for name in state.missing[:10]:
        print(f"ekiben tracker: the bytes of {name} are lost", file=sys.stderr)  # noqa: T201
