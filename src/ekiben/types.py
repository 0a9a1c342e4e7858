"""The values that flow through a release. All are immutable, and each holds its predecessor, so that a verdict can
name the exact W&B digest it speaks of. Between steps they travel as JSON (`model_dump_json` / `model_validate_json`).
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ekiben.errors import UsageError

Slot = Literal["blue", "green"]
SLOTS: tuple[Slot, Slot] = ("blue", "green")


def other(slot: Slot) -> Slot:
    return "green" if slot == "blue" else "blue"


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_MODEL_VERSION = re.compile(rf"^(?P<entity>{_PART})/(?P<project>{_PART})/(?P<name>{_PART}):(?P<version>v\d+)$")


class ModelVersion(Value):
    """One version of a model in W&B: `entity/project/name:vN`, never an alias.

    `digest` is W&B's own: 32 hexadecimal digits, the MD5 of the artifact's manifest; empty where not yet known.
    """

    entity: str
    project: str
    name: str
    version: str
    digest: str = Field(default="", pattern=r"^([0-9a-f]{32})?$")

    @classmethod
    def parse(cls, text: str, digest: str = "") -> Self:
        match = _MODEL_VERSION.match(text)
        if match is None:
            raise UsageError(
                f"not a model version: {text!r}",
                wanted="entity/project/name:vN, for example acme/vision/digits:v3",
                next_step="resolve an alias such as :production first; only versions are exact",
            )
        return cls(**match.groupdict(), digest=digest)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.name}:{self.version}"


class BentoRef(Value):
    """One Bento in the local BentoML store. `digest` (sha256, hexadecimal) is computed from what the Bento does."""

    name: str
    version: str
    digest: str
    model: ModelVersion

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def __str__(self) -> str:
        return self.tag


class Release(Value):
    """A Bento that was put live in a slot: what, where, judged by which load report, when (UTC) and by whom."""

    service: str
    slot: Slot
    bento: BentoRef
    load_report: str = ""  # path or address of the JSON report
    time: datetime
    by: str


class Outcome(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"

    @property
    def exit_code(self) -> int:
        return {"PASS": 0, "FAIL": 10, "INCONCLUSIVE": 11, "ERROR": 12}[self.value]


class Check(Value):
    """One thing that was judged. `seen` and `wanted` are complete phrases with their units, ready to print."""

    name: str
    outcome: Outcome
    seen: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}, wanted {self.wanted}"


class Verdict(Value):
    """What a judge concluded. The worst check decides; no check at all is INCONCLUSIVE, because missing data never
    passes."""

    outcome: Outcome
    checks: tuple[Check, ...] = ()
    subject: str = ""  # what it speaks of: a model version, a Bento, a release

    @classmethod
    def of(cls, checks: list[Check], subject: str = "") -> Self:
        worst = [Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
        outcomes = {check.outcome for check in checks} or {Outcome.INCONCLUSIVE}
        return cls(outcome=next(o for o in worst if o in outcomes), checks=tuple(checks), subject=subject)

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASS

    def __str__(self) -> str:
        """One line: the outcome, then every check that did not pass."""
        unmet = [str(check) for check in self.checks if check.outcome is not Outcome.PASS]
        detail = "; ".join(unmet) if unmet else f"{len(self.checks)} checks" if self.checks else "nothing was measured"
        about = f" {self.subject}" if self.subject else ""
        return f"{self.outcome}{about}: {detail}"


class Probe(Value):
    """What a steady prober saw while traffic was switched. `worst_ms` is the longest answer, in milliseconds."""

    requests: int
    failed: int
    worst_ms: float
    first_failure: str = ""

    def __add__(self, later: "Probe") -> "Probe":
        return Probe(
            requests=self.requests + later.requests,
            failed=self.failed + later.failed,
            worst_ms=max(self.worst_ms, later.worst_ms),
            first_failure=self.first_failure or later.first_failure,
        )
