from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.slo import Slo, describe, judge, parse, read
from ekiben.types import LoadPlan, LoadReport, Outcome, Percentile, Proportion

ROOT = Path(__file__).parents[2]


@given(st.sampled_from(["p50", "p95", "p99", "p99.9"]), st.integers(1, 10**6), st.sampled_from(["ms", "s"]))
def test_a_time_is_read_with_its_unit(name: str, number: int, unit: str) -> None:
    assert parse(f"{name}={number}{unit}") == (name, number * (1000 if unit == "s" else 1))
    assert parse(f" {name} = {number} {unit} ") == parse(f"{name}={number}{unit}")


@given(st.text())
def test_any_text_is_an_objective_or_a_usage_error(text: str) -> None:
    try:
        name, limit = parse(text)
    except UsageError as error:
        assert "error_rate" in error.wanted and "p99=300ms" in error.wanted
    else:
        assert name in ("p50", "p95", "p99", "p99.9", "error_rate", "achieved_rate") and limit > 0


def test_shares_are_percent() -> None:
    assert parse("error_rate=0.1%") == ("error_rate", pytest.approx(0.001))
    assert parse("achieved_rate=95%") == ("achieved_rate", pytest.approx(0.95))


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p99=", "p99=300", "p99=-1ms", "p99=0ms", "p98=1ms", "p99=1%", "error_rate=1ms", "error_rate=0%",
     "error_rate=0.1", "achieved_rate=100%", "error_rate=101%", "p99=1e3ms", "p99=nanms", "p99=1ms=2ms", "P99=1ms"],
)  # fmt: skip
def test_what_is_wrong_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text, origin="--slo ")


def test_the_committed_objectives_can_be_proven() -> None:
    slo, plan = read(ROOT / "loadtests" / "slo.toml")
    slo.require(plan)
    assert set(slo.objectives) == {"p99", "error_rate", "achieved_rate"}
    assert plan.warm_up_s + plan.measure_s <= 25


def _toml(folder: Path, text: str) -> Path:
    path = folder / "slo.toml"
    path.write_text(text)
    return path


def test_overrides_win(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[load]\nrate = 50\nduration = "1500ms"\n[slo]\np99 = "250ms"\n')
    slo, plan = read(path, ["p99=1ms", "p50=2ms"])
    assert slo.objectives == {"p99": 1, "p50": 2}
    assert (plan.rate, plan.measure_s) == (50, 1.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[slo]\n", "no objective"),
        ("nonsense", "not TOML"),
        ('[slow]\np99 = "1ms"\n', "'slow'"),
        ('[slo]\np99 = "1"\n', "'p99=1'"),
        ('[slo]\np99 = "1s"\n[load]\nspeed = 3\n', "'speed'"),
        ('[slo]\np99 = "1s"\n[load]\nrate = -3\n', "rate"),
        ('[slo]\np99 = "1s"\n[load]\nduration = 20\n', "duration"),
        ('[slo]\np99 = "1s"\n[load]\narrivals = "bursts"\n', "arrivals"),
    ],
)
def test_a_wrong_file_is_a_usage_error_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"slo\.toml") as caught:
        read(_toml(tmp_path, text))
    assert says in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read(tmp_path / "slo.toml")


@pytest.mark.parametrize("objective", ["p99=1s", "error_rate=0.1%", "achieved_rate=99%"])
def test_a_run_too_short_for_its_objective_says_so_before_it_starts(objective: str) -> None:
    slo = Slo(objectives=dict([parse(objective)]))
    with pytest.raises(UsageError, match="too few to prove") as caught:
        slo.require(LoadPlan(rate=10, measure_s=20))
    seconds = float(caught.value.next_step.split(" s ")[0].split()[-1])
    slo.require(LoadPlan(rate=10, measure_s=seconds))  # what it advises is enough


def _report(ms: float, low: float, high: float | None, **changes: object) -> LoadReport:
    fields: dict[str, object] = {
        "validity": "VALID",
        "url": "http://127.0.0.1:1",
        "endpoint": "POST /predict",
        "started": datetime(2026, 1, 2, tzinfo=UTC),
        "settings": LoadPlan(),
        "requests": 12_004,
        "offered_rate": 100.0,
        "achieved_rate": 99.0,
        "achieved": Proportion(value=0.99, lower=0.985, upper=0.995),
        "error_rate": Proportion(value=0.0, lower=0.0, upper=0.0003),
        "percentiles": (Percentile(level=99.0, ms=ms, lower_ms=low, upper_ms=high, effective_samples=9000),),
    }
    return LoadReport.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (200, 290, Outcome.PASS),
        (200, 300, Outcome.PASS),
        (200, 301, Outcome.INCONCLUSIVE),
        (299, 431, Outcome.INCONCLUSIVE),
        (300, 431, Outcome.INCONCLUSIVE),
        (301, 431, Outcome.FAIL),
        (301, None, Outcome.FAIL),
        (200, None, Outcome.INCONCLUSIVE),
    ],
)
def test_a_percentile_passes_or_fails_by_its_bounds(low: float, high: float | None, outcome: Outcome) -> None:
    verdict = judge(_report((low + (high or low)) / 2, low, high), Slo(objectives={"p99": 300.0}))
    assert verdict.outcome is outcome


def test_a_verdict_reads_well() -> None:
    check = judge(_report(412, 398, 431), Slo(objectives={"p99": 300.0})).checks[1]
    assert check.seen == "p99 412 ms (95% bounds 398–431 ms, n=12,004, worth 9,000 independent)"
    assert check.wanted == "p99 ≤ 300 ms on POST /predict"
    assert describe("error_rate", 0.005) == "error rate ≤ 0.5 %"


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"),
    [(0.0, 0.004, Outcome.PASS), (0.004, 0.006, Outcome.INCONCLUSIVE), (0.006, 0.01, Outcome.FAIL)],
)
def test_shares_are_judged_by_their_bounds(lower: float, upper: float, outcome: Outcome) -> None:
    share = Proportion(value=(lower + upper) / 2, lower=lower, upper=upper)
    report = _report(1, 1, 1, error_rate=share)
    assert judge(report, Slo(objectives={"error_rate": 0.005})).outcome is outcome
    good = Proportion(value=1 - share.value, lower=1 - upper, upper=1 - lower)
    assert judge(_report(1, 1, 1, achieved=good), Slo(objectives={"achieved_rate": 0.995})).outcome is outcome


def test_an_invalid_report_never_passes_whatever_its_figures() -> None:
    report = _report(1, 1, 1, validity="INVALID", reason="3 requests were not sent")
    verdict = judge(report, Slo(objectives={"p99": 300.0, "error_rate": 0.5, "achieved_rate": 0.5}))
    assert verdict.outcome is Outcome.ERROR and "3 requests were not sent" in str(verdict)
    assert all(check.outcome is not Outcome.PASS for check in verdict.checks)


def test_missing_figures_never_pass() -> None:
    bare = _report(1, 1, 1, percentiles=(), error_rate=None, achieved=None)
    for name in ("p99", "error_rate", "achieved_rate"):
        assert judge(bare, Slo(objectives={name: 0.5})).outcome is Outcome.INCONCLUSIVE


def test_more_failures_than_the_tail_fail_the_percentile() -> None:
    endless = Percentile(level=99.0, ms=None, lower_ms=None, upper_ms=None, effective_samples=500)
    verdict = judge(_report(1, 1, 1, percentiles=(endless,), failed=300), Slo(objectives={"p99": 300.0}))
    assert verdict.outcome is Outcome.FAIL and "300 of 12,004 requests got no right answer" in str(verdict)
