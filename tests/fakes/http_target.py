"""A real HTTP/1.1 server in a process of its own, whose behaviour is known exactly: load tests are tested against it.

    python tests/fakes/http_target.py '{"delay_ms": 20, "stall_at_s": 2, …}'    prints its port on the first line

It answers POST /predict with {"classes": [sum of the first row modulo 10], "requests": …, "connections": …}, which are
both counted from the start, and GET /truth with what it did itself (class Truth). Settings, all optional:
delay_ms: before each answer; stall_at_s, stall_s: from the first request on, no answer is given in this interval;
service_ms, scatter, seed: one server with a queue, whose service times have this mean, and this standard deviation in
means: 1 is exponential (M/M/1 with Poisson arrivals), anything else log-normal (M/G/1);
error_every, wrong_every, text_every, keyless_every: each n-th request gets status 503, a wrong answer, one that is no
JSON, one that lacks its key; close_every, hang_every: a closed connection without one byte, no answer ever; drip_every,
drip_s: its answer byte by byte in this time; close_idle_ms: kept connections are closed after this idle time.
"""

import asyncio
import contextlib
import json
import math
import random
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = ("error", "wrong", "text", "keyless", "close", "hang", "drip")


@dataclass
class Truth:
    """`took_ms` from having read a request to having written its answer, in the order of the requests, None where
    there is none; `did` counts what was done to requests on purpose."""

    took_ms: list[float | None] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)
    connections: int = 0


@contextlib.contextmanager
def serving(**settings: float) -> Iterator[str]:
    """The address of a target that runs as long as the block."""
    with process(**settings) as (url, _):
        yield url


@contextlib.contextmanager
def process(**settings: float) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The same with its process, to do it harm."""
    command = [sys.executable, __file__, json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None and running.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(running.stdout.readline())}", running
        finally:
            running.stdin.close()


def truth(url: str) -> Truth:
    with urllib.request.urlopen(f"{url}/truth", timeout=10) as answer:
        found = json.load(answer)
    return Truth(found["took_ms"], Counter(found["did"]), found["connections"])


class Target:
    def __init__(self, settings: dict[str, float]) -> None:
        self.settings = settings
        self.truth = Truth()
        self.first = 0.0
        self.free_at = 0.0  # the single server's last customer leaves
        self.random = random.Random(settings.get("seed", 1))

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def fate(self, number: int) -> str:
        """What is done to request `number`, the first of KINDS that is due; '' for nothing."""
        steps = ((kind, int(self.settings.get(f"{kind}_every", 0))) for kind in KINDS)
        return next((kind for kind, step in steps if step and number % step == 0), "")

    def service_s(self) -> float:
        mean, scatter = self.settings["service_ms"] / 1000, self.settings.get("scatter", 1.0)
        if scatter == 1.0:
            return self.random.expovariate(1 / mean)
        sigma = math.sqrt(math.log1p(scatter**2))
        return mean * self.random.lognormvariate(-(sigma**2) / 2, sigma)

    def answer_at(self) -> float:
        now = self.now()
        self.first = self.first or now
        at = now + self.settings.get("delay_ms", 0) / 1000
        if "service_ms" in self.settings:
            at = self.free_at = max(now, self.free_at) + self.service_s()
        start = self.first + self.settings.get("stall_at_s", 0)
        end = start + self.settings.get("stall_s", 0)
        return end if start <= at < end else at

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle = self.settings.get("close_idle_ms")
        asked = False
        try:
            while True:
                wait = asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle / 1000 if idle and asked else None)
                head = (await wait).decode("latin-1").lower()
                if head.startswith("get /truth"):
                    writer.write(_response("200 OK", json.dumps(vars(self.truth))))
                    continue
                self.truth.connections += not asked
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
        took = self.truth.took_ms
        took.append(None)
        number, began = len(took), self.now()
        at, fate = self.answer_at(), self.fate(number)
        if fate:
            self.truth.did[fate] += 1
        if fate == "close":
            return False
        if fate == "hang":
            await asyncio.sleep(3600)
        await asyncio.sleep(max(0.0, at - self.now()))
        digit = (sum(json.loads(body)["rows"][0]) + (fate == "wrong")) % 10
        told = {"requests": number, "connections": self.truth.connections}
        text = json.dumps(told if fate == "keyless" else {"classes": [digit], **told})
        status = "503 Service Unavailable" if fate == "error" else "200 OK"
        response = _response(status, "<html>no</html>" if fate == "text" else text)
        if fate == "drip":
            for byte in response:
                writer.write(bytes([byte]))
                await asyncio.sleep(self.settings["drip_s"] / len(response))
        else:
            writer.write(response)
            await writer.drain()
        took[number - 1] = (self.now() - began) * 1000
        return True


def _response(status: str, text: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


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
