"""A server of ours as a process: it says where it listens, and ends well with SIGTERM or SIGINT."""

import signal
import socket

import uvicorn
from starlette.applications import Starlette

from ekiben.errors import UnavailableError


def listen(host: str, port: int) -> socket.socket:
    """`port` 0 takes a free one. UnavailableError where it is taken."""
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


def run(app: Starlette, name: str, listener: socket.socket, grace_seconds: int) -> None:
    """Serve until a signal ends it; what is being answered then has `grace_seconds` to end.

    Prints one line on standard output once it answers: `ekiben NAME listening on http://HOST:PORT`.
    """
    server = _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=grace_seconds,
            ws="none",
        )
    )
    server.name = name
    # uvicorn ends on these and then raises them once more for whoever came before it: here, for nobody.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    name = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"ekiben {self.name} listening on http://{shown}:{port}", flush=True)  # noqa: T201
