"""From a load report of one pod to the numbers that an autoscaler wants, with the arithmetic shown. Pure.

Of a report only what is named here is read, so that reports of older and newer versions are understood.
"""

from dataclasses import dataclass, field
from math import ceil, floor
from typing import Literal

from pydantic import BaseModel, Field

from ekiben.errors import UsageError

DOUBLINGS = 2
"""An HPA doubles the pods every 15 s at most; so many times it may have to, from `min` to `max`."""


class _Percentile(BaseModel):
    level: float
    ms: float | None


class _Search(BaseModel):
    objective: str
    rate: float | None
    highest_pass: float | None
    limited_by: str


class _Sample(BaseModel):
    at_s: float
    cpu_percent: float | None = None


class _Load(BaseModel):
    warm_up_s: float = 0.0


class _Report(BaseModel):
    validity: Literal["VALID", "INVALID"]
    reason: str = ""
    settings: _Load = Field(default_factory=_Load)
    achieved_rate: float = 0.0
    percentiles: tuple[_Percentile, ...] = ()
    resources: tuple[_Sample, ...] = ()
    search: _Search | None = None


class _Verdict(BaseModel):
    outcome: str


class Measured(BaseModel):
    """What report.json says, as far as it matters here."""

    kind: Literal["ekiben-load-report"]
    schema_version: Literal[1]
    report: _Report
    verdict: _Verdict

    @property
    def p50_ms(self) -> float | None:
        return next((p.ms for p in self.report.percentiles if p.level == 50), None)

    @property
    def cores(self) -> float | None:
        """Mean CPU of the service over the measured time, in cores."""
        used = [s.cpu_percent for s in self.report.resources if s.at_s >= self.report.settings.warm_up_s]
        known = [percent for percent in used if percent is not None]
        return sum(known) / len(known) / 100 if known else None


@dataclass(frozen=True)
class Advice:
    """`rate` is what a pod bears and `target_rate` what it is to get, in requests/s; `exact` is False where it may bear
    more. `cpu` is the CPU that a pod asks for, in thousandths of a core, 0 where it was not measured. `target` is in
    percent of that CPU, or requests in progress a pod; None where the report gives neither."""

    rate: float
    exact: bool
    target_rate: float
    min: int
    max: int
    kind: Literal["cpu", "in-progress", "none"]
    target: int | None
    cpu: int
    arithmetic: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return "\n".join((*self.arithmetic, "", *self.settings()))

    def settings(self) -> list[str]:
        """The lines for an environment's table in pyproject.toml."""
        target = f", target = {self.target}" if self.target else ""
        lines = [
            f"replicas = {{min = {self.min}, max = {self.max}}}",
            f'autoscaling = {{kind = "{self.kind}"{target}}}',
        ]
        return [*lines, *([f'resources.cpu = "{self.cpu}m"'] if self.cpu else [])]


def advise(measured: Measured, peak: float, headroom: float) -> Advice:
    """For a peak in requests/s, with `headroom` percent of what a pod bears kept free.

    UsageError for a report that says nothing of what a pod bears: INVALID, or failed without a search.
    """
    rate, exact, why = _capacity(measured)
    target_rate = rate * (1 - headroom / 100)
    pods = ceil(peak / target_rate)
    most = pods + 1
    least = min(most, max(2, ceil(most / 2**DOUBLINGS)))
    lines = [
        f"one pod      {'bears' if exact else 'bears at least'} {rate:.1f} requests/s: {why}",
        f"headroom     {rate:.1f} x (1 - {headroom:g} %) = {target_rate:.1f} requests/s a pod",
        f"max          {peak:g} / {target_rate:.1f} = {peak / target_rate:.2f}, so {pods}, and 1 to lose: {most}",
        f"min          {most} / {2**DOUBLINGS}, so that {DOUBLINGS} doublings reach max, and not below 2: {least}",
    ]
    progress, said = _in_progress(measured, target_rate)
    share, cpu, used = _cpu(measured, rate, headroom)
    kind: Literal["cpu", "in-progress", "none"] = "cpu" if share else "in-progress" if progress else "none"
    if kind == "none":
        lines.append("autoscaler   none: measure a service that runs on this machine, so that its CPU is known")
    lines[4:4] = [said, used]
    return Advice(rate, exact, target_rate, least, most, kind, share or progress, cpu, tuple(lines))


def _capacity(measured: Measured) -> tuple[float, bool, str]:
    report, search = measured.report, measured.report.search
    if report.validity == "INVALID":
        raise UsageError(f"the load report is INVALID: {report.reason}", wanted="a valid one; run the load test again")
    if search and search.rate:
        if search.limited_by == "service":
            return search.rate, True, f"the highest rate at which {search.objective} was confirmed"
        return search.rate, False, f"{search.objective} was confirmed, but the search ended by its {search.limited_by}"
    if search and search.highest_pass:
        return search.highest_pass, False, f"single probes held {search.objective}, no long one confirmed it"
    if search or measured.verdict.outcome != "PASS" or report.achieved_rate <= 0:
        seen = f"{measured.verdict.outcome} at {report.achieved_rate:.1f} requests/s"
        raise UsageError(
            f"the load report does not say what a pod bears: {seen}",
            wanted="a rate at which the objectives were met",
            next_step="search for the highest one, or test at a lower rate",
        )
    return report.achieved_rate, False, "it passed; no higher rate was tried, so that this is a LOWER BOUND"


def _in_progress(measured: Measured, rate: float) -> tuple[int | None, str]:
    """By Little's law. The median is below the mean, so that pods are rather started early than late."""
    if (latency := measured.p50_ms) is None:
        return None, "in progress  not known: the report has no median"
    several = rate * latency / 1000
    said = f"in progress  {rate:.1f} requests/s x {latency:g} ms (median) = {several:.2f} a pod"
    if several < 1:
        return None, f"{said}: below 1, too few to tell load from none"
    return floor(several), f"{said}: {floor(several)}"


def _cpu(measured: Measured, rate: float, headroom: float) -> tuple[int | None, int, str]:
    """(percent of the CPU asked for, thousandths of a core to ask for, the arithmetic)"""
    cores, seen = measured.cores, measured.report.achieved_rate
    if not cores or seen <= 0:
        return None, 0, "CPU          not known: the report has no CPU samples"
    full = cores * rate / seen
    asked = max(50, ceil(full * 20) * 50)
    percent = max(1, floor(full * 1000 / asked * (100 - headroom)))
    said = f"CPU          {cores:.2f} cores at {seen:.1f} requests/s, so {full:.2f} at {rate:.1f}: ask for {asked}m"
    return percent, asked, f"{said}, target {full:.2f} / {asked / 1000:g} x (1 - {headroom:g} %) = {percent} %"
