"""Commands under way, as a person's shell runs them."""

import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST = 600  # what a command may take, in s


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


class Running:
    """A command under way; what it writes lies in files, so that it can be read while it runs."""

    def __init__(
        self, command: Sequence[str], root: Path, env: Mapping[str, str], explain: Callable[[], str] = lambda: ""
    ) -> None:
        """`explain` tells more where it does not end as it should."""
        self.command, self.explain = command, explain
        self.folder = root / "calls" / uuid.uuid4().hex[:8]
        self.folder.mkdir(parents=True)
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            self.process = subprocess.Popen(command, cwd=root, stdout=out, stderr=err, env=env)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def says(self, what: str, seconds: float = 180.0) -> None:
        """Waits until it has written that to standard error."""
        deadline = time.monotonic() + seconds
        while what not in self.read("err"):
            assert self.process.poll() is None, f"it ended without {what!r}: {self.read('out')}{self.read('err')}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what!r} in {self.read('err')}"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self) -> Done:
        try:
            code = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.command} did not end:\n{self.read('err')}\n{self.explain()}") from None
        done = Done(code, self.read("out"), self.read("err"))
        assert "Traceback" not in done.err, done.err
        return done

    def done(self, code: int = 0) -> Done:
        done = self.ended()
        assert done.code == code, f"{self.command}: wanted exit code {code}, got {done}\n{self.explain()}"
        return done
