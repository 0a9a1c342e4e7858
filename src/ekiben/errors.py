"""The errors a user can meet, each with an exit code and a next step.

EkibenError                 1   something failed; the message says what
├── UsageError              2   the command line, a parameter or the configuration is wrong
├── NotFoundError           3   a model, Bento, recipe, workflow or release that is not there
├── UnavailableError        4   a server or process does not answer
├── IntegrityError          5   bytes are not what their digest says
├── ConflictError           6   somebody else changed the same thing meanwhile
├── UnsupportedError        7   a document asks for what this engine does not do
├── StepError               8   a pipeline step failed for a reason of its own
└── NotPassedError         10   a verdict other than PASS stopped the release
                                (10 FAIL, 11 INCONCLUSIVE, 12 ERROR)
"""

from typing import Any


class EkibenError(Exception):
    """Base of all errors that are shown to a person without a traceback.

    `seen` is what happened; `wanted` what should have been; `next_step` what to do about it.
    """

    exit_code = 1

    def __init__(self, seen: str, *, wanted: str = "", next_step: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.wanted = wanted
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.seen]
        if self.wanted:
            lines.append(f"wanted: {self.wanted}")
        if self.next_step:
            lines.append(f"next:   {self.next_step}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for a machine; `kind` is the name of the class."""
        told = {"seen": self.seen, "wanted": self.wanted, "next_step": self.next_step, "exit_code": self.exit_code}
        return {"error": {"kind": type(self).__name__, **told}}


class UsageError(EkibenError):
    exit_code = 2


class NotFoundError(EkibenError):
    exit_code = 3


class UnavailableError(EkibenError):
    exit_code = 4


class IntegrityError(EkibenError):
    exit_code = 5


class ConflictError(EkibenError):
    exit_code = 6


class UnsupportedError(EkibenError):
    exit_code = 7


class StepError(EkibenError):
    exit_code = 8


class NotPassedError(EkibenError):
    exit_code = 10
