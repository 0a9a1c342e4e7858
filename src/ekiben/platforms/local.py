"""Blue and green on this machine: two slots, each a `bentoml serve` of an exported Bento, behind the switch.

    .ekiben/local/<service>/
      state.json          what is live (rollout/state.py); replaced whole under state.lock; the switch follows it
      switch.json, .log   the switch's process: its record and its log
      blue/  green/       bento/ (what it holds), home/ (its BENTOML_HOME), and its process likewise

A slot's processes and folder are changed only under its own lock, and the state only together with what was checked.
Killed at any moment, a command leaves the active slot serving; the next one derives what is left to do.
"""

import contextlib
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from pydantic import ValidationError

from ekiben.errors import ConflictError, EkibenError, UnavailableError, UsageError
from ekiben.files import locked, write_atomically
from ekiben.processes import Daemon, free_port, port_is_free, ready
from ekiben.rollout.plan import (
    Action,
    Claim,
    Live,
    Retired,
    RolledBack,
    Serving,
    Stage,
    Staged,
    Start,
    Stop,
    Switch,
    Unclaim,
    Wanted,
    plan,
)
from ekiben.rollout.state import Observed, ServiceState
from ekiben.types import SLOTS, BentoRef, Release, Slot

HOLDER = "EKIBEN_HOLDER"
"""Environment variable: pid of the process that a claim lasts as long as. `ekiben run` sets it for its steps, which
are processes of their own; without it a claim ends with the process that made it."""

START_SECONDS = 90.0
GRACE_SECONDS = 30.0
DRAIN_SECONDS = 0.5  # a stopping BentoML lets new connections hang: the selector must have left it for a while
UNWATCHED_SECONDS = 0.5  # a child that ended and that its parent asks for is gone sooner
ATTEMPTS = 3  # to plan anew when somebody else changed what was planned for


@dataclass(frozen=True)
class Endpoint:
    slot: Slot
    url: str


