"""The switch: a TCP proxy with the semantics of a Kubernetes Service.

    python -m ekiben.platforms.switch STATE --port N

A backend is chosen when a connection opens, by the selector that STATE names at that moment; a connection that is open
stays where it is until one end closes it. Nothing is read of what passes through. STATE is the service's state file
(rollout/state.py); it is replaced whole, so the switch reads the old one or the new one, and while it is missing or
broken the last good one counts. What the switch acts on is confirmed in `<STATE>.applied`: the epoch, as text.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

HIGH_WATER = 256 * 1024  # bytes kept for a slow reader before its peer is no longer read
BACKLOG = 4096
CONNECT_SECONDS = 5.0

Address = tuple[str, int]


class Selector:
    """What the state file says, read again whenever the file was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._backend: Address | None = None
        self._trouble = ""

    def backend(self) -> Address | None:
        """Where a connection that opens now goes; None while nothing is live."""
        try:
            status = os.stat(self._path)  # noqa: PTH116  # on the path of every connection
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._load()
                self._seen, self._trouble = seen, ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            trouble = f"{self._path} cannot be used ({type(error).__name__}); the last good one counts"
            if trouble != self._trouble:  # once, not for every connection
                _say(trouble)
            self._trouble = trouble
        return self._backend

    def _load(self) -> None:
        state = json.loads(self._path.read_bytes())
        backend = None
        if state["selector"] is not None:
            host, _, port = state["slots"][state["selector"]]["address"].rpartition(":")
            backend = (host, int(port))
        if backend != self._backend:
            _say(f"epoch {state['epoch']}: {state['selector']} at {backend}")
        self._backend = backend
        # Whoever switched waits for this file, and does not take it amiss if the disk is full.
        with contextlib.suppress(OSError):
            applied = self._path.with_name(f"{self._path.name}.applied")
            draft = applied.with_suffix(".tmp")
            draft.write_text(str(state["epoch"]))
            draft.replace(applied)


class Side(asyncio.Protocol):
    """One of the two ends of a connection through the switch: what it receives, its peer sends."""

    transport: asyncio.Transport
    peer: "Side | None" = None
    ended = False  # the other end will send no more

    def __init__(self) -> None:
        self._early: list[bytes] = []  # received before there was a peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def join(self, peer: "Side") -> None:
        self.peer, peer.peer = peer, self
        for side, other in ((self, peer), (peer, self)):
            other.transport.writelines(side._early)
            side._early.clear()
        for side in (self, peer):
            if side.ended:
                side._pass_end_on()
            side.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.peer:
            self.peer.transport.write(data)
        else:
            self._early.append(data)
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        if self.peer:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer:
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self._pass_end_on()
        return True  # the other direction stays open

    def _pass_end_on(self) -> None:
        if self.peer is None:
            return
        if self.peer.ended:
            for transport in (self.peer.transport, self.transport):
                transport.close()  # when all is sent
        else:
            with contextlib.suppress(OSError, RuntimeError):  # the peer is closing at this moment
                self.peer.transport.write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        peer, self.peer = self.peer, None
        if peer is None:
            return
        peer.peer = None
        if error or not self.ended:
            reset(peer.transport)
        else:
            peer.transport.close()


class Client(Side):
    """The end that connected to us; its peer is the backend, once that answers."""

    def __init__(self, choose: Callable[[], Address | None]) -> None:
        super().__init__()
        self._choose = choose
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        backend = self._choose()
        if backend is None:
            reset(self.transport)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(backend))

    def connection_lost(self, error: Exception | None) -> None:
        if self._connecting:
            self._connecting.cancel()
        super().connection_lost(error)

    async def _connect(self, backend: Address) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, server = await asyncio.get_running_loop().create_connection(Side, *backend)
        except OSError:  # refused, timed out, or no file descriptor left
            reset(self.transport)
            return
        finally:
            self._connecting = None
        if server.transport.is_closing():  # it ended with an error before we came to it
            reset(self.transport)
        else:
            self.join(server)


def reset(transport: asyncio.Transport) -> None:
    """Close so that the other side sees an error, as it would without us: a cut answer must not look complete."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def serve(state: Path, port: int) -> None:
    selector = Selector(state)
    selector.backend()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(selector.backend), "127.0.0.1", port, backlog=BACKLOG)
    _say(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the daemon's log


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ekiben.platforms.switch", description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit than it admits
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    run(serve(arguments.state, arguments.port))


if __name__ == "__main__":
    main()
