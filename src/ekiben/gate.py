"""The quality gate: a model's metrics against its recipe's thresholds. Pure."""

import math
from collections.abc import Iterable

from ekiben.recipe import Metrics, Threshold
from ekiben.types import Check, Outcome, Verdict


def judge(
    metrics: Metrics, thresholds: Iterable[Threshold], production: Metrics | None = None, subject: str = ""
) -> Verdict:
    """Compare `metrics` with every threshold; `production` holds the live model's metrics, None while there is none.

    A metric that is missing or not finite makes its check INCONCLUSIVE: what was not measured never passes.
    """
    checks = [check for threshold in thresholds for check in _checks(threshold, metrics, production)]
    return Verdict.of(checks, subject)


def _checks(threshold: Threshold, metrics: Metrics, production: Metrics | None) -> Iterable[Check]:
    name = threshold.metric
    value = metrics.get(name, math.nan)
    if threshold.at_least is not None:
        yield _check(name, value, value >= threshold.at_least, f"≥ {threshold.at_least:g}")
    if threshold.at_most is not None:
        yield _check(name, value, value <= threshold.at_most, f"≤ {threshold.at_most:g}")
    if threshold.no_worse_than_production_by is not None and production is not None:
        live = production.get(name, math.nan)
        allowed = threshold.no_worse_than_production_by
        loss = live - value if threshold.larger_is_better else value - live
        wanted = f"no worse than production's {live:.4f} by more than {allowed:g}"
        # Binary fractions must not decide a tie: 0.97 against 0.98 with 0.01 allowed is no worse than allowed.
        yield _check(name, value if math.isfinite(live) else live, loss <= allowed + 1e-9, wanted)


def _check(name: str, value: float, met: bool, wanted: str) -> Check:
    if not math.isfinite(value):
        return Check(name=name, outcome=Outcome.INCONCLUSIVE, seen=f"{name} was not measured", wanted=wanted)
    return Check(name=name, outcome=Outcome.PASS if met else Outcome.FAIL, seen=f"{name} {value:.4f}", wanted=wanted)
