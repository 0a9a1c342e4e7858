"""Whether what gets traffic now is as good as it must be: by fixed limits, and beside what had it before. Pure.

What is not known never passes. What is known to be bad fails at once, even where something else is not known.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ekiben import environments
from ekiben.rollout.metrics import Counted
from ekiben.types import Check, Outcome, Verdict

SURE = 3.3
"""Standard deviations of both sides of a comparison. A watch looks many times; at none may noise fail it."""
FEW_IN_PROGRESS = 4.0
"""Requests in progress a pod that are never too many, whatever they were before."""


@dataclass(frozen=True)
class Window:
    """What was seen of a colour for some time.

    `counted` is what was added in it; `in_progress` the mean per pod, nan where it is not known; `elapsed` the share of
    the watch that is over; `silent` the pods whose metrics cannot be read now, each with the reason; `probes` how many
    golden requests were sent, and `wrong` what was wrong with the answer to one, '' if nothing.
    """

    counted: Counted
    in_progress: float = math.nan
    elapsed: float = 1.0
    restarts: int = 0
    ready: int = 1
    silent: Mapping[str, str] = field(default_factory=dict)
    probes: int = 0
    wrong: str = ""


def judge(settings: environments.Watch, seen: Window, before: Window | None, subject: str) -> Verdict:
    """The verdict at this moment; `before` is what had the traffic, None where too little is known of it.

    Errors fail as soon as they must end above the limit whatever the rest of `min_requests` brings.
    """
    checks = [
        _check("restarts", seen.restarts > 0, f"{seen.restarts} restarts", "none"),
        _check("ready pods", seen.ready == 0, f"{seen.ready} ready pods", "at least 1"),
    ]
    if seen.probes or seen.wrong:
        told = f"{seen.wrong} (probe)" if seen.wrong else f"{seen.probes} probes, no wrong answer"
        checks.append(_check("probes", bool(seen.wrong), told, "the golden answers"))
    few = bool(seen.silent) or not enough(settings, seen)
    checks += _limits(settings, seen, few)
    if before:
        checks += _beside(settings, seen, before, few)
    return Verdict.of(checks, subject)


def enough(settings: environments.Watch, seen: Window) -> bool:
    """Whether there are requests enough to say anything. What is no number is none."""
    return math.isfinite(seen.counted.failed) and settings.min_requests <= seen.counted.requests < math.inf


def _limits(settings: environments.Watch, seen: Window, few: bool) -> list[Check]:
    n, failed, limit = seen.counted.requests, seen.counted.failed, settings.error_percent / 100
    told = f"{failed / n if n else 0.0:.2%} of {n:,.0f} requests failed (5xx)"
    if seen.silent:
        reason = next(iter(seen.silent.values()))
        told += f"; no metrics from {', '.join(seen.silent)}{f' ({reason})' if reason else ''}"
    wanted = f"≤ {settings.error_percent:g} % of at least {settings.min_requests:,}"
    p99 = seen.counted.percentile_ms(99)
    slow = not few and p99 > settings.p99_ms
    said = f"p99 {p99:.0f} ms" if math.isfinite(p99) else "p99 unknown"
    return [
        _check("errors", failed > limit * max(n, settings.min_requests), told, wanted, few),
        _check("p99", slow, said, f"≤ {settings.p99_ms:g} ms", few or not math.isfinite(p99)),
    ]


def _beside(settings: environments.Watch, seen: Window, before: Window, few: bool) -> list[Check]:
    factor, close = settings.worse_than_before, settings.close_enough
    old, new = before.counted, seen.counted
    most = min(1.0, max(close * settings.error_percent / 100, factor * _share(old.failed, old.requests, +SURE)))
    low = _share(new.failed, new.requests, -SURE)
    was = f"{old.failed / old.requests:.2%} of {old.requests:,.0f} failed before"
    checks = [_check("errors beside before", low > most, f"surely ≥ {low:.2%} failed", f"≤ {most:.2%}: {was}", few)]
    if math.isfinite(was_ms := old.percentile_ms(99)):
        slower, n, bound = new.slower(max(close * settings.p99_ms, factor * was_ms) / 1000)
        low = _share(slower, n, -SURE)
        told = f"surely ≥ {low:.1%} took longer than {bound * 1000:.0f} ms"
        checks.append(
            _check("p99 beside before", low > 0.01, told, f"≤ 1 %: p99 was {was_ms:.0f} ms", few or not n > 0)
        )
    if math.isfinite(before.in_progress):
        most, now = max(FEW_IN_PROGRESS, factor * before.in_progress), seen.in_progress
        told = f"{now:.1f} requests in progress a pod" if math.isfinite(now) else "requests in progress unknown"
        wanted = f"≤ {most:.1f}: {before.in_progress:.1f} before"
        bad = now * seen.elapsed > most  # then the mean of the whole watch must end above it
        checks.append(_check("in progress beside before", bad, told, wanted, few or not math.isfinite(now)))
    return checks


def _share(hits: float, n: float, deviations: float) -> float:
    """Wilson's bound of a share, so many standard deviations above or below."""
    if not (n > 0 and math.isfinite(hits)):
        return 0.0 if deviations < 0 else 1.0
    share, square = min(1.0, max(0.0, hits / n)), deviations**2
    middle, spread = share + square / (2 * n), math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return min(1.0, max(0.0, (middle + deviations * spread) / (1 + square / n)))


def _check(name: str, bad: bool, seen: str, wanted: str, unclear: bool = False) -> Check:
    outcome = Outcome.FAIL if bad else Outcome.INCONCLUSIVE if unclear else Outcome.PASS
    return Check(name=name, outcome=outcome, seen=seen, wanted=wanted)
