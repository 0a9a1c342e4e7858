"""Runs a command for as long as its own standard input is open, so that it cannot outlive whoever holds the other end,
however that ends.

    python -m ekiben.leash COMMAND…

Ends with the command's exit code. When the input closes, and on SIGTERM, the command gets SIGTERM; what is left of it
and its children GRACE_S later, SIGKILL. Ctrl-C is for whoever holds the other end.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import psutil

GRACE_S = 10.0


def main(command: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else _end)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while process.poll() is None:
            if select.select([sys.stdin], [], [], 0.2)[0] and not os.read(sys.stdin.fileno(), 4096):
                break
    finally:
        _stop(process)
    return process.returncode


def _end(*_: object) -> None:
    raise SystemExit(143)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    deadline = time.monotonic() + 0.5  # those whose parent has ended need a moment
    while time.monotonic() < deadline and any(child.is_running() for child in family):
        time.sleep(0.02)
    if process.poll() is None:
        process.kill()
        process.wait()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil sees to it that the pid was not given anew
            child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
