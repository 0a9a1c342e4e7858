"""What one prediction costs: our service beside an untuned BentoML service and FastAPI, with the same model.

    python benchmarks/service.py [--quick] [--json FILE]

Each server answers one-row requests over keep-alive connections, in interleaved rounds, so that a machine that grows
slower or faster meanwhile does so for all. CPU is user + system time of the server's processes, in milliseconds a
request; ratios are taken within a round, and the median over the rounds is shown. Every answer is checked.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import uvloop

ROOT = Path(__file__).resolve().parent.parent
RIVALS = ROOT / "benchmarks" / "rivals"
CONNECTIONS = 4
READY_SECONDS = 90

OURS = "ekiben"
SERVERS = {
    OURS: "service/digits.py: BentoML, uvloop + httptools",
    "bentoml": "untuned BentoML service, as the tutorials write it (it finds uvloop and httptools too)",
    "fastapi": "FastAPI, uvicorn as pip gives it: asyncio + h11, access log",
    "fastapi-tuned": "FastAPI, uvloop + httptools, no access log, scikit-learn set as in ours",
}


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        family = [self.process, *self.process.children(recursive=True)]
        return sum(times.user + times.system for times in (member.cpu_times() for member in family))


@dataclass(frozen=True)
class Sample:
    cpu_ms: float  # a request
    rate: float  # requests/s
    p50_ms: float
    generator: float  # share of one core that the load generator itself used


def prepare(folder: Path) -> tuple[bytes, int]:
    """Train the model, import it into `folder`/ekiben and `folder`/bentoml; one request body and its digit."""
    import bentoml
    import skops.io
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, digits = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(images, digits)
    skops.io.dump(model, folder / "model.skops")
    with bentoml.models.create("digits:v1") as stored:
        shutil.copy(folder / "model.skops", stored.path)
    shutil.copytree(folder / OURS, folder / "bentoml")
    return json.dumps({"rows": images[:1].tolist()}).encode(), int(model.predict(images[:1])[0])


def model_alone(folder: Path) -> dict[str, float]:
    """CPU milliseconds of one call of the model, in this process: as scikit-learn comes, and as it is set in ours."""
    import numpy as np
    import sklearn
    import skops.io

    pipeline, row = skops.io.load(folder / "model.skops", trusted=[]), np.zeros((1, 64))

    def cost(calls: int = 1000) -> float:
        began = time.process_time()
        for _ in range(calls):
            pipeline.predict_proba(row)
        return (time.process_time() - began) / calls * 1e3

    plain = cost()
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        return {"as scikit-learn comes": plain, "as set in ours": cost()}


def command(name: str, port: int) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(port)]
    if name == OURS:
        return [sys.executable, "-m", "bentoml", "serve", str(ROOT), *address]
    if name == "bentoml":
        return [sys.executable, "-m", "bentoml", "serve", "plain_bentoml:Plain", "--working-dir", str(RIVALS), *address]
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    if name == "fastapi":
        flags = ["--loop", "asyncio", "--http", "h11"]
    return [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(RIVALS), *address, *flags]


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    environment = {
        **os.environ,
        "BENTOML_HOME": str(folder / name),
        "MODEL": str(folder / "model.skops"),
        "PYTHONPATH": str(ROOT),
        "TUNED": "1" if name == "fastapi-tuned" else "",
    }
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command(name, port), env=environment, cwd=folder, stdout=output, stderr=output)
    try:
        yield Server(name, port, psutil.Process(process.pid))
    except BaseException:
        print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline or not server.process.is_running():
                raise SystemExit(f"{server.name} did not become ready") from None
            time.sleep(0.1)


def measure(server: Server, body: bytes, digit: int, requests: int) -> Sample:
    cpu, own, wall = server.cpu_seconds(), time.process_time(), time.perf_counter()
    latencies = uvloop.run(load(server.port, body, digit, requests))
    wall = time.perf_counter() - wall
    return Sample(
        cpu_ms=(server.cpu_seconds() - cpu) / requests * 1e3,
        rate=requests / wall,
        p50_ms=median(latencies) * 1e3,
        generator=(time.process_time() - own) / wall,
    )


async def load(port: int, body: bytes, digit: int, requests: int) -> list[float]:
    """Send `requests` over CONNECTIONS keep-alive connections, each waiting for its answer; latencies in seconds."""
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    wanted = b'{"classes":[%d]' % digit
    latencies: list[float] = []
    left = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            began = time.perf_counter()
            writer.write(request)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(headers.partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer = await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            if not headers.startswith(b"http/1.1 200") or not answer.replace(b" ", b"").startswith(wanted):
                raise SystemExit(f"wrong answer: {headers!r} {answer[:200]!r}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return latencies


def summary(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Medians per server, and the median over the rounds of what was measured for ours / for this server."""

    def of(name: str) -> dict[str, float]:
        own, theirs = samples[OURS], samples[name]
        pairs = list(zip(own, theirs, strict=True))
        return {
            "cpu_ms": median(s.cpu_ms for s in theirs),
            "requests_per_s": median(s.rate for s in theirs),
            "p50_ms": median(s.p50_ms for s in theirs),
            "cpu_ours_to_this": median(a.cpu_ms / b.cpu_ms for a, b in pairs),
            "rate_ours_to_this": median(a.rate / b.rate for a, b in pairs),
            "generator_share_of_core": max(s.generator for s in theirs),
        }

    return {name: of(name) for name in samples}


def show(results: dict[str, Any], alone: dict[str, float], requests: int, rounds: int) -> None:
    print(f"one row a request, {CONNECTIONS} connections, {rounds} rounds of {requests} requests, medians\n")
    print(f"{'server':<15}{'CPU ms':>9}{'req/s':>9}{'p50 ms':>9}{'CPU ours/this':>16}{'rate ours/this':>16}")
    for name, row in results.items():
        print(
            f"{name:<15}{row['cpu_ms']:>9.3f}{row['requests_per_s']:>9.0f}{row['p50_ms']:>9.2f}"
            f"{row['cpu_ours_to_this']:>16.2f}{row['rate_ours_to_this']:>16.2f}"
        )
    print()
    for name, text in SERVERS.items():
        print(f"{name:<15}{text}")
    print("\nin that, the model alone, CPU ms a call: " + ", ".join(f"{name} {ms:.3f}" for name, ms in alone.items()))
    print("our service and the untuned one keep Prometheus metrics of each request, FastAPI none")
    busiest = max(row["generator_share_of_core"] for row in results.values())
    bound = "it was the bottleneck: trust the CPU column only" if busiest > 0.9 else "not the bottleneck"
    print(f"load generator: at most {busiest:.0%} of a core, {bound}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few requests: does it run, not what does it cost")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args()
    requests, rounds = (200, 2) if arguments.quick else (2000, 7)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        os.environ |= {"BENTOML_HOME": str(folder / OURS), "BENTOML_DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}
        (folder / OURS).mkdir()
        body, digit = prepare(folder)
        servers = [stack.enter_context(serving(each, folder)) for each in SERVERS]
        for server in servers:
            wait_ready(server)
            measure(server, body, digit, 100)  # warm-up
        samples: dict[str, list[Sample]] = {each: [] for each in SERVERS}
        for _ in range(rounds):
            for server in servers:
                samples[server.name].append(measure(server, body, digit, requests))
        alone = model_alone(folder)
    results = summary(samples)
    show(results, alone, requests, rounds)
    if arguments.json:
        report = {"version": 1, "requests": requests, "rounds": rounds, "model_alone_cpu_ms": alone, "servers": results}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
