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
_MODEL_VERSION = re.compile(rf"(?P<entity>{_PART})/(?P<project>{_PART})/(?P<name>{_PART}):(?P<version>v\d+)")


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
        match = _MODEL_VERSION.fullmatch(text)
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


class ImageRef(Value):
    """One OCI image of a Bento. `digest` ("sha256:…") is that of its manifest: in the registry once it was pushed."""

    repository: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    bento: BentoRef

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"


class Release(Value):
    """A Bento that was put live in a slot: what, where, judged by which load report, when (UTC) and by whom."""

    service: str
    slot: Slot
    bento: BentoRef
    image: str = ""  # REPOSITORY@sha256:…, where it was delivered as an image
    load_report: str = ""  # path or address of the JSON report
    time: datetime
    by: str
    run: str = ""  # the workflow run that made it


class Outcome(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"

    @property
    def exit_code(self) -> int:
        return {"PASS": 0, "FAIL": 10, "INCONCLUSIVE": 11, "ERROR": 12}[self.value]


class Check(Value):
    """One thing that was judged. `seen` and `wanted` are phrases with their units: "p99 412 ms" and "≤ 300 ms"."""

    name: str
    outcome: Outcome
    seen: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.seen}, wanted {self.wanted}"


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
        passed = f"{len(self.checks)} {'check' if len(self.checks) == 1 else 'checks'} passed"
        detail = "; ".join(unmet) if unmet else passed if self.checks else "nothing was measured"
        about = f" {self.subject}" if self.subject else ""
        return f"{self.outcome}{about}: {detail}"


class Probe(Value):
    """What a steady prober saw while traffic was switched. `worst_ms` is the longest answer, in milliseconds.

    `reconnects` counts requests that went out on a kept connection just as its other end closed it, and were answered
    on a new one; every HTTP client does this unseen, so they are no failures.
    """

    requests: int
    failed: int
    worst_ms: float
    first_failure: str = ""
    reconnects: int = 0

    def __add__(self, later: "Probe") -> "Probe":
        return Probe(
            requests=self.requests + later.requests,
            failed=self.failed + later.failed,
            worst_ms=max(self.worst_ms, later.worst_ms),
            first_failure=self.first_failure or later.first_failure,
            reconnects=self.reconnects + later.reconnects,
        )


class LoadPlan(Value):
    """What load is offered: open loop, so each request has its time whether or not the service keeps up."""

    rate: float = Field(100.0, gt=0, le=100_000, description="Requests offered, in requests/s.")
    arrivals: Literal["poisson", "constant"] = Field("poisson", description="Random gaps, as from many users, or even.")
    warm_up_s: float = Field(3.0, ge=0, le=3600, description="Load that is offered first and not judged, in s.")
    measure_s: float = Field(20.0, gt=0, le=86_400, description="Load that is judged, in s.")
    timeout_s: float = Field(5.0, gt=0, le=600, description="A request not answered in full after this failed, in s.")
    seed: int = Field(1, ge=0, description="Seed of the arrival times: the same seed offers the same load.")
    max_in_flight: int = Field(2_000, ge=1, le=20_000, description="Above this a request is dropped: run is invalid.")


class Proportion(Value):
    """A share between 0 and 1 with its 95 % bounds."""

    value: float
    lower: float
    upper: float


class Percentile(Value):
    """The latency, in ms from the scheduled time, that `level` percent of the requests kept, with its 95 % bounds.

    A request without a right answer counts as infinitely slow, so that no error makes a percentile better; what is
    infinite is None. `effective_samples` is how many independent requests the bounds are worth: queueing makes
    neighbours alike. `by_margin` says that these were too few for an upper bound without assumptions: then `upper_ms`
    is twice the slowest right answer.
    """

    level: float
    ms: float | None
    lower_ms: float | None
    upper_ms: float | None
    effective_samples: int
    by_margin: bool = False


class ErrorKind(Value):
    """How many requests failed in one way, and what one of them saw."""

    kind: str
    count: int
    example: str


class Second(Value):
    """One second of the run: `at_s` from its start. Latencies are of the right answers only, None without any."""

    at_s: int
    warm_up: bool
    offered: int
    completed: int
    errors: int
    in_flight: int
    p50_ms: float | None
    p99_ms: float | None


class LoadReport(Value):
    """What a load test measured. All figures but the series leave the warm-up out; an INVALID report judges nothing."""

    schema_version: Literal[1] = 1
    validity: Literal["VALID", "INVALID"]
    reason: str = ""  # why it is INVALID
    subject: BentoRef | None = None
    url: str
    endpoint: str = ""  # such as "POST /predict"
    started: datetime
    settings: LoadPlan
    requests: int = 0
    failed: int = 0
    dropped: int = 0
    offered_rate: float = 0.0  # requests/s
    achieved_rate: float = 0.0  # right answers/s that came before the end of the measured time
    achieved: Proportion | None = None  # the same, as a share of what was offered
    error_rate: Proportion | None = None
    percentiles: tuple[Percentile, ...] = ()
    lag_p99_ms: float = 0.0  # how late the generator itself started requests
    lag_max_ms: float = 0.0
    errors: tuple[ErrorKind, ...] = ()
    series: tuple[Second, ...] = ()

    @property
    def valid(self) -> bool:
        return self.validity == "VALID"

    def percentile(self, level: float) -> Percentile | None:
        return next((p for p in self.percentiles if p.level == level), None)
