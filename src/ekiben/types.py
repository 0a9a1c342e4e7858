"""The values that flow through a release. All are immutable, and each holds its predecessor, so that a verdict can
name the exact W&B digest it speaks of. Between steps they travel as JSON (`model_dump_json` / `model_validate_json`).
"""

import math
import re
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    """What load is offered. Open loop: each request has its time whether or not the service keeps up. `closed` alone
    is closed loop: each of `users` sends its next request when its last was answered, so a slow service is asked less,
    and what it would have done to those who were not sent is not seen.
    """

    rate: float = Field(100.0, gt=0, le=100_000, description="Requests offered, in requests/s.")
    arrivals: Literal["poisson", "constant", "closed"] = Field(
        "poisson", description="Random gaps, as from many users; even gaps; or closed loop, by `users`."
    )
    users: int = Field(10, ge=1, le=20_000, description="Users of the closed loop; open loop needs none.")
    profile: tuple[tuple[float, float], ...] = Field(
        (),
        max_length=1_000,
        description="Rate over time instead of `rate`: (s since the warm-up's end, requests/s), linear in between; two "
        "at one time are a step. Warm-up runs at the first rate, what is beyond the last at the last.",
    )
    trace: str = Field(
        "", description="File of recorded arrival times, ascending, in s, one a line, used from its first; no rate."
    )
    warm_up_s: float = Field(3.0, ge=0, le=3600, description="Load that is offered first and not judged, in s.")
    measure_s: float = Field(20.0, gt=0, le=86_400, description="Load that is judged, in s.")
    extend_to_s: float = Field(
        0.0, ge=0, le=86_400, description="An INCONCLUSIVE run is measured on for at most so many s in all; 0: never."
    )
    timeout_s: float = Field(5.0, gt=0, le=600, description="A request not answered in full after this failed, in s.")
    seed: int = Field(1, ge=0, description="Seed of the arrival times: the same seed offers the same load.")
    max_in_flight: int = Field(2_000, ge=1, le=20_000, description="Above this a request is dropped: run is invalid.")
    processes: int = Field(1, ge=1, le=64, description="Locust processes that share the load.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sum((bool(self.profile), bool(self.trace), not self.open_loop)) > 1:
            raise ValueError("a profile, a trace and the closed loop exclude each other")
        times = [at for at, _ in self.profile]
        if any(not 0 <= at < math.inf for at in times) or times != sorted(times):
            raise ValueError("the times of a profile are seconds, 0 or more, and ascend")
        if self.profile and not (
            all(0 <= rate <= 100_000 for _, rate in self.profile) and max(r for _, r in self.profile) > 0
        ):
            raise ValueError("the rates of a profile are between 0 and 100,000 requests/s, and not all are 0")
        return self

    @property
    def open_loop(self) -> bool:
        return self.arrivals != "closed"

    @property
    def longest_s(self) -> float:
        """Measured time in s, when it is extended as far as it may be."""
        return max(self.measure_s, self.extend_to_s)


class Proportion(Value):
    """A share between 0 and 1 with its 95 % bounds."""

    value: float
    lower: float
    upper: float


class Percentile(Value):
    """The latency, in ms from the scheduled time, that `level` percent of the requests kept, with its 95 % bounds.

    A request without a right answer counts as infinitely slow, so that no error makes a percentile better; what is
    infinite is None. `effective_samples` is how many independent requests the upper bound is worth: queueing makes
    neighbours alike. `by_margin` says that these were too few for an upper bound without assumptions: then `upper_ms`
    is the slowest right answer times a factor that grows the fewer there were.
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


class Window(Value):
    """A stretch of the measured time: `at_s` from the start of the run, `seconds` long. Its percentiles are p50, p95
    and p99, each left out where the stretch has too few requests for it; shares are None without any request."""

    at_s: float
    seconds: float
    requests: int
    percentiles: tuple[Percentile, ...] = ()
    error_rate: Proportion | None = None
    achieved: Proportion | None = None


class EndpointReport(Value):
    """What was measured on one endpoint ("POST /predict"); the figures mean what those of the report mean."""

    endpoint: str
    requests: int
    failed: int
    achieved_rate: float
    achieved: Proportion | None = None
    error_rate: Proportion | None = None
    percentiles: tuple[Percentile, ...] = ()

    def percentile(self, level: float) -> Percentile | None:
        return next((p for p in self.percentiles if p.level == level), None)


class Resources(Value):
    """What the service's processes used at one moment, `at_s` from the start of the run; None is not known.

    `cpu_percent` is of one core, `memory_mb` resident in units of 10^6 bytes, `in_progress` requests by `/metrics`.
    """

    at_s: float
    cpu_percent: float | None = None
    memory_mb: float | None = None
    in_progress: float | None = None


class Machine(Value):
    """Where the load came from."""

    cpu: str
    cores: int
    memory_gb: float  # 10^9 bytes
    system: str
    python: str
    ekiben: str
    locust: str


class RatePoint(Value):
    """One probe of a search: what the service did at one offered rate. `ms` is the percentile that is searched for,
    with its 95 % bounds; None: at that rate too few requests got a right answer for it. `held` says whether every
    objective was met as measured, which is less than with confidence."""

    rate: float  # requests/s offered
    seconds: float
    requests: int
    ms: float | None
    lower_ms: float | None
    upper_ms: float | None
    slower: float  # share of the requests that took longer than the limit, or got no right answer
    achieved_rate: float
    error_rate: float
    held: bool
    stage: Literal["bracket", "fit", "confirm"]


class Search(Value):
    """The highest rate that holds the SLO (the knee), and how it was found.

    `rate` is the highest that a long probe confirmed; `knee` where the fitted curve crosses the objective, between
    `lower` and `upper`; `highest_pass` and `lowest_fail` are what single probes of the bracket and the fit saw. All in
    requests/s, None where not found. `sure` says in a sentence what may be relied on.
    """

    objective: str  # the one that decides, such as "p99 ≤ 50 ms"
    limit_ms: float  # its limit
    rate: float | None
    knee: float | None
    lower: float | None
    upper: float | None
    highest_pass: float | None
    lowest_fail: float | None
    limited_by: Literal["service", "generator", "range", "time"]
    sure: str
    seconds: float
    points: tuple[RatePoint, ...]  # in the order in which they were measured


class Difference(Value):
    """How much B's latency differs from A's in one figure ("mean", "p50", "p95" or "p99"), a failure being as slow as
    the time-out.

    `ratio` is B / A, 1.1 for 10 % slower, and `ms` B − A; each with the 95 % interval that the sign-flip test gives.
    `significant` holds for all figures together: where A and B are the same, any is in at most 5 % of comparisons.
    """

    name: str
    a_ms: float
    b_ms: float
    ratio: float
    ratio_lower: float
    ratio_upper: float
    ms: float
    ms_lower: float
    ms_upper: float
    significant: bool


class Comparison(Value):
    """Two releases under the same load in turn: blocks of `block_s`, AB or BA by chance, the first `head_s` of each not
    judged. A is what is there (the live release), B what is to be judged."""

    a: str
    b: str
    settings_hash: str  # of all that must be equal for two comparisons to be comparable
    block_s: float
    head_s: float
    pairs: int
    requests_a: int
    requests_b: int
    failed_a: int
    failed_b: int
    differences: tuple[Difference, ...]
    outcome: Literal["slower", "faster", "mixed", "no difference shown", "too little data"]
    seen: str  # the outcome in a sentence, with figures

    def difference(self, name: str) -> Difference | None:
        return next((d for d in self.differences if d.name == name), None)


class LoadReport(Value):
    """What a load test measured. All figures but the series leave the warm-up out; an INVALID report judges nothing."""

    schema_version: Literal[1] = 1
    validity: Literal["VALID", "INVALID"]
    reason: str = ""  # why it is INVALID
    target_lost: bool = False  # INVALID because the service answered at first, and at the end no more
    subject: BentoRef | ImageRef | None = None
    url: str
    endpoint: str = ""  # such as "POST /predict"
    started: datetime
    settings: LoadPlan
    measured_s: float = 0.0  # in fact, s: other than planned where the run was extended or aborted
    stopped: str = ""  # why the run ended early or was extended
    workers: int = 1  # processes that sent requests
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
    windows: tuple[Window, ...] = ()  # at most 60, in order
    endpoints: tuple[EndpointReport, ...] = ()  # only where there is more than one
    resources: tuple[Resources, ...] = ()
    machine: Machine | None = None
    comparison: Comparison | None = None
    search: Search | None = None
    settings_hash: str = ""  # of all that must be equal for two reports to be comparable
    payload: str = ""  # where the requests came from
    slower: float | None = None  # share of the requests slower than the limit of a search, or failed

    @property
    def valid(self) -> bool:
        return self.validity == "VALID"

    @property
    def bento(self) -> BentoRef | None:
        return self.subject.bento if isinstance(self.subject, ImageRef) else self.subject

    def percentile(self, level: float) -> Percentile | None:
        return next((p for p in self.percentiles if p.level == level), None)
