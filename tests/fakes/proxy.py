"""A TCP proxy whose cable can be pulled: what goes through it then goes nowhere, and nobody is told."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def proxy(port: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """Its own port on 127.0.0.1, forwarded to `port` there, and a function that cuts it for good."""
    loop, connected = asyncio.new_event_loop(), asyncio.Event()
    connected.set()
    ready: list[int] = []
    started = threading.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(65536):
                if not connected.is_set():
                    await asyncio.sleep(3600)
                writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            if not connected.is_set():
                await asyncio.sleep(3600)
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, back), pump(there, writer))

    async def main() -> None:
        server = await asyncio.start_server(forward, "127.0.0.1", 0, backlog=1024)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        await asyncio.Event().wait()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        for left in (tasks := asyncio.all_tasks(loop)):
            left.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()

    task = loop.create_task(main())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield ready[0], lambda: loop.call_soon_threadsafe(connected.clear) and None
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
