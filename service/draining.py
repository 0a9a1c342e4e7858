"""An orderly end. Whoever balances load must learn that a service leaves before it has left.

BentoML stops at once on SIGTERM: readiness never says no, and as its supervisor keeps the port open, new connections
hang and are then reset. Here SIGTERM first begins a drain of EKIBEN_DRAIN_SECONDS: everything is answered as ever, but
/readyz says 503 and every answer ends its connection. Then the port is shut for new connections, those that are open
may still ask, and BentoML stops: what is in flight finishes. A second SIGTERM cuts the drain short.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

DRAIN_SECONDS = "EKIBEN_DRAIN_SECONDS"
"""Environment variable: how long a service that was told to stop still answers, in s. Set it to longer than the load
balancer takes to look at /readyz and act on it; on Kubernetes 5 to 10."""
DEFAULT_SECONDS = 0.5

_LAST_SECONDS = 0.2  # from the last new connection until its request must be here

# Socket filter (classic BPF, as SO_ATTACH_FILTER takes it) that drops what would open a connection: TCP packets
# with SYN. Closing the port instead would reset connections that clients already hold for open.
_SO_ATTACH_FILTER = 26
_DROP_NEW = (
    (0x30, 0, 0, 13),  # load byte 13 of the TCP header: the flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # yes: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # no: keep
)

# For whom that is not allowed: the least "time to live" that a packet must have left (IP_MINTTL, IPV6_MINHOPCOUNT).
# No client's has the highest: systems send with 64 or 128.
_MOST_HOPS = 255
_LEAST_HOPS = {socket.AF_INET: (socket.IPPROTO_IP, 21), socket.AF_INET6: (socket.IPPROTO_IPV6, 73)}

Sending = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Draining:
    """Takes SIGTERM over from uvicorn as soon as the service has started; `began` says that it came."""

    def __init__(self) -> None:
        self.seconds = float(os.environ.get(DRAIN_SECONDS) or DEFAULT_SECONDS)
        self.began = False
        self._stop: Any = None  # uvicorn's own handler, a method of its server

    def from_startup(self, send: Sending) -> Sending:
        """`send` of the ASGI lifespan, which tells when the start is complete: until then SIGTERM ends it at once."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._stop = signal.getsignal(signal.SIGTERM)
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._begin)
            await send(message)

        return sending

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0 if self.began else self.seconds, self._shut)
        self.began = True

    def _shut(self) -> None:
        for server in self._stop.__self__.servers:
            for listener in server.sockets:
                refuse_new(listener.fileno())
        asyncio.get_running_loop().call_later(_LAST_SECONDS, self._stop, signal.SIGTERM, None)


def refuse_new(listener: int) -> None:
    """Let nobody connect any more to the listening socket, while whoever has connected is still served.

    To clients it looks as if the packet were lost: they repeat it a second later, when the port is closed, or another
    process listens there. Only Linux can do it; elsewhere the last new connections are reset, as BentoML does it.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_NEW))
    drop_new = struct.pack("HP", len(_DROP_NEW), ctypes.addressof(program))
    with socket.socket(fileno=os.dup(listener)) as port:
        try:
            port.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, drop_new)
        except OSError:  # newer kernels let only root do it
            # Unlike the filter it also stops whoever is half connected at this very moment. It is a refinement: where
            # even that is refused, the service must stop all the same.
            with contextlib.suppress(OSError, KeyError):
                port.setsockopt(*_LEAST_HOPS[port.family], _MOST_HOPS)
