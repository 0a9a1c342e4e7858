"""Processes that outlive the command that started them: the slots, the switch and the embedded tracker.

A daemon is known by its record, `<folder>/<name>.json`, and bears the record's path in its environment. The record is
written *before* the process is started and completed after, so a starter that is killed in between leaves a process
that the next call finds by that mark: nothing leaks, and nothing is started twice.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from ekiben.errors import UnavailableError
from ekiben.files import locked, write_atomically

MARK = "EKIBEN_DAEMON"

# Handles of the processes that this very process started: they must be reaped, or they stay as zombies.
_children: dict[int, "subprocess.Popen[bytes]"] = {}


@dataclass(frozen=True)
class _Record:
    argv: list[str]
    url: str
    pid: int | None = None  # None: about to be started
    started: float = 0.0  # seconds since the epoch, as psutil tells it


class Daemon:
    """One long-lived process. Every method may be called from several processes at once."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder.absolute()
        self.log = self.folder / f"{name}.log"
        self._record_path = self.folder / f"{name}.json"
        self._lock = self.folder / f".{name}.lock"

    @property
    def url(self) -> str:
        """Where it answers, or did when it ran last; '' if it never ran."""
        record = self._record()
        return record.url if record else ""

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        record = self._record()
        process = self._find(record) if record else None
        return process.pid if process else None

    @property
    def alive(self) -> bool:
        return self.pid is not None

    def start(self, argv: Sequence[str], *, url: str, env: Mapping[str, str], cwd: Path) -> bool:
        """Start `argv` in a session of its own, with all of `env` and nothing else, unless it runs already.

        True if it was started, False if it ran. No secrets in `argv` or `url`: both are kept in the record.
        """
        with locked(self._lock):
            record = self._record()
            running = self._find(record) if record else None
            if record and running:
                if record.pid is None:  # its starter died before it could note the pid
                    self._write(record, running)
                return False
            self._kill(self._marked())
            write_atomically(self._record_path, json.dumps(asdict(_Record([*argv], url))))
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".log.1"))  # why the one before ended
            with self.log.open("ab") as log:
                try:
                    process = subprocess.Popen(
                        argv,
                        env={**env, MARK: str(self._record_path)},
                        cwd=cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                except OSError as error:
                    raise UnavailableError(f"{self.name} cannot be started: {error}", wanted=argv[0]) from error
            _children[process.pid] = process
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended at once
                self._write(_Record([*argv], url), psutil.Process(process.pid))
            return True

    def stop(self, grace: float = 30.0) -> None:
        """SIGTERM, then after `grace` seconds SIGKILL for it and all its children; nothing if it does not run."""
        with locked(self._lock, timeout=grace + 60):
            record = self._record()
            process = self._find(record) if record else None
            if process:
                family = [process, *_children_of(process)]
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
                _wait_gone(process, grace)
                self._kill(family)
            self._kill(self._marked())

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log, at most 16 KiB."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 16384))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Ask `ready` until it is True. UnavailableError at once if the process ends, else after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            if not self.alive:
                raise UnavailableError(
                    f"{self.name} ended while it started; its last words:\n{_indent(self.tail())}",
                    wanted="a process that starts and answers",
                    next_step=f"read {self.log}",
                )
            if ready() and self.alive:
                return
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.name} was not ready after {timeout:.0f} s; its last words:\n{_indent(self.tail())}",
                    wanted="a process that answers in time",
                    next_step=f"read {self.log}",
                )
            time.sleep(0.05)

    def _record(self) -> _Record | None:
        try:
            return _Record(**json.loads(self._record_path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _write(self, record: _Record, process: psutil.Process) -> None:
        complete = _Record(record.argv, record.url, process.pid, process.create_time())
        write_atomically(self._record_path, json.dumps(asdict(complete)))

    def _find(self, record: _Record) -> psutil.Process | None:
        """The process that the record speaks of, if it still runs."""
        if record.pid is None:
            return next((process for process in self._marked() if _leads_session(process)), None)
        child = _children.get(record.pid)
        if child is not None and child.poll() is not None:
            del _children[record.pid]
        try:
            process = psutil.Process(record.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            # The start time tells a recycled pid; the mark still knows the process after the clock was set.
            same = abs(process.create_time() - record.started) < 1 or self._bears_mark(process)
            return process if same else None
        except psutil.NoSuchProcess:
            return None

    def _marked(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._bears_mark(process)]

    def _bears_mark(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get(MARK) == str(self._record_path))
        except (psutil.Error, OSError):  # gone, or not ours to look at
            return False

    def _kill(self, processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # psutil checks that the pid was not recycled
                process.kill()
        for process in processes:
            _wait_gone(process, 5)


def free_port() -> int:
    """A loopback port that nobody listens on, outside the range that outgoing connections draw from."""
    for port in _candidates():
        if port_is_free(port):
            return port
    raise UnavailableError("no free port on 127.0.0.1 between 20000 and 29999", next_step="end some servers")


def _candidates() -> Iterator[int]:
    start = int.from_bytes(os.urandom(2)) % 10000
    return (20000 + (start + step) % 10000 for step in range(10000))


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _leads_session(process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == int(process.pid)
    except OSError:
        return False


def _wait_gone(process: psutil.Process, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and not _gone(process):
        time.sleep(0.02)


def _gone(process: psutil.Process) -> bool:
    """Whether it has ended for good. A zombie whose other threads still end has its ports open yet."""
    child = _children.get(process.pid)
    if child is not None:
        if child.poll() is None:
            return False
        del _children[process.pid]
        return True
    try:
        ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        return bool(ended or not process.is_running())
    except psutil.NoSuchProcess:
        return True


def _indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines()) or "  | (nothing)"


def ready(url: str) -> bool:
    """Whether GET /readyz answers 200, on a connection of its own. A starting BentoML accepts and says nothing."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=2)
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
