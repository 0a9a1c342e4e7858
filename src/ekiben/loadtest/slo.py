"""Service-level objectives: what `loadtests/slo.toml` and `--slo` say. Whether they are met is judging.py's."""

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
from ekiben.loadtest.phrases import percent
from ekiben.loadtest.plans import plan_of, quantity
from ekiben.loadtest.statistics import min_samples_percentile, min_samples_proportion
from ekiben.types import LoadPlan, Value

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
