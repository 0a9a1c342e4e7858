"""A steady prober: what do callers see while traffic is switched? It runs in a process of its own (probing.py), so that
the caller's work does not disturb it, and ends with the caller, however that ends."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from ekiben.errors import UnavailableError
from ekiben.loadtest.golden import Golden
from ekiben.types import Probe

START_S = 30.0  # for the process to begin, on a busy machine
REPORT_S = 5.0  # for the last word, beyond the time-out of what is in flight


class Prober:
    """`rate` requests/s to `url`, the golden examples in turn, half of them on new connections and half on kept ones.

    With several golden files each request may get the answer that any of them expects: during a switch two models
    answer. Where a file does not know a request, its model's answer must be a JSON object with the expected keys.
    A request that fails is counted, never repeated; see probing.py for the one exception.

        with Prober(url, [old_golden, new_golden]) as prober:
            switch()
            prober.wait_for(1000, timeout=30)
            probe = prober.stop()
    """

    def __init__(self, url: str, golden: Path | Sequence[Path], rate: float = 200.0, timeout_s: float = 5.0) -> None:
        self._golden = [path.absolute() for path in ([golden] if isinstance(golden, Path) else golden)]
        self._settings = {"url": url, "golden": [*map(str, self._golden)], "rate": rate, "timeout_s": timeout_s}
        self._timeout = timeout_s
        self._news = threading.Condition()  # its lock is re-entrant: done() may ask so_far()
        self._probe: Probe | None = None
        self._final = False
        self._ended = False
        self._last = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Returns when requests are under way; UnavailableError when they cannot be, or what Golden.read raises."""
        for path in self._golden:
            Golden.read(path)  # an error here reads better than from the other process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ekiben.loadtest.probing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        try:
            self._say(json.dumps(self._settings))
            self._wait(lambda: self._probe is not None, START_S, "the prober did not start")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def so_far(self) -> Probe:
        """What was answered, or failed, until about 50 ms ago; UnavailableError when the prober ended unasked."""
        with self._news:
            if self._ended and not self._final:
                raise self._unavailable("the prober saw only a part", f"it ended: {self._last}")
            return self._probe or Probe(requests=0, failed=0, worst_ms=0.0)

    def wait_for(self, requests: int, timeout: float = 60.0) -> Probe:
        """Block until so many requests were answered or failed; UnavailableError when `timeout` seconds pass first."""
        self._wait(
            lambda: self.so_far().requests >= requests, timeout, f"the prober has not made {requests:,} requests"
        )
        return self.so_far()

    def stop(self) -> Probe:
        """Start no more requests, wait for those in flight, and return what was seen in all.

        UnavailableError when the prober ended before its time: what it did not see is no success.
        """
        if not self._final:
            with contextlib.suppress(BrokenPipeError):
                self._say("stop")
            self._wait(lambda: self._final, self._timeout + REPORT_S, "the prober did not report")
        self._kill()
        return self.so_far()

    def _say(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                try:
                    message = json.loads(line)
                    self._final = message.pop("final")
                    self._probe = Probe(**message)
                except (ValueError, TypeError, KeyError, AttributeError):
                    self._last = line.strip() or self._last  # a traceback
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _wait(self, done: Callable[[], bool], timeout: float, otherwise: str) -> None:
        deadline = time.monotonic() + timeout
        with self._news:
            while not done():
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise self._unavailable(
                        otherwise, f"it ended: {self._last}" if self._ended else f"not within {timeout:.0f} s"
                    )
                self._news.wait(left)

    @staticmethod
    def _unavailable(what: str, why: str) -> UnavailableError:
        return UnavailableError(f"{what}: {why}", wanted="a prober that runs until it is stopped")

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
