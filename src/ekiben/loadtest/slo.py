"""Service-level objectives: what `loadtests/slo.toml` and `--slo` say, and whether a load report meets it. Pure.

A check passes only when the bound on its bad side is within the objective, and fails only when the other bound is
beyond it; in between the run knows too little: INCONCLUSIVE. An INVALID report is an ERROR whatever its figures are.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.arrivals import measured, schedule
from ekiben.loadtest.phrases import change, ms, percent, percent_range
from ekiben.loadtest.plans import plan_of, quantity
from ekiben.loadtest.statistics import min_samples_percentile, min_samples_proportion
from ekiben.types import Check, EndpointReport, LoadPlan, LoadReport, Outcome, Percentile, Value, Verdict

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
SHARES = ("error_rate", "achieved_rate")
VS_LIVE = "_vs_live"
COMPARED = ("mean", "p50", "p95", "p99")
ALLOWED = (
    "p50, p95, p99 or p99.9 with ms or s (p99=300ms), error_rate or achieved_rate with % (error_rate=0.5%), "
    "mean_vs_live, p50_vs_live, p95_vs_live or p99_vs_live with both (p95_vs_live=10% and 5ms)"
)

_ENDPOINT = re.compile(r"[A-Z]+ /\S*")


class Allowance(Value):
    """By how much a release may be slower than the live one: it is too slow if by more than both.

    `share` of the live release's latency (0.1 for 10 %), `ms` on top of it.
    """

    share: float
    ms: float


class Slo(Value):
    """Objectives by name: percentiles in ms, shares between 0 and 1; `relative` to the live release by figure ("p99");
    `endpoints` hold further ones for each endpoint ("POST /predict")."""

    objectives: dict[str, float] = Field(default_factory=dict)
    relative: dict[str, Allowance] = Field(default_factory=dict)
    endpoints: dict[str, dict[str, float]] = Field(default_factory=dict)

    @classmethod
    def of(cls, texts: Iterable[str], origin: str = "") -> Self:
        """`["p99=300ms", "p95_vs_live=10% and 5ms"]`; UsageError for what is no objective."""
        objectives: dict[str, float] = {}
        relative: dict[str, Allowance] = {}
        for text in texts:
            name = text.partition("=")[0].strip()
            if name.endswith(VS_LIVE):
                relative[name.removesuffix(VS_LIVE)] = _allowance(text, origin)
            else:
                objectives.update([parse(text, origin)])
        return cls(objectives=objectives, relative=relative)

    def __or__(self, later: Self) -> Self:
        """Both, and of what both name the later."""
        endpoints = {
            name: self.endpoints.get(name, {}) | later.endpoints.get(name, {})
            for name in (*self.endpoints, *later.endpoints)
        }
        return type(self)(
            objectives=self.objectives | later.objectives,
            relative=self.relative | later.relative,
            endpoints=endpoints,
        )

    def require(self, plan: LoadPlan, shares: Mapping[str, float] | None = None) -> None:
        """UsageError when the plan's run, extended as far as it may be, cannot prove an objective, however well the
        service does.

        `shares` of the requests that go to each endpoint, where that is known. How many requests a closed loop will
        send is not known before; it is judged by as many as they were.
        """
        for endpoint in self.endpoints if shares is not None else ():
            if not (shares or {}).get(endpoint):
                raise UsageError(
                    f"there are objectives for {endpoint}, but the load sends nothing there",
                    wanted=f"one of {', '.join(sorted(shares or {}))}",
                )
        for endpoint, objectives in {"": self.objectives, **self.endpoints}.items():
            share = (shares or {}).get(endpoint, 1.0)
            for name, limit in objectives.items():
                if plan.open_loop:
                    _require(plan, endpoint, share, name, limit)
                elif name == "achieved_rate":
                    raise UsageError(
                        "a closed loop offers no rate of its own: achieved_rate cannot be judged",
                        next_step='leave the objective out, or set arrivals = "poisson"',
                    )


@lru_cache(maxsize=4)
def offered(plan: LoadPlan) -> int:
    """Requests that an open loop offers in its measured time, extended as far as it may be."""
    return int(measured(plan, schedule(plan, plan.longest_s)).sum())


def read(path: Path, overrides: Sequence[str] = (), service: str = "") -> tuple[Slo, LoadPlan]:
    """The objectives and the load of an slo.toml, with `name=value` overrides; UsageError for what is wrong in them.

    [slo] holds for every service; [slo.NAME] adds to it for that service, and [slo.NAME."POST /predict"] for one of
    its endpoints.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"no {path}", next_step="create it with a [load] and an [slo] table") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    if unknown := sorted(set(document) - {"load", "slo"}):
        raise UsageError(f"{path}: unknown table {unknown[0]!r}", wanted="[load] and [slo]")
    for name in ("load", "slo"):
        if not isinstance(document.get(name, {}), dict):
            raise UsageError(f"{path}: {name!r} is no table", wanted=f"[{name}]")
    table = document.get("slo", {})
    services = {name: _service(name, part, path) for name, part in table.items() if isinstance(part, dict)}
    slo = _table(table, f"{path}: ") | services.get(service, Slo()) | Slo.of(overrides, "--slo ")
    if not (slo.objectives or slo.relative or any(slo.endpoints.values())):
        raise UsageError(f"{path} has no objective", wanted=f"[slo] with at least one of {ALLOWED}")
    return slo, plan_of(document.get("load", {}), path)


