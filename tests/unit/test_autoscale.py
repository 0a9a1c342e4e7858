"""Advice from a load report: the arithmetic, what it claims and what it does not."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import UsageError
from ekiben.report.write import Document
from ekiben.rollout.autoscale import Advice, Measured, advise
from ekiben.types import Check, LoadPlan, LoadReport, Outcome, Percentile, Verdict

P50 = Percentile(level=50, ms=20.0, lower_ms=19.0, upper_ms=21.0, effective_samples=500)
REPORT = LoadReport(
    validity="VALID", url="http://127.0.0.1:3000", started=datetime(2026, 1, 1, tzinfo=UTC),
    settings=LoadPlan(rate=100), requests=2000, achieved_rate=100.0, percentiles=(P50,),
)  # fmt: skip
PASSED = Verdict.of([Check(name="p99", outcome=Outcome.PASS, seen="p99 40 ms", wanted="≤ 50 ms")])
FOUND = {"objective": "p99 ≤ 50 ms", "rate": 200.0, "highest_pass": 210.0, "limited_by": "service"}
SAMPLES = [{"at_s": at, "cpu_percent": 10.0 if at < 3 else 40.0} for at in range(20)] + [{"at_s": 9.5}]


def measured(passed: bool = True, **changes: Any) -> Measured:
    verdict = PASSED if passed else PASSED.model_copy(update={"outcome": Outcome.FAIL})
    document = json.loads(Document(report=REPORT, verdict=verdict).model_dump_json())
    document["report"] |= changes
    return Measured.model_validate(document)


def test_a_report_without_a_search_is_a_lower_bound() -> None:
    advice = advise(measured(), peak=500, headroom=30)
    assert (advice.rate, advice.exact, advice.target_rate) == (100, False, 70)
    assert (advice.min, advice.max) == (3, 9)  # 500 / 70 = 7.14: 8 and 1; 9 / 4: 3
    assert (advice.kind, advice.target, advice.cpu) == ("in-progress", 1, 0)  # 70/s x 20 ms = 1.4
    assert "LOWER BOUND" in str(advice)
    assert "at least 100.0" in str(advice)


def test_a_search_that_the_service_ended_gives_the_knee() -> None:
    advice = advise(measured(search=FOUND, achieved_rate=200.0, resources=SAMPLES), peak=500, headroom=50)
    assert (advice.rate, advice.exact, advice.max, advice.min) == (200, True, 6, 2)
    assert (advice.kind, advice.cpu, advice.target) == ("cpu", 400, 50)  # 0.4 cores at the knee, the warm-up left out
    assert "LOWER" not in str(advice)
    assert "p99 ≤ 50 ms" in str(advice)


@pytest.mark.parametrize("limited_by", ["generator", "range", "time"])
def test_a_search_that_ended_otherwise_claims_no_knee(limited_by: str) -> None:
    advice = advise(measured(search={**FOUND, "limited_by": limited_by}), peak=500, headroom=30)
    assert (advice.rate, advice.exact) == (200, False)
    assert limited_by in str(advice)


def test_a_search_without_a_confirmed_rate_gives_what_single_probes_held() -> None:
    advice = advise(measured(search={**FOUND, "rate": None}), peak=500, headroom=30)
    assert (advice.rate, advice.exact) == (210, False)


@pytest.mark.parametrize(
    "given",
    [
        {"passed": False},
        {"validity": "INVALID", "reason": "the generator was late"},
        {"achieved_rate": 0.0},
        {"search": {**FOUND, "rate": None, "highest_pass": None}},
    ],
)
def test_what_says_nothing_of_a_rate_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        advise(measured(**given), peak=500, headroom=30)


def test_without_cpu_and_with_less_than_one_in_progress_no_target_is_made_up() -> None:
    fast = [{"level": 50, "ms": 2.0}]
    advice = advise(measured(percentiles=fast), peak=500, headroom=30)
    assert (advice.kind, advice.target) == ("none", None)
    assert "too few" in str(advice)
    assert "target" not in " ".join(advice.settings())


@given(
    st.floats(0.1, 1e5),
    st.floats(0.1, 1e6),
    st.floats(0, 90),
    st.floats(0, 6400) | st.none(),
    st.floats(0.01, 1e5) | st.none(),
)
def test_advice_holds_the_peak_with_a_pod_lost(
    rate: float, peak: float, headroom: float, cpu: float | None, p50: float | None
) -> None:
    samples = [{"at_s": 10, "cpu_percent": cpu}]
    seen = measured(achieved_rate=rate, resources=samples, percentiles=[{"level": 50, "ms": p50}])
    advice = advise(seen, peak, headroom)
    assert (advice.max - 1) * advice.target_rate >= peak * 0.999999
    assert (advice.max - 2) * advice.target_rate < peak * 1.000001
    assert 1 <= advice.min <= advice.max
    assert advice.max <= 4 * advice.min or advice.min == advice.max
    assert advice.target is None or advice.target >= 1
    if advice.kind == "cpu" and advice.target and advice.target > 1:  # a pod at the target has no more than its share
        used = (cpu or 0) / 100
        assert advice.target / 100 * advice.cpu / 1000 <= used * (1 - headroom / 100) * 1.000001


def test_the_command_prints_settings_that_an_environment_takes(tmp_path: Path) -> None:
    import tomllib

    from ekiben.environments import Environment

    path = tmp_path / "report.json"
    path.write_text(Document(report=REPORT, verdict=PASSED).model_dump_json())
    told = run(str(path), "--peak", "500")
    settings = told.partition("\n\n")[2]
    env = Environment.model_validate(tomllib.loads(settings))
    assert (env.replicas.min, env.replicas.max, env.autoscaling.target) == (3, 9, 1)
    assert Advice(**json.loads(run(str(path), "--peak", "500", "--json"))).max == 9


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [(None, 3, "No such file"), ("{}", 2, "kind"), ("no", 2, "not a load report"), ('{"kind": "x"}', 2, "kind")],
)
def test_what_is_no_report_is_said(tmp_path: Path, text: str | None, code: int, said: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    assert said in run(str(path), "--peak", "500", code=code)


def run(*args: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "ekiben.cli", "autoscale", *args]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr
