"""Daemons are real processes here, and so are the starters that get killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ekiben.errors import UnavailableError
from ekiben.processes import MARK, Daemon, free_port, port_is_free

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "state", "worker")
    yield made
    made.stop(grace=1)
    assert marked(made) == [], "a test leaked a process"


def start(daemon: Daemon, argv: list[str] = SLEEP, **env: str) -> bool:
    return daemon.start(argv, url="http://127.0.0.1:1", env={**os.environ, **env}, cwd=daemon.folder.parent)


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def marked(daemon: Daemon) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(daemon.folder / "worker.json"):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def record(daemon: Daemon) -> dict[str, object]:
    read: dict[str, object] = json.loads((daemon.folder / "worker.json").read_text())
    return read


def eventually(seen: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not seen():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_it_runs_once_and_stops(daemon: Daemon) -> None:
    assert not daemon.alive
    assert daemon.url == ""
    assert start(daemon)
    pid = daemon.pid
    assert not start(daemon), "it runs already"
    assert daemon.pid == pid == record(daemon)["pid"]
    assert Daemon(daemon.folder, "worker").url == "http://127.0.0.1:1"
    daemon.stop()
    assert not daemon.alive
    daemon.stop()
    assert start(daemon), "and again"
    assert daemon.pid != pid


def test_it_is_cut_off_from_its_starter(daemon: Daemon, tmp_path: Path) -> None:
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    code = f"""
import os, sys, time
try: os.fstat({inherited}); print("inherited")
except OSError: print("closed")
print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()), os.environ.get("SECRET"), flush=True)
time.sleep(300)
"""
    start(daemon, script(code), SECRET="s3cret")
    os.close(inherited)
    eventually(lambda: len(daemon.tail().splitlines()) == 2)
    assert daemon.tail().splitlines() == ["closed", "True '' s3cret"]
    assert "s3cret" not in (daemon.folder / "worker.json").read_text()


DRIVER = """
import os, sys
from pathlib import Path
from ekiben.processes import Daemon
argv = [sys.executable, "-c", "import time; time.sleep(300)"]
print(Daemon(Path(sys.argv[1]), "worker").start(argv, url="u", env=dict(os.environ), cwd=Path("/")), flush=True)
"""


def driver(daemon: Daemon) -> "subprocess.Popen[str]":
    return subprocess.Popen([*script(DRIVER), str(daemon.folder)], text=True, stdout=subprocess.PIPE)


def test_it_outlives_its_starter(daemon: Daemon) -> None:
    starter = driver(daemon)
    assert starter.communicate()[0] == "True\n"
    assert daemon.alive
    assert marked(daemon) == [daemon.pid]


def test_starters_at_the_same_time_start_one(daemon: Daemon) -> None:
    starters = [driver(daemon) for _ in range(5)]
    answers = sorted(starter.communicate()[0] for starter in starters)
    assert answers == ["False\n"] * 4 + ["True\n"]
    assert marked(daemon) == [daemon.pid]


def test_a_process_whose_pid_was_never_noted_is_found(daemon: Daemon) -> None:
    """What is on disk when the starter is killed between the start and the note of the pid."""
    start(daemon)
    pid = daemon.pid
    intent = {**record(daemon), "pid": None, "started": 0.0}
    (daemon.folder / "worker.json").write_text(json.dumps(intent))
    assert daemon.pid == pid
    assert not start(daemon)
    assert record(daemon)["pid"] == pid, "noted now"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"argv": []}', '{"argv": [], "url": "", "more": 1}'])
def test_a_damaged_record_leaves_no_second_process(daemon: Daemon, damage: str) -> None:
    start(daemon)
    pid = daemon.pid
    (daemon.folder / "worker.json").write_text(damage)
    assert not daemon.alive
    assert start(daemon)
    assert marked(daemon) == [daemon.pid]
    assert daemon.pid != pid


def test_starters_killed_at_any_moment_leave_one_process_at_most(daemon: Daemon) -> None:
    begun = time.monotonic()
    driver(daemon).communicate()
    whole = time.monotonic() - begun
    daemon.stop(grace=1)
    for _ in range(8):
        starter = driver(daemon)
        time.sleep(random.uniform(0.3, 1.05) * whole)
        starter.send_signal(signal.SIGKILL)
        starter.communicate()
        assert len(marked(daemon)) <= 1
        start(daemon)
        assert marked(daemon) == [daemon.pid]
        daemon.stop(grace=1)


def test_a_recycled_pid_is_neither_mistaken_nor_killed(daemon: Daemon) -> None:
    start(daemon)
    before = record(daemon)
    daemon.stop()
    stranger = subprocess.Popen(SLEEP)
    try:
        (daemon.folder / "worker.json").write_text(json.dumps({**before, "pid": stranger.pid, "started": 1e9}))
        assert not daemon.alive
        daemon.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_clock_that_was_set_does_not_hide_it(daemon: Daemon) -> None:
    start(daemon)
    pid = daemon.pid
    (daemon.folder / "worker.json").write_text(json.dumps({**record(daemon), "started": 1e9}))
    assert daemon.pid == pid


def test_a_zombie_is_not_alive(daemon: Daemon) -> None:
    start(daemon)
    assert daemon.pid
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: not daemon.alive, 2)


def test_stop_lets_it_finish(daemon: Daemon, tmp_path: Path) -> None:
    code = f"""
import signal, sys, time
from pathlib import Path
def end(*_):
    time.sleep(0.3); Path({str(tmp_path / "finished")!r}).touch(); sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(300)
"""
    start(daemon, script(code))
    daemon.wait_ready(lambda: daemon.tail() == "up", 5)
    daemon.stop(grace=5)
    assert (tmp_path / "finished").exists()


def test_stop_ends_what_will_not_end_and_its_children(daemon: Daemon) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    child = f"{stubborn} time.sleep(300)"
    code = f"{stubborn} import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(300)"
    start(daemon, script(code))
    daemon.wait_ready(lambda: daemon.tail() == "up\nup", 5)
    assert len(marked(daemon)) == 2
    begun = time.monotonic()
    daemon.stop(grace=0.3)
    assert time.monotonic() - begun < 3
    assert marked(daemon) == []


def test_orphans_of_one_that_died_are_ended_by_the_next_start(daemon: Daemon) -> None:
    code = f"import subprocess, time; subprocess.Popen({SLEEP!r}); print('up', flush=True); time.sleep(300)"
    start(daemon, script(code))
    daemon.wait_ready(lambda: daemon.tail() == "up", 5)
    assert daemon.pid
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: not daemon.alive)
    assert len(marked(daemon)) == 1
    start(daemon)
    assert marked(daemon) == [daemon.pid]


def test_an_early_death_is_noticed_at_once_and_explained(daemon: Daemon) -> None:
    start(daemon, script("import sys; sys.exit('no module named torch')"))
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="no module named torch"):
        daemon.wait_ready(lambda: False, timeout=60)
    assert time.monotonic() - begun < 5


def test_one_that_never_gets_ready_is_given_up(daemon: Daemon) -> None:
    start(daemon, script("import time; print('loading', flush=True); time.sleep(300)"))
    with pytest.raises(UnavailableError, match=r"not ready after 1 s[^$]*loading"):
        daemon.wait_ready(lambda: False, timeout=1)


def test_a_program_that_is_not_there(daemon: Daemon) -> None:
    with pytest.raises(UnavailableError, match="no-such-program"):
        start(daemon, ["no-such-program"])
    assert not daemon.alive


def test_the_log_of_the_one_before_is_kept(daemon: Daemon) -> None:
    start(daemon, script("print('first')"))
    eventually(lambda: daemon.tail() == "first")
    eventually(lambda: not daemon.alive)
    start(daemon, script("print('second')"))
    eventually(lambda: daemon.tail() == "second")
    assert (daemon.folder / "worker.log.1").read_text() == "first\n"


def test_the_tail_is_bounded(daemon: Daemon) -> None:
    start(daemon, script("print('x' * 100_000); [print(n) for n in range(100)]"))
    eventually(lambda: daemon.tail(2) == "98\n99")
    assert len(daemon.tail(1000)) <= 16384


def test_a_free_port_is_free() -> None:
    port = free_port()
    assert 20000 <= port < 30000
    assert port_is_free(port)
