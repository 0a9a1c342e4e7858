"""The tracker as a process: `serve` starts it, says where it listens, and ends with SIGTERM or SIGINT."""

import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from ekiben.errors import UnavailableError, UsageError
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
    listener = _listen(host, port)
    state = State(store, blobs, Uploads(blobs), protected_aliases)
    # Beside serving, since it reads as many entries of the file system as there are blobs.
    threading.Thread(target=_look_for_missing, args=(state,), daemon=True).start()
    server = _Server(
        uvicorn.Config(
            create_app(state),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ws="none",
        )
    )
    # uvicorn ends on these and then raises them once more for whoever came before it: here, for nobody.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])


def _look_for_missing(state: State) -> None:
    state.missing = missing_blobs(state.store, state.blobs)
    for name in state.missing[:10]:
        print(f"ekiben tracker: the bytes of {name} are lost", file=sys.stderr)  # noqa: T201


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"ekiben tracker listening on http://{shown}:{port}", flush=True)  # noqa: T201


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for the other side's.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"cannot listen on {host}:{port}: {error.strerror}", next_step="give another --port; 0 takes a free one"
        ) from None
    return listener
