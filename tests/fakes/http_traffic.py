"""Pods that serve over real sockets and drain as BentoML's do, and clients that load a Service without a pause.

All run on one asyncio loop in a thread of its own. Times are real seconds.
"""

import asyncio
import collections
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

WORK_S = 0.01  # what a request takes


class PodServer:
    """Answers POST /predict {"x": n} with {"y": n, "pod": name}. SIGTERM ends it as it ends uvicorn: it accepts
    no more, idle connections are closed at once, the others after their answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.name, self._loop, self._ending = name, loop, False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server: asyncio.Server | None = None
        self._idle: set[asyncio.StreamWriter] = set()
        loop.call_soon_threadsafe(lambda: loop.create_task(self._start()))

    def terminate(self) -> None:
        self._loop.call_soon_threadsafe(self._end)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._listener)

    def _end(self) -> None:
        self._ending = True
        if self._server:
            self._server.close()
        for each in list(self._idle):
            each.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not self._ending:
                self._idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self._idle.discard(writer)
                body = await reader.readexactly(_length(head))
                await asyncio.sleep(WORK_S)
                said = json.dumps({"y": json.loads(body)["x"], "pod": self.name}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
                await writer.drain()
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        finally:
            self._idle.discard(writer)
            writer.close()


@dataclass
class Load:
    """What clients saw. `again`: requests on a kept connection that the server had closed before one byte of an answer;
    clients ask those once more on a new connection, as HTTP allows, and Go's, urllib3 and browsers do."""

    good: int = 0
    again: int = 0
    failed: list[str] = field(default_factory=list)
    by_pod: collections.Counter[str] = field(default_factory=collections.Counter)


class Stale(Exception):
    pass


async def _client(port: int, load: Load, keep: int, pause: float, stop: asyncio.Event) -> None:
    """Asks without end; a connection is kept for `keep` requests."""
    number, left = 0, 0
    streams: Any = None
    while not stop.is_set():
        number += 1
        for attempt in range(2):
            fresh = left == 0 or streams is None or streams[0].at_eof()
            try:
                if fresh:
                    if streams:
                        streams[1].close()
                    streams, left = await asyncio.open_connection("127.0.0.1", port), keep
                told = await _ask(streams[0], streams[1], number, fresh)
                assert told["y"] == number
                load.good, left = load.good + 1, left - 1
                load.by_pod[told["pod"]] += 1
                break
            except Stale:
                load.again, streams = load.again + 1, None
                if attempt:
                    load.failed.append("stale twice")
            except (OSError, EOFError, AssertionError, ValueError) as error:
                load.failed.append(f"{'new' if fresh else 'kept'} connection: {type(error).__name__} {error}")
                streams = None
                break
        await asyncio.sleep(pause)
    if streams:
        streams[1].close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, fresh: bool) -> Any:
    body = json.dumps({"x": number}).encode()
    head = b""
    try:
        writer.write(b"POST /predict HTTP/1.1\r\nHost: digits\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        head = await asyncio.wait_for(reader.read(1), 10)
    except OSError:
        if fresh:
            raise
    if not head:
        if fresh:
            raise EOFError("closed without an answer")
        raise Stale
    head += await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(head[:40])
    return json.loads(await reader.readexactly(_length(head)))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


@contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancelled(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancelled() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def loaded(loop: asyncio.AbstractEventLoop, port: int) -> Iterator[Load]:
    """Six clients: three keep their connection for ever, two for 25 requests, one for a single one."""
    load, stop = Load(), asyncio.Event()
    clients = [
        asyncio.run_coroutine_threadsafe(_client(port, load, keep, 0.005, stop), loop)
        for keep in (10**9, 10**9, 10**9, 25, 25, 1)
    ]
    try:
        yield load
    finally:
        loop.call_soon_threadsafe(stop.set)
        for each in clients:
            each.result(30)
