"""Wake a greenlet at an exact time. Under gevent.sleep a start is up to a millisecond late at 1,000 starts/s; with a
kernel timer on the absolute time a tenth of that."""

import ctypes
import os
import sys
import time
from typing import Any

import gevent

_NANO = 1_000_000_000
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """`wait(at)` returns at `at` of time.monotonic(), at once when that is past. One waiter at a time."""

    def __init__(self) -> None:
        self._libc: Any = None
        self._fd = _create()
        if self._fd is not None:
            self._watcher = gevent.get_hub().loop.io(self._fd, 1)
            if sys.version_info < (3, 13):
                self._libc = ctypes.CDLL(None, use_errno=True)
                self._setting = _Setting()

    def wait(self, at: float) -> None:
        left = at - time.monotonic()
        if left <= 0:
            return
        if self._fd is None:
            gevent.sleep(left)
            return
        self._set(at)  # also takes back what the timer has to tell of its last time
        gevent.get_hub().wait(self._watcher)

    def _set(self, at: float) -> None:
        assert self._fd is not None
        if sys.version_info >= (3, 13):
            os.timerfd_settime(self._fd, flags=os.TFD_TIMER_ABSTIME, initial=at)
            return
        nanoseconds = int(at * _NANO)
        self._setting.value.seconds, self._setting.value.nanoseconds = divmod(nanoseconds, _NANO)
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(self._setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        if self._fd is not None:
            self._watcher.close()
            os.close(self._fd)
            self._fd = None


def _create() -> int | None:
    """A timer on the clock of time.monotonic(); None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    try:
        if sys.version_info >= (3, 13):
            return os.timerfd_create(time.CLOCK_MONOTONIC, flags=_FLAGS)
        fd = int(ctypes.CDLL(None).timerfd_create(time.CLOCK_MONOTONIC, _FLAGS))
    except (OSError, AttributeError):
        return None
    return fd if fd >= 0 else None
