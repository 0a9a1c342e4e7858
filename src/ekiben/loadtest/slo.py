"""Service-level objectives: what `loadtests/slo.toml` and `--slo` say, and whether a load report meets it. Pure.

A check passes only when the bound on its bad side is within the objective, and fails only when the other bound is
beyond it; in between the run knows too little: INCONCLUSIVE. An INVALID report is an ERROR whatever its figures are.
"""

import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.arrivals import measured, schedule
from ekiben.loadtest.phrases import ms, percent, percent_range
from ekiben.loadtest.statistics import min_samples_percentile, min_samples_proportion
from ekiben.types import Check, LoadPlan, LoadReport, Outcome, Percentile, Value, Verdict

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
SHARES = ("error_rate", "achieved_rate")
ALLOWED = "p50, p95, p99 or p99.9 with ms or s (p99=300ms), error_rate or achieved_rate with % (error_rate=0.5%)"
LOAD_KEYS = "rate, arrivals, warm_up, duration, timeout, seed, max_in_flight"

_QUANTITY = re.compile(r"^\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|%)\s*$")


class Slo(Value):
    """Objectives by name, at least one: percentiles in ms, shares between 0 and 1."""

    objectives: dict[str, float]

    def require(self, plan: LoadPlan) -> None:
        """UsageError when the plan's run is too short to prove an objective, however well the service does."""
        count = int(measured(plan, schedule(plan)).sum())
        for name, limit in self.objectives.items():
            needed = _needed(name, limit)
            if count < needed:
                raise UsageError(
                    f"a run of {plan.measure_s:g} s at {plan.rate:g} requests/s has {count:,} requests: "
                    f"too few to prove {describe(name, limit)}",
                    wanted=f"at least {needed:,} requests",
                    # Poisson arrivals vary in number: four standard deviations leave room.
                    next_step=f"measure for {math.ceil((needed + 4 * math.sqrt(needed)) / plan.rate)} s or more "
                    "([load] duration in slo.toml), or ask for less",
                )


def read(path: Path, overrides: Sequence[str] = ()) -> tuple[Slo, LoadPlan]:
    """The objectives and the load of an slo.toml, with `name=value` overrides; UsageError for what is wrong in them."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"no {path}", next_step="create it with a [load] and an [slo] table") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    if unknown := sorted(set(document) - {"load", "slo"}):
        raise UsageError(f"{path}: unknown table {unknown[0]!r}", wanted="[load] and [slo]")
    objectives = dict(parse(f"{name}={value}", origin=f"{path}: ") for name, value in document.get("slo", {}).items())
    objectives.update(parse(override, origin="--slo ") for override in overrides)
    if not objectives:
        raise UsageError(f"{path} has no objective", wanted=f"[slo] with at least one of {ALLOWED}")
    return Slo(objectives=objectives), _plan(document.get("load", {}), path)


def parse(text: str, origin: str = "") -> tuple[str, float]:
    """`p99=1ms` -> ("p99", 1.0), `error_rate=0.1%` -> ("error_rate", 0.001)."""
    name, _, given = (part.strip() for part in text.partition("="))
    match = _QUANTITY.match(given)
    unit = match[2] if match else ""
    if match and name in PERCENTILES and unit in ("ms", "s"):
        limit = float(match[1]) * (1000 if unit == "s" else 1)
        if 0 < limit < math.inf:
            return name, limit
    if match and name in SHARES and unit == "%":
        limit = float(match[1]) / 100
        if 0 < limit < 1:
            return name, limit
    raise UsageError(f"{origin}{text!r} is not an objective", wanted=ALLOWED)


def describe(name: str, limit: float) -> str:
    """`p99 ≤ 300 ms`."""
    if name in PERCENTILES:
        return f"{name} ≤ {limit:g} ms"
    relation = "≥" if name == "achieved_rate" else "≤"
    return f"{name.replace('_', ' ')} {relation} {percent(limit)}"


def judge(report: LoadReport, slo: Slo) -> Verdict:
    """One check for the run's validity and one for each objective."""
    checks = [_validity(report)]
    for name, limit in slo.objectives.items():
        outcome, seen = _judge(report, name, limit)
        if not report.valid and outcome is not Outcome.ERROR:
            outcome = Outcome.INCONCLUSIVE
        where = f" on {report.endpoint}" if report.endpoint else ""
        checks.append(Check(name=name, outcome=outcome, seen=seen, wanted=describe(name, limit) + where))
    return Verdict.of(checks, subject=str(report.subject or report.url))


