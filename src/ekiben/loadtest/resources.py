"""The server's side of a load test: what the service says of itself and what its processes use, once a second.

It is told beside the client's view and judges nothing. What cannot be seen is None; no failure here fails a run.
"""

import contextlib
import http.client
import os
import platform
import re
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psutil

from ekiben.types import LoadReport, Machine, Resources

EVERY_S = 1.0
MOST = 3_600  # samples kept; a longer run is sampled in its first hour
MAX_METRICS = 4 * 1024 * 1024  # bytes
TIME_OUT_S = 1.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_IN_PROGRESS = re.compile(rb"^bentoml_service_request_in_progress(?:\{[^\n]*\})? ([0-9.eE+-]+)\s*$", re.MULTILINE)


class Sampler:
    """Samples from `with` to its end, in a thread. Without `pid` the process is the one that listens at `url`, if it
    is on this machine.

        with Sampler(url) as sampler:
            report = run(…)
        report = sampler.attach(report)
    """

    def __init__(self, url: str, pid: int | None = None) -> None:
        self._url = urlsplit(url)
        self._pid = pid
        self._samples: list[tuple[float, Resources]] = []  # (seconds since the epoch, sample)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * TIME_OUT_S)

    def attach(self, report: LoadReport) -> LoadReport:
        """The report with what was sampled while it ran, and with the machine that offered the load."""
        end = report.settings.warm_up_s + (report.measured_s or report.settings.longest_s)
        timed = [(at - report.started.timestamp(), sample) for at, sample in self._samples]
        during = [s.model_copy(update={"at_s": round(at, 2)}) for at, s in timed if 0 <= at <= end]
        return report.model_copy(update={"resources": tuple(during), "machine": machine()})

    def _run(self) -> None:
        processes = _Processes(self._pid or _listener(self._url.hostname or "", self._url.port or 80))
        due = time.monotonic()
        while True:  # once at least: a run may end before the processes were found
            cpu, memory = processes.use()
            sample = Resources(at_s=0.0, cpu_percent=cpu, memory_mb=memory, in_progress=self._in_progress())
            self._samples.append((time.time(), sample))
            due = max(due + EVERY_S, time.monotonic())
            if self._stop.wait(due - time.monotonic()) or len(self._samples) >= MOST:
                return

    def _in_progress(self) -> float | None:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=TIME_OUT_S)
        try:
            connection.request("GET", "/metrics", headers={"Connection": "close"})
            response = connection.getresponse()
            return in_progress(response.read(MAX_METRICS)) if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def in_progress(metrics: bytes) -> float | None:
    """Requests that the service is at work on, by its Prometheus text; None where it does not say."""
    values = []
    for value in _IN_PROGRESS.findall(metrics):
        with contextlib.suppress(ValueError):
            values.append(float(value))
    return sum(values) if values else None


def machine() -> Machine:
    """This machine, from where the load comes."""
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        ekiben=version("ekiben"),
        locust=version("locust"),
    )


class _Processes:
    """A process and all below it."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._spent: dict[int, float] = {}  # CPU seconds by pid
        self._at: float | None = None

    def use(self) -> tuple[float | None, float | None]:
        """CPU since the last call, in percent of one core, and resident memory, in 10^6 bytes; None: not known."""
        if self._pid is None:
            return None, None
        try:
            root = psutil.Process(self._pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return None, None
        spent, memory = {}, 0
        for process in family:
            with contextlib.suppress(psutil.Error):  # it may just have ended
                times = process.cpu_times()
                spent[process.pid] = times.user + times.system
                memory += process.memory_info().rss
        now = time.monotonic()
        used = sum(seconds - self._spent.get(pid, 0.0) for pid, seconds in spent.items())
        cpu = None if self._at is None else round(max(0.0, used) / (now - self._at) * 100, 1)
        self._spent, self._at = spent, now
        return cpu, round(memory / 1e6, 1) if memory else None


def _listener(host: str, port: int) -> int | None:
    """The topmost process of this machine that listens there; None if there is none, or it is not ours to see."""
    if host not in LOOPBACK:
        return None
    try:
        found = {
            c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port
        }
        pids = {pid for pid in found if pid}
        return next((pid for pid in sorted(pids) if psutil.Process(pid).ppid() not in pids), None)
    except (psutil.Error, OSError):
        return None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
