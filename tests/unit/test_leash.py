import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# Starts a child of its own, says both pids, and would run for ever; with "deaf" it does not hear SIGTERM.
COMMAND = """
import os, signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def leashed(*arguments: str, grace: str = "0.5") -> "subprocess.Popen[str]":
    code = f"import sys; from ekiben import leash; leash.GRACE_S = {grace}; sys.exit(leash.main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, sys.executable, "-c", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def pids(leash: "subprocess.Popen[str]") -> list[int]:
    assert leash.stdout is not None
    return [int(pid) for pid in leash.stdout.readline().split()]


def all_gone(family: list[int], seconds: float = 5.0) -> bool:
    def runs(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + seconds
    while any(runs(pid) for pid in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("how", ["close", "terminate", "deaf"])
def test_nothing_outlives_the_leash(how: str) -> None:
    with leashed(COMMAND, how) as leash:
        family = pids(leash)
        if how == "terminate":
            leash.terminate()
        assert leash.stdin is not None
        leash.stdin.close()
        leash.wait(15)
        assert all_gone(family)


def test_nothing_outlives_a_holder_that_is_killed(tmp_path: Path) -> None:
    holder = (
        "import subprocess, sys, time\n"
        f"held = subprocess.Popen([sys.executable, '-m', 'ekiben.leash', sys.executable, '-c', {COMMAND!r}], "
        "stdin=subprocess.PIPE)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
        family = pids(process)
        os.kill(process.pid, signal.SIGKILL)
    assert all_gone(family, 20)


def test_the_exit_code_is_the_commands() -> None:
    with leashed("import sys; sys.exit(7)") as leash:
        assert leash.wait(10) == 7


def test_ctrl_c_is_for_the_holder() -> None:
    with leashed(COMMAND) as leash:
        family = pids(leash)
        leash.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert leash.poll() is None
        assert leash.stdin is not None
        leash.stdin.close()
        leash.wait(15)
        assert all_gone(family)