def _validity(report: LoadReport) -> Check:
    wanted = "a run that kept its schedule to the end"
    if not report.valid:
        return Check(name="validity", outcome=Outcome.ERROR, seen=f"INVALID: {report.reason}", wanted=wanted)
    seen = f"VALID: requests started at most {report.lag_max_ms:.0f} ms late (p99 {report.lag_p99_ms:.1f} ms)"
    return Check(name="validity", outcome=Outcome.PASS, seen=seen, wanted=wanted)


def _judge(report: LoadReport, name: str, limit: float) -> tuple[Outcome, str]:
    if name in PERCENTILES:
        return _judge_percentile(report, name, limit)
    share = report.error_rate if name == "error_rate" else report.achieved
    if share is None:
        return Outcome.INCONCLUSIVE, f"{name.replace('_', ' ')} unknown: no requests"
    bounds = f"95% bounds {percent_range(share.lower, share.upper)}, n={report.requests:,}"
    if name == "error_rate":
        seen = f"error rate {percent(share.value)} ({report.failed:,} failed; {bounds})"
        return _outcome(share.upper <= limit, share.lower > limit), seen
    seen = (
        f"achieved rate {percent(share.value)} ({report.achieved_rate:.1f} of {report.offered_rate:.1f} "
        f"requests/s; {bounds})"
    )
    return _outcome(share.lower >= limit, share.upper < limit), seen


def _judge_percentile(report: LoadReport, name: str, limit: float) -> tuple[Outcome, str]:
    found = report.percentile(PERCENTILES[name])
    if found is None:
        needed = min_samples_percentile(PERCENTILES[name])
        return Outcome.INCONCLUSIVE, f"{name} unknown: {report.requests:,} requests, at least {needed:,} are needed"
    passed = found.upper_ms is not None and found.upper_ms <= limit
    failed = found.lower_ms is None or found.lower_ms > limit
    return _outcome(passed, failed), _seen(name, found, report)


def _seen(name: str, found: Percentile, report: LoadReport) -> str:
    sample = f"n={report.requests:,}, worth {found.effective_samples:,} independent"
    if found.ms is None:
        return f"no {name}: {report.failed:,} of {report.requests:,} requests got no right answer ({sample})"
    margin = ", the upper by margin" if found.by_margin else ""
    return f"{name} {ms(found.ms)} ms (95% bounds {ms(found.lower_ms)}–{ms(found.upper_ms)} ms{margin}, {sample})"


def _outcome(passed: bool, failed: bool) -> Outcome:
    return Outcome.PASS if passed else Outcome.FAIL if failed else Outcome.INCONCLUSIVE


def _needed(name: str, limit: float) -> int:
    if name in PERCENTILES:
        return min_samples_percentile(PERCENTILES[name])
    return min_samples_proportion(limit if name == "error_rate" else 1 - limit)


def _plan(table: dict[str, Any], path: Path) -> LoadPlan:
    durations = {"warm_up": "warm_up_s", "duration": "measure_s", "timeout": "timeout_s"}
    fields: dict[str, Any] = {}
    for key, value in table.items():
        if key in durations:
            fields[durations[key]] = _seconds(value, f"{path}: [load] {key}")
        elif key in ("rate", "arrivals", "seed", "max_in_flight"):
            fields[key] = value
        else:
            raise UsageError(f"{path}: [load] has no {key!r}", wanted=f"one of {LOAD_KEYS}")
    try:
        return LoadPlan(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{path}: [load] {first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None


def _seconds(value: Any, where: str) -> float:
    match = _QUANTITY.match(value) if isinstance(value, str) else None
    if match is None or match[2] == "%":
        raise UsageError(f"{where} = {value!r}", wanted='a time with its unit, such as "20s" or "500ms"')
    return float(match[1]) / (1000 if match[2] == "ms" else 1)