class LocalPlatform:
    """One service on this machine. `port` is where it listens, on loopback; 0 takes a free one and keeps it."""

    def __init__(self, project_state: Path, service: str, port: int) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", service):
            raise UsageError(f"not a service's name: {service!r}", wanted="a Bento's name: lowercase, a-z 0-9 . _ -")
        self.service = service
        self.folder = project_state.absolute() / "local" / service
        self.state_path = self.folder / "state.json"
        self._port = port
        self._switch = Daemon(self.folder, "switch")
        self._servers = {slot: Daemon(self.folder / slot, f"{service}-{slot}") for slot in SLOTS}

    @property
    def url(self) -> str:
        """Where the service listens: the switch, whichever slot is live."""
        return f"http://127.0.0.1:{self._port}" if self._port else self._switch.url

    def observe(self) -> Observed:
        """What is live, staged, running, ready and claimed. A service that was never deployed is empty."""
        state = self._read()
        running = frozenset(slot for slot in SLOTS if self._servers[slot].alive)
        ready = {slot for slot in running if state.slots[slot].up and self._answers(slot, state.slots[slot].address)}
        held = frozenset(slot for slot in SLOTS if _alive(state.slots[slot].claim))
        return Observed(**dict(state), running=running, ready=frozenset(ready), held=held, listening=self._switch.alive)

    def history(self) -> list[Release]:
        """What was made live, the newest last, rollbacks included."""
        return list(self._read().history)

    def plan(self, wanted: Wanted) -> list[Action]:
        """What is left to do until it is as wanted; nothing is done."""
        return plan(self.observe(), wanted)

    def stage(self, bento: BentoRef, claim: str) -> Endpoint:
        """Make `bento` ready in the idle slot, which `claim` (a run, a person) then holds. Returns where it answers:
        the active slot if it is live already.

        ConflictError while somebody else who is alive holds the slot; NotFoundError when the store has no such Bento;
        UnavailableError when it does not become ready.
        """
        self.ensure_switch()
        self._reach(Staged(bento, self._claim(claim)))
        state = self._read()
        slot = state.selector if state.active and state.selector and state.active.bento == bento else state.idle
        return Endpoint(slot, f"http://{state.slots[slot].address}")

    def switch(self, release: Release) -> None:
        """Send new connections to `release`, which must be in the idle slot; nothing happens if it is live already.

        The slot that was live stays, held for a rollback by whoever held the candidate, until `retire`.
        ConflictError when the idle slot holds something else, or is held by somebody else who is alive.
        """
        wanted = Live(release, self._claim(release.run or release.by))
        if any(isinstance(action, Stage) for action in self.plan(wanted)):
            seen = self.observe()
            raise ConflictError(
                f"{seen.idle} of {self.service} holds {seen.slots[seen.idle].bento or 'nothing complete'}",
                wanted=str(release.bento),
                next_step="stage it again",
            )
        self.ensure_switch()
        self._reach(wanted)
        self._verify()

    def rollback(self, by: str) -> Release:
        """Make live again what was before, started anew where it was stopped. The release that is live plays no part.

        NotFoundError when there was none; ConflictError when a candidate of somebody who is alive took its slot.
        """
        live = self._read().active
        self.ensure_switch()
        self._reach(RolledBack(live.bento if live else None, by, datetime.now(UTC), self._claim(by)))
        self._verify()
        active = self._read().active
        assert active is not None
        return active

    def retire(self) -> None:
        """Let the idle slot finish and stop it, unless somebody else holds it. It keeps its Bento for a rollback."""
        self._reach(Retired(self._claim("retire")))

    def ensure_serving(self) -> None:
        """Start what should run and does not, after a crash or a restart of the machine: switch and active slot."""
        if self._read().selector is None:
            return
        self._reach(Serving())
        self.ensure_switch()
        self._verify()

    def down(self) -> None:
        """Stop both slots and the switch. The state stays: `ensure_serving` goes on from it."""
        for daemon in (*self._servers.values(), self._switch):
            daemon.stop(GRACE_SECONDS)

    def apply(self, action: Action) -> None:
        """Do one planned action; ConflictError if what it relies on has changed since."""
        match action:
            case Claim(slot, claim, instead_of):
                self._change(lambda state: state.claimed(slot, claim, instead_of))
            case Unclaim(claim):
                self._change(lambda state: state.unclaimed(claim))
            case Stage():
                self._apply_stage(action)
            case Start(slot, bento):
                with self._slot(slot):
                    self._change(lambda state: state.holding(slot, bento))
                    address = self._launch(slot)
                    self._change(lambda state: state.started(slot, bento, address))
            case Switch(release, epoch, back, keep):
                self._change(lambda state: state.switched(release, epoch, back=back, keep=keep))
            case Stop(slot, claim, epoch):
                with self._slot(slot):
                    self._change(lambda state: state.stopping(slot, claim, epoch))
                    self._end(slot)

    def _reach(self, wanted: Wanted) -> None:
        for attempt in range(ATTEMPTS):
            actions = self.plan(wanted)
            try:
                for action in actions:
                    self.apply(action)
                return
            except ConflictError:
                if attempt + 1 == ATTEMPTS:
                    raise

    def _apply_stage(self, action: Stage) -> None:
        slot = action.slot
        with self._slot(slot):
            folder = self.folder / slot / "bento"
            fresh = folder.with_name("bento.new")
            shutil.rmtree(fresh, ignore_errors=True)
            self.export(action.bento, fresh)  # first: a Bento that is not there costs the slot nothing
            self._change(lambda state: state.staging(slot, action.claim, action.epoch))
            self._end(slot)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
            address = self._launch(slot)
            self._change(lambda state: state.staged(slot, action.claim, action.bento, address))

    # ---- what a slot runs

    def export(self, bento: BentoRef, folder: Path) -> None:
        """Put a runnable copy of the Bento, its models included, into `folder`, which does not exist."""
        from ekiben.packaging import bundle

        bundle.export(bento.tag, folder)

    def command(self, folder: Path, port: int) -> list[str]:
        """How the Bento in `folder` is served on a loopback port."""
        host = ["--host", "127.0.0.1", "--port", str(port)]
        return [sys.executable, "-m", "bentoml", "serve", str(folder), *host]

    def _launch(self, slot: Slot) -> str:
        """Start what the slot holds unless it runs, and wait until it is ready. Returns its address."""
        server, folder = self._servers[slot], self.folder / slot
        (folder / "home").mkdir(parents=True, exist_ok=True)
        port = free_port()
        # Two BentoML servers that share a BENTOML_HOME wipe each other's metrics. No slot needs the tracker's key.
        env = {key: value for key, value in os.environ.items() if key != "WANDB_API_KEY"}
        env |= {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "true"}
        command = self.command(folder / "bento", port)
        while True:
            started = server.start(command, url=f"http://127.0.0.1:{port}", env=env, cwd=folder)
            try:
                server.wait_ready(_Starting(server).ready, START_SECONDS)
                return urlsplit(server.url).netloc
            except EkibenError:
                if not started and not server.alive:
                    continue  # what was found running was just ending: now it can be started
                if started or self._read().selector != slot:  # never end what is live because it is slow
                    server.stop(grace=2)
                raise

    def _end(self, slot: Slot) -> None:
        if self._servers[slot].alive:
            time.sleep(DRAIN_SECONDS)
        self._servers[slot].stop(GRACE_SECONDS)

    def _answers(self, slot: Slot, address: str) -> bool:
        url = self._servers[slot].url
        return urlsplit(url).netloc == address and ready(url)

    # ---- the switch

    def ensure_switch(self) -> None:
        """The switch runs, on its port. UsageError when somebody else has that port."""
        with locked(self.folder / "switch.lock", timeout=START_SECONDS):
            port = self._port or urlsplit(self._switch.url).port or free_port()
            url = f"http://127.0.0.1:{port}"
            if not (self._switch.alive and self._switch.url == url):
                self._start_switch(port, url)
            self._switch.wait_ready(lambda: _listens(port), START_SECONDS)

    def _start_switch(self, port: int, url: str) -> None:
        self._switch.stop(grace=2)  # it may run on a port that was set before, or without its record
        for _ in range(20):  # one that was just killed may still be letting go of it
            if port_is_free(port):
                break
            time.sleep(0.05)
        else:
            raise UsageError(
                f"port {port} is taken by {_listener(port)}",
                wanted=f"the port on 127.0.0.1 where {self.service} listens",
                next_step="end that process, or set another: EKIBEN_PORT or `port` in [tool.ekiben]",
            )
        command = [sys.executable, "-m", "ekiben.platforms.switch", str(self.state_path), "--port", str(port)]
        self._switch.start(command, url=url, env=dict(os.environ), cwd=self.folder)

    def _verify(self) -> None:
        """New connections reach what the selector names: the switch confirms the epoch, and an answer comes through."""
        epoch = self._read().epoch
        applied = self.state_path.with_name("state.json.applied")
        deadline = time.monotonic() + 10
        while True:
            answered = ready(self._switch.url)  # a new connection, for which the switch looks at the state
            with contextlib.suppress(OSError, ValueError):
                if answered and int(applied.read_text()) >= epoch:
                    return
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.url} does not answer from the slot that is live; the switch says:\n{self._switch.tail(5)}",
                    wanted=f"an answer to GET {self.url}/readyz at epoch {epoch}",
                    next_step="look at `ekiben status`; `ekiben rollback` goes back",
                )
            time.sleep(0.02)

    # ---- the state

    def _slot(self, slot: Slot) -> contextlib.AbstractContextManager[None]:
        return locked(self.folder / slot / "slot.lock", timeout=START_SECONDS + GRACE_SECONDS)

    def _read(self) -> ServiceState:
        try:
            return ServiceState.model_validate_json(self.state_path.read_text())
        except FileNotFoundError:
            return ServiceState(service=self.service)
        except ValueError as error:
            raise EkibenError(
                f"{self.state_path} cannot be read: {_first(error)}",
                wanted="the state as ekiben writes it",
                next_step="bring the file back from a copy, or `ekiben down` and remove the folder to start anew",
            ) from None

    def _change(self, change: Callable[[ServiceState], ServiceState]) -> None:
        with locked(self.folder / "state.lock"):
            before = self._read()
            after = change(before)
            if after != before:
                write_atomically(self.state_path, after.model_dump_json(indent=2))

    def _claim(self, who: str) -> str:
        """The claim of this command's holder: the one it has, else a new one by `who`."""
        pid = int(os.environ.get(HOLDER) or os.getpid())
        try:
            holder = f"(pid {pid}, started {psutil.Process(pid).create_time():.2f})"
        except psutil.NoSuchProcess:
            raise UsageError(f"{HOLDER} names process {pid}, which does not run", wanted="the pid of a run") from None
        mine = [slot.claim for slot in self._read().slots.values() if slot.claim.endswith(holder)]
        return mine[0] if mine else f"{who} {holder}"


class _Starting:
    """A BentoML server that starts. A worker that ends meanwhile will end again: BentoML's supervisor, which looks for
    that every 10 s only, would start it anew for ever."""

    def __init__(self, server: Daemon) -> None:
        self.server = server
        self._ended: dict[int, float] = {}  # children that ended, by pid: when they were seen first

    def ready(self) -> bool:
        """Whether it answers. UnavailableError when it never will."""
        if ready(self.server.url):
            return True
        now = time.monotonic()
        self._ended = {pid: self._ended.get(pid, now) for pid in _unwatched(self.server.pid)}
        if any(now - seen > UNWATCHED_SECONDS for seen in self._ended.values()):
            tail = self.server.tail(200)
            why = re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)*(\S.*)", tail)
            raise UnavailableError(
                f"{self.server.name} cannot start: {why[-1] if why else 'its worker ended without a word'}",
                wanted="a service whose __init__ succeeds",
                next_step=f"read {self.server.log}",
            )
        return False


def _unwatched(pid: int | None) -> list[int]:
    """The children of a process that have ended without its taking notice."""
    if pid is None:
        return []
    try:
        return [child.pid for child in psutil.Process(pid).children() if child.status() == psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def _first(error: ValueError) -> str:
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)


def _alive(claim: str) -> bool:
    """Whether the process that the claim names still runs."""
    found = re.search(r"\(pid (\d+), started ([\d.]+)\)$", claim)
    if not found:
        return False
    try:
        process = psutil.Process(int(found[1]))
        return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(found[2])) < 1)
    except psutil.NoSuchProcess:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def _listener(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid:
                    return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
                break
    return "another process"
