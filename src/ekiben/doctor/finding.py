"""What a check found, and running checks side by side, each within a time limit."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ekiben.errors import EkibenError, NotFoundError, UnavailableError, UsageError

Outcome = Literal["ok", "warn", "fail", "unknown"]
T = TypeVar("T")
_NOT_ALLOWED = "not allowed to "


@dataclass(frozen=True)
class Finding:
    """`fix` is text of several lines that mends it, such as manifests; `exit_code` is errors.py's kind of a failure."""

    name: str
    outcome: Outcome
    seen: str
    wanted: str = ""
    next_step: str = ""
    fix: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Check:
    """`look` tells what it found; an error that it raises means that nothing can be said. `late` is the outcome where
    it takes too long: a failure where an answer is what is checked."""

    name: str
    look: Callable[[], Sequence[Finding]]
    late: Outcome = "unknown"


def ok(name: str, seen: str) -> Finding:
    return Finding(name, "ok", seen)


def warn(name: str, seen: str, wanted: str, next_step: str) -> Finding:
    return Finding(name, "warn", seen, wanted, next_step)


def unknown(name: str, seen: str, wanted: str = "", next_step: str = "") -> Finding:
    return Finding(name, "unknown", seen, wanted, next_step)


def wrong(name: str, seen: str, wanted: str, next_step: str, fix: str = "") -> Finding:
    """A failure of settings or rights."""
    return Finding(name, "fail", seen, wanted, next_step, fix, UsageError.exit_code)


def missing(name: str, seen: str, wanted: str, next_step: str) -> Finding:
    """A failure because something is not there."""
    return Finding(name, "fail", seen, wanted, next_step, exit_code=NotFoundError.exit_code)


def silent(name: str, seen: str, wanted: str, next_step: str) -> Finding:
    """A failure because nobody answers."""
    return Finding(name, "fail", seen, wanted, next_step, exit_code=UnavailableError.exit_code)


def refused(name: str, error: EkibenError, wanted: str) -> Finding:
    """A failure that an error describes, which may not say what is wanted itself."""
    return Finding(name, "fail", error.seen, error.wanted or wanted, error.next_step, exit_code=error.exit_code)


def run(checks: Sequence[Check], seconds: float) -> list[Finding]:
    """What all found, in their order. They run side by side; none takes longer than `seconds`."""
    answers = side_by_side([check.look for check in checks], seconds)
    return [each for check, answer in zip(checks, answers, strict=True) for each in _told(check, answer, seconds)]


def side_by_side(calls: Sequence[Callable[[], T]], seconds: float) -> list[T | Exception | None]:
    """What each returned or raised, None for what was not done in time. That goes on in a daemon thread, which does
    not keep the process alive as an executor's would."""
    found: list[T | Exception | None] = [None] * len(calls)

    def work(index: int, call: Callable[[], T]) -> None:
        try:
            found[index] = call()
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=work, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return list(found)


def exit_code(findings: Sequence[Finding]) -> int:
    """That of the first failure, which is nearest to the cause; 0 where nothing failed."""
    return next((each.exit_code for each in findings if each.outcome == "fail"), 0)


def _told(check: Check, answer: Sequence[Finding] | Exception | None, seconds: float) -> Sequence[Finding]:
    if answer is None:
        code = UnavailableError.exit_code if check.late == "fail" else 0
        wanted, step = f"an answer within {seconds:g} s", "look at the network between; or give it longer: --timeout"
        return [Finding(check.name, check.late, f"no answer within {seconds:g} s", wanted, step, exit_code=code)]
    if isinstance(answer, UsageError) and answer.seen.startswith(_NOT_ALLOWED):
        step = "have somebody who may look run `ekiben doctor`; or add this rule to a Role of yours"
        return [unknown(check.name, answer.seen.partition(": ")[0], answer.wanted, step)]
    if isinstance(answer, EkibenError):
        return [unknown(check.name, answer.seen, answer.wanted, answer.next_step)]
    if isinstance(answer, Exception):
        return [unknown(check.name, f"the check itself failed: {type(answer).__name__}: {answer}")]
    return answer
