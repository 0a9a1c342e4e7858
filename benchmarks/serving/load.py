"""Closed-loop load: each connection waits for its answer, then asks again. Every answer is checked."""

import asyncio
import json
import time
from dataclasses import dataclass

import uvloop

from benchmarks.serving.servers import Server


@dataclass(frozen=True)
class Sample:
    cpu_ms: float  # a request, of all the server's processes
    rate: float  # requests/s
    p50_ms: float
    p99_ms: float
    generator: float  # share of one core that the load itself used


def measure(server: Server, body: bytes, digits: list[int], concurrency: int, seconds: float) -> Sample:
    cpu, own, wall = server.cpu_seconds(), time.process_time(), time.perf_counter()
    latencies = sorted(uvloop.run(_load(server, body, digits, concurrency, seconds)))
    wall = time.perf_counter() - wall
    return Sample(
        cpu_ms=(server.cpu_seconds() - cpu) / len(latencies) * 1e3,
        rate=len(latencies) / wall,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
        generator=(time.process_time() - own) / wall,
    )


async def _load(server: Server, body: bytes, digits: list[int], concurrency: int, seconds: float) -> list[float]:
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    wanted = json.dumps({"classes": digits}, separators=(",", ":"))[:-1].encode()
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
        while (began := time.perf_counter()) < end:
            writer.write(request)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(headers.partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer = await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            if not headers.startswith(b"http/1.1 200") or not answer.replace(b" ", b"").startswith(wanted):
                raise SystemExit(f"{server.name} answered wrongly: {headers!r} {answer[:200]!r}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return latencies