def parse(text: str, origin: str = "") -> tuple[str, float]:
    """`p99=1ms` -> ("p99", 1.0), `error_rate=0.1%` -> ("error_rate", 0.001)."""
    name, _, given = (part.strip() for part in text.partition("="))
    amount, unit = quantity(given) or (0.0, "")
    if name in PERCENTILES and unit in ("ms", "s"):
        limit = amount * (1000 if unit == "s" else 1)
        if 0 < limit < math.inf:
            return name, limit
    if name in SHARES and unit == "%" and 0 < amount / 100 < 1:
        return name, amount / 100
    raise UsageError(f"{origin}{text!r} is not an objective", wanted=ALLOWED)


def describe(name: str, limit: float) -> str:
    """`p99 ≤ 300 ms`."""
    if name in PERCENTILES:
        return f"{name} ≤ {limit:g} ms"
    relation = "≥" if name == "achieved_rate" else "≤"
    return f"{name.replace('_', ' ')} {relation} {percent(limit)}"


def needed(name: str, limit: float) -> int:
    """Fewest requests that can prove the objective."""
    if name in PERCENTILES:
        return min_samples_percentile(PERCENTILES[name])
    return min_samples_proportion(limit if name == "error_rate" else 1 - limit)


def judge(report: LoadReport, slo: Slo, *, live: bool = True) -> Verdict:
    """One check for the run's validity and one for each objective. `live`: whether there is a live release; without
    one there is nothing to be slower than."""
    checks = [_validity(report)]
    where = f" on {report.endpoint}" if report.endpoint else ""
    for name, limit in slo.objectives.items():
        checks.append(_check(report, report, name, limit, where, name))
    for endpoint, objectives in slo.endpoints.items():
        for name, limit in objectives.items():
            checks.append(_check(report, _part(report, endpoint), name, limit, f" on {endpoint}", f"{name} {endpoint}"))
    checks += [_check_live(report, name, allowed, live) for name, allowed in slo.relative.items()]
    return Verdict.of(checks, subject=str(report.subject or report.url))


def _service(name: str, table: dict[str, Any], path: Path) -> Slo:
    if _ENDPOINT.fullmatch(name):
        raise UsageError(f"{path}: [slo.{name!r}] is for no service", wanted=f'[slo.NAME."{name}"]')
    endpoints = {}
    for endpoint, part in table.items():
        if isinstance(part, dict):
            origin = f'{path}: [slo.{name}."{endpoint}"] '
            if not _ENDPOINT.fullmatch(endpoint):
                raise UsageError(f"{origin}is for no endpoint", wanted='a method and a route, such as "POST /predict"')
            found = _table(part, origin)
            if found.relative or any(isinstance(value, dict) for value in part.values()):
                raise UsageError(f"{origin}holds more than limits", wanted="p50, p95, p99, p99.9 and rates")
            endpoints[endpoint] = found.objectives
    return _table(table, f"{path}: [slo.{name}] ").model_copy(update={"endpoints": endpoints})


def _table(table: dict[str, Any], origin: str) -> Slo:
    return Slo.of((f"{name}={value}" for name, value in table.items() if not isinstance(value, dict)), origin)


def _allowance(text: str, origin: str) -> Allowance:
    name, _, given = (part.strip() for part in text.partition("="))
    found = [quantity(part) for part in given.split(" and ")]
    amounts = {"%" if part[1] == "%" else "time": part for part in found if part}
    if name.removesuffix(VS_LIVE) in COMPARED and len(found) == len(amounts) == 2:
        share, (amount, unit) = amounts["%"][0] / 100, amounts["time"]
        extra = amount * (1000 if unit == "s" else 1)
        if max(share, extra) < math.inf:
            return Allowance(share=share, ms=extra)
    raise UsageError(f"{origin}{text!r} is not an objective", wanted=ALLOWED)


def _require(plan: LoadPlan, endpoint: str, share: float, name: str, limit: float) -> None:
    count, fewest = int(offered(plan) * share), needed(name, limit)
    if count >= fewest:
        return
    where = f" to {endpoint}" if endpoint else ""
    rate = plan.profile[-1][1] if plan.profile else plan.rate
    # Poisson arrivals vary in number: four standard deviations leave room.
    missing = (fewest + 4 * math.sqrt(fewest)) / share
    missing -= offered(plan) if plan.profile else plan.rate * plan.longest_s
    if plan.trace or not rate:
        advice = "offer more requests"
    else:
        advice = f"measure for {math.ceil(plan.longest_s + missing / rate)} s or more"
    at = "" if plan.trace or plan.profile else f" at {plan.rate:g} requests/s"
    raise UsageError(
        f"a run of {plan.longest_s:g} s{at} has {count:,} requests{where}: too few to prove {describe(name, limit)}",
        wanted=f"at least {fewest:,} requests{where}",
        next_step=f"{advice} ([load] duration, or extend_to, in slo.toml), or ask for less",
    )


