"""A server of ours as a process: it says where it listens, and ends well with SIGTERM or SIGINT."""

import asyncio
import signal
import socket

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ekiben.errors import UnavailableError

HEAD_SECONDS = 10.0
"""How long the head of a request may take to come."""


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
            http=_Protocol,
            ws="none",
        )
    )
    server.name = name
    # uvicorn ends on these and then raises them once more for whoever came before it: here, for nobody.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])


class _Protocol(HttpToolsProtocol):
    """Hangs up on whoever does not finish the head of a request: uvicorn waits for ever, and each holds a socket."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._hurry()

    def on_headers_complete(self) -> None:
        self._relax()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def _hurry(self) -> None:
        self._relax()
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _relax(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    name = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"ekiben {self.name} listening on http://{shown}:{port}", flush=True)  # noqa: T201
