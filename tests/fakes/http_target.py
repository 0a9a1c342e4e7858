"""A real HTTP/1.1 server in a process of its own, whose behaviour is known exactly: load tests are tested against it.

    python tests/fakes/http_target.py '{"delay_ms": 20, "stall_at_s": 2, …}'    prints its port on the first line

It answers POST /predict with {"classes": [sum of the first row modulo 10], "requests": …, "connections": …}, which are
both counted from the start. Settings, all optional:
delay_ms: before each answer; stall_at_s, stall_s: from the first request on, no answer is given in this interval;
error_every, wrong_every, close_every, hang_every: each n-th request gets status 503, a wrong answer, a closed
connection without one byte, or no answer ever; close_idle_ms: kept connections are closed after this idle time.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def serving(**settings: float) -> Iterator[str]:
    """The address of a target that runs as long as the block."""
    command = [sys.executable, __file__, json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


class Target:
    def __init__(self, settings: dict[str, float]) -> None:
        self.settings = settings
        self.count = 0
        self.connections = 0
        self.first = 0.0

    def every(self, name: str) -> bool:
        step = int(self.settings.get(name, 0))
        return step > 0 and self.count % step == 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle = self.settings.get("close_idle_ms")
        self.connections += 1
        asked = False
        try:
            while True:
                wait = asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle / 1000 if idle and asked else None)
                head = (await wait).decode("latin-1").lower()
                asked = True
                length = int(head.split("content-length:")[1].split("\r\n")[0]) if "content-length:" in head else 0
                body = await reader.readexactly(length)
                if not await self.answer(writer, body) or "connection: close" in head:
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        now = asyncio.get_running_loop().time()
        self.first = self.first or now
        self.count += 1
        if self.every("close_every"):
            return False
        if self.every("hang_every"):
            await asyncio.sleep(3600)
        status = "503 Service Unavailable" if self.every("error_every") else "200 OK"
        wrong = self.every("wrong_every")
        await asyncio.sleep(self.settings.get("delay_ms", 0) / 1000)
        start = self.first + self.settings.get("stall_at_s", 0)
        end = start + self.settings.get("stall_s", 0)
        if start <= asyncio.get_running_loop().time() < end:
            await asyncio.sleep(end - asyncio.get_running_loop().time())
        digit = (sum(json.loads(body)["rows"][0]) + wrong) % 10
        answer = json.dumps({"classes": [digit], "requests": self.count, "connections": self.connections}).encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer)
        await writer.drain()
        return True


async def main() -> None:
    target = Target(json.loads(sys.argv[1]))
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()  # ends with whoever started it
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
