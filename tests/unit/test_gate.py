"""The gate's arithmetic: each kind of threshold at, below and above its bound, and what was not measured."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben import gate
from ekiben.recipe import Threshold
from ekiben.types import Outcome

SCORES = st.floats(0, 1)


@given(SCORES, SCORES)
def test_absolute_thresholds(value: float, bound: float) -> None:
    least = gate.judge({"m": value}, [Threshold("m", at_least=bound)])
    most = gate.judge({"m": value}, [Threshold("m", at_most=bound)])
    assert (least.outcome is Outcome.PASS) == (value >= bound)
    assert (most.outcome is Outcome.PASS) == (value <= bound)


@pytest.mark.parametrize(
    ("value", "larger_is_better", "outcome"),
    [
        (0.97, True, Outcome.PASS),  # exactly as much worse as is allowed, which binary fractions blur
        (0.9699, True, Outcome.FAIL),
        (0.99, True, Outcome.PASS),
        (0.99, False, Outcome.PASS),
        (0.9901, False, Outcome.FAIL),
        (0.5, False, Outcome.PASS),
    ],
)
def test_no_worse_than_production(value: float, larger_is_better: bool, outcome: Outcome) -> None:
    threshold = Threshold("m", no_worse_than_production_by=0.01, larger_is_better=larger_is_better)
    assert gate.judge({"m": value}, [threshold], {"m": 0.98}).outcome is outcome


def test_the_first_model_has_nothing_to_be_worse_than() -> None:
    thresholds = [Threshold("m", at_least=0.5, no_worse_than_production_by=0.0)]
    assert gate.judge({"m": 0.6}, thresholds, None).outcome is Outcome.PASS
    assert gate.judge({"m": 0.6}, thresholds, {"m": 0.7}).outcome is Outcome.FAIL


@pytest.mark.parametrize("metrics", [{}, {"m": math.nan}, {"m": math.inf}])
def test_what_was_not_measured_never_passes(metrics: dict[str, float]) -> None:
    assert gate.judge(metrics, [Threshold("m", at_least=0.5)]).outcome is Outcome.INCONCLUSIVE
    assert gate.judge({"m": 1.0}, [Threshold("m", no_worse_than_production_by=0.1)], metrics).outcome is (
        Outcome.INCONCLUSIVE
    )


def test_no_threshold_at_all_is_inconclusive() -> None:
    assert gate.judge({"m": 1.0}, []).outcome is Outcome.INCONCLUSIVE


def test_a_failure_names_metric_value_and_threshold() -> None:
    verdict = gate.judge({"accuracy": 0.412}, [Threshold("accuracy", at_least=0.96)], subject="a/b/c:v1")
    assert str(verdict) == "FAIL a/b/c:v1: accuracy 0.4120, wanted ≥ 0.96"