def _part(report: LoadReport, endpoint: str) -> LoadReport | EndpointReport | None:
    if report.endpoint == endpoint:
        return report
    return next((part for part in report.endpoints if part.endpoint == endpoint), None)


def _validity(report: LoadReport) -> Check:
    wanted = "a run that kept its schedule to the end"
    if not report.valid:
        return Check(name="validity", outcome=Outcome.ERROR, seen=f"INVALID: {report.reason}", wanted=wanted)
    seen = f"VALID: requests started at most {report.lag_max_ms:.0f} ms late (p99 {report.lag_p99_ms:.1f} ms)"
    return Check(name="validity", outcome=Outcome.PASS, seen=seen, wanted=wanted)


def _check(
    report: LoadReport, part: LoadReport | EndpointReport | None, name: str, limit: float, where: str, called: str
) -> Check:
    outcome, seen = Outcome.INCONCLUSIVE, f"{name.replace('_', ' ')} unknown: no requests"
    if part is not None and part.requests:
        outcome, seen = _judge(part, report, name, limit)
    if not report.valid:
        outcome = Outcome.INCONCLUSIVE
    return Check(name=called, outcome=outcome, seen=seen, wanted=describe(name, limit) + where)


def _judge(part: LoadReport | EndpointReport, report: LoadReport, name: str, limit: float) -> tuple[Outcome, str]:
    if name in PERCENTILES:
        return _judge_percentile(part, name, limit)
    share = part.error_rate if name == "error_rate" else part.achieved
    if share is None:
        return Outcome.INCONCLUSIVE, f"{name.replace('_', ' ')} unknown: not in the report"
    bounds = f"95% bounds {percent_range(share.lower, share.upper)}, n={part.requests:,}"
    if name == "error_rate":
        seen = f"error rate {percent(share.value)} ({part.failed:,} failed; {bounds})"
        return _outcome(share.upper <= limit, share.lower > limit), seen
    rate = report.offered_rate * part.requests / report.requests
    seen = f"achieved rate {percent(share.value)} ({part.achieved_rate:.1f} of {rate:.1f} requests/s; {bounds})"
    return _outcome(share.lower >= limit, share.upper < limit), seen


def _judge_percentile(part: LoadReport | EndpointReport, name: str, limit: float) -> tuple[Outcome, str]:
    found = part.percentile(PERCENTILES[name])
    if found is None:
        needed = min_samples_percentile(PERCENTILES[name])
        return Outcome.INCONCLUSIVE, f"{name} unknown: {part.requests:,} requests, at least {needed:,} are needed"
    passed = found.upper_ms is not None and found.upper_ms <= limit
    failed = found.lower_ms is None or found.lower_ms > limit
    return _outcome(passed, failed), _seen(name, found, part)


def _seen(name: str, found: Percentile, part: LoadReport | EndpointReport) -> str:
    sample = f"n={part.requests:,}, worth {found.effective_samples:,} independent"
    if found.ms is None:
        return f"no {name}: {part.failed:,} of {part.requests:,} requests got no right answer ({sample})"
    margin = ", the upper by margin" if found.by_margin else ""
    return f"{name} {ms(found.ms)} ms (95% bounds {ms(found.lower_ms)}–{ms(found.upper_ms)} ms{margin}, {sample})"


def _check_live(report: LoadReport, name: str, allowed: Allowance, live: bool) -> Check:
    wanted = f"{name} not slower than live by more than {percent(allowed.share)} and {allowed.ms:g} ms"
    outcome = Outcome.INCONCLUSIVE
    found = report.comparison.difference(name) if report.comparison else None
    if not live:
        outcome, seen = Outcome.PASS, "there is no live release"
    elif found is None:
        why = "too little was measured" if report.comparison else "it was not compared with the live release"
        seen = f"{name} against live unknown: {why}"
    else:
        outcome = _outcome(
            found.ratio_upper <= 1 + allowed.share or found.ms_upper <= allowed.ms,
            found.ratio_lower > 1 + allowed.share and found.ms_lower > allowed.ms,
        )
        seen = (
            f"{name} {ms(found.b_ms)} ms, live {ms(found.a_ms)} ms: {change(found.ratio - 1)} "
            f"(95% interval {change(found.ratio_lower - 1)} to {change(found.ratio_upper - 1)}, "
            f"{found.ms_lower:+.3g} to {found.ms_upper:+.3g} ms)"
        )
    return Check(
        name=f"{name}{VS_LIVE}", outcome=outcome if report.valid else Outcome.INCONCLUSIVE, seen=seen, wanted=wanted
    )


def _outcome(passed: bool, failed: bool) -> Outcome:
    return Outcome.PASS if passed else Outcome.FAIL if failed else Outcome.INCONCLUSIVE
