"""The servers side by side: each a process of its own, with the same model."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.serving.models import ROOT, Case

RIVALS = ROOT / "benchmarks" / "rivals"
READY_SECONDS = 120

OURS = "ekiben"
FASTAPI = "fastapi"
UNBATCHED = "unbatched"
SERVERS = {
    OURS: "service/digits.py, service/digits_cnn.py",
    UNBATCHED: "the same as service/digits_cnn.py, but for its batching",
    "bentoml": "BentoML as its tutorials write it; it finds uvloop and httptools too",
    FASTAPI: "FastAPI, uvloop + httptools, no access log",
    "litserve": "LitServe; for a slow model it batches up to 64 requests",
}
SERVICES = {"digits": "service.digits:Digits", "digits_cnn": "service.digits_cnn:DigitsCNN"}


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        family = [self.process, *self.process.children(recursive=True)]
        return sum(times.user + times.system for times in (member.cpu_times() for member in family))


def available(case: Case) -> list[str]:
    names = [name for name in SERVERS if name != UNBATCHED or case.params]
    return names if find_spec("litserve") else [name for name in names if name != "litserve"]


def command(name: str, case: Case, port: int) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(port)]
    bentoml = [sys.executable, "-m", "bentoml", "serve"]
    match name:
        case "ekiben":
            model = ["--arg", f"model={case.recipe}:v1"]
            return [*bentoml, SERVICES[case.recipe], *model, "--working-dir", str(ROOT), *address]
        case "unbatched":
            return [*bentoml, "unbatched:Unbatched", "--working-dir", str(RIVALS), *address]
        case "bentoml":
            return [*bentoml, "plain_bentoml:Plain", "--working-dir", str(RIVALS), *address]
        case "litserve":
            return [sys.executable, str(RIVALS / "litserve_app.py"), str(port)]
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(RIVALS), *address, *flags]


@contextmanager
def serving(name: str, case: Case, model: Path, home: Path) -> Iterator[Server]:
    """Start the server `name`; `home` is its own BENTOML_HOME, for two servers in one erase each other's metrics."""
    port = free_port()
    environment = {
        **os.environ,
        "BENTOML_HOME": str(home),
        "MODEL": str(model),
        "SLOW": "1" if case.params else "",
        "PYTHONPATH": str(ROOT),
    }
    log = home / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command(name, case, port), env=environment, cwd=home, stdout=output, stderr=output)
    try:
        yield Server(name, port, psutil.Process(process.pid))
    except BaseException:
        print(f"--- {name}\n{log.read_text()[-2000:]}", file=sys.stderr)
        raise
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in psutil.wait_procs(family, timeout=2)[1]:  # LitServe leaves its workers behind
        left.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_ready(server: Server) -> None:
    path = "health" if server.name == "litserve" else "readyz"
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{path}", timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline or not server.process.is_running():
                raise SystemExit(f"{server.name} did not become ready") from None
            time.sleep(0.1)
