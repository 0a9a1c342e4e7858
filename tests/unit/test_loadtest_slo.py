from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.judging import judge
from ekiben.loadtest.plans import LOAD_KEYS, plan_of
from ekiben.loadtest.slo import Allowance, Slo, describe, parse, read
from ekiben.types import Comparison, Difference, EndpointReport, LoadPlan, LoadReport, Outcome, Percentile, Proportion

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
    assert plan.warm_up_s + plan.measure_s <= 25 and plan.longest_s <= 60


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
        ('[slo]\np99 = "1s"\n[load]\nprofile = [[0, 50]]\n', "profile"),
        ('[slo]\np99 = "1s"\n[load]\nprofile = [["5s", 50], ["0s", 50]]\n', "ascend"),
        ('[slo]\np99 = "1s"\n[load]\nprofile = "up"\n', "profile"),
        ('[slo]\np99 = "1s"\n[load]\nprofile = [["0s", true]]\n', "profile"),
        ('[slo]\np99 = "1s"\n[load]\ntrace = 3\n', "trace"),
        ('[slo]\np99 = "1s"\n[load]\ntrace = "a"\narrivals = "closed"\n', "exclude each other"),
        ('[slo]\np99 = "1s"\n[load]\nextend_to = "10%"\n', "extend_to"),
        ("slo = 3\n", "no table"),
        ("[slo]\np99 = 250\n", "'p99=250'"),
        ('[slo."POST /predict"]\np99 = "1s"\n', "is for no service"),
        ('[slo]\np99 = "1s"\n[slo.digits.predict]\np99 = "1s"\n', "is for no endpoint"),
        ('[slo]\np99 = "1s"\n[slo.other]\np98 = "1s"\n', "[slo.other] 'p98=1s'"),
        ('[slo.digits."POST /predict"]\np99_vs_live = "1% and 1ms"\n', "more than limits"),
        ('[slo]\np99_vs_live = "10%"\n', "p99_vs_live"),
        ('[slo]\np99_vs_live = "10% and 5%"\n', "p99_vs_live"),
        ('[slo]\np99_vs_live = "10% or 5ms"\n', "p99_vs_live"),
        ('[slo]\np98_vs_live = "10% and 5ms"\n', "p98_vs_live"),
    ],
)
def test_a_wrong_file_is_a_usage_error_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"slo\.toml") as caught:
        read(_toml(tmp_path, text))
    assert says in str(caught.value)


def test_a_service_and_an_endpoint_add_to_what_holds_for_all(tmp_path: Path) -> None:
    path = _toml(
        tmp_path,
        """
        [slo]
        p99 = "250ms"
        p50 = "10ms"
        [slo.digits]
        p99 = "100ms"
        p95_vs_live = "10% and 5ms"
        [slo.digits."POST /predict"]
        p50 = "5ms"
        error_rate = "1%"
        [slo.other]
        p99 = "1s"
        """,
    )
    assert read(path)[0] == Slo(objectives={"p99": 250, "p50": 10}) == read(path, service="unknown")[0]
    slo = read(path, ["p50=1ms"], service="digits")[0]
    assert slo.objectives == {"p99": 100, "p50": 1}
    assert slo.relative == {"p95": Allowance(share=0.1, ms=5)}
    assert slo.endpoints == {"POST /predict": {"p50": 5, "error_rate": 0.01}}
    assert Slo.model_validate_json(slo.model_dump_json()) == slo


def test_every_field_of_the_load_can_be_set(tmp_path: Path) -> None:
    load = """
        [load]
        profile = [["0s", 50], ["500ms", 200.5]]
        warm_up = "0s"
        duration = "1500ms"
        extend_to = "60s"
        timeout = "1s"
        seed = 4
        max_in_flight = 7
        processes = 2
        [slo]
        p50 = "1s"
        """
    plan = read(_toml(tmp_path, load))[1]
    assert plan.profile == ((0, 50), (0.5, 200.5)) and (plan.measure_s, plan.longest_s) == (1.5, 60)
    assert (plan.warm_up_s, plan.timeout_s, plan.seed, plan.max_in_flight, plan.processes) == (0, 1, 4, 7, 2)
    trace = read(_toml(tmp_path, '[load]\ntrace = "times.txt"\n[slo]\np50 = "1s"\n'))[1]
    assert trace.trace == str(tmp_path / "times.txt")
    closed = read(_toml(tmp_path, '[load]\narrivals = "closed"\nusers = 3\n[slo]\np50 = "1s"\n'))[1]
    assert not closed.open_loop and closed.users == 3


limits = st.dictionaries(st.sampled_from(["p50", "p95", "p99", "p99.9"]), st.integers(1, 10**6), max_size=3)


@given(limits, limits, limits, limits)
def test_what_is_said_later_wins_and_nothing_is_lost(
    first: dict[str, float], second: dict[str, float], third: dict[str, float], fourth: dict[str, float]
) -> None:
    a = Slo(objectives=first, endpoints={"GET /": third})
    b = Slo(objectives=second, endpoints={"GET /": fourth})
    both = a | b
    assert both.objectives == {**first, **second} and both.endpoints == {"GET /": {**third, **fourth}}
    assert a | Slo() == a == Slo() | a


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


def test_what_an_extended_run_can_prove_is_allowed() -> None:
    slo, short = Slo.of(["p99=1s"]), LoadPlan(rate=10, measure_s=20)
    with pytest.raises(UsageError, match=r"a run of 20 s at 10 requests/s has \d+ requests"):
        slo.require(short)
    slo.require(short.model_copy(update={"extend_to_s": 60.0}))


def test_an_endpoint_that_gets_too_few_requests_says_so_before_it_starts() -> None:
    slo, plan = Slo(endpoints={"POST /rare": {"p99": 100.0}}), LoadPlan(rate=100, measure_s=20)
    slo.require(plan, {"POST /rare": 0.3, "POST /predict": 0.7})
    with pytest.raises(UsageError, match="requests to POST /rare: too few to prove p99") as caught:
        slo.require(plan, {"POST /rare": 0.1, "POST /predict": 0.9})
    seconds = float(caught.value.next_step.split(" s ")[0].split()[-1])
    slo.require(LoadPlan(rate=100, measure_s=seconds), {"POST /rare": 0.1, "POST /predict": 0.9})
    with pytest.raises(UsageError, match="the load sends nothing there") as caught:
        slo.require(plan, {"POST /predict": 1.0})
    assert "POST /predict" in caught.value.wanted


def test_profiles_and_traces_are_counted_before_the_run(tmp_path: Path) -> None:
    slo = Slo.of(["p95=100ms"])
    ramp = LoadPlan(profile=((0, 1), (20, 5)), measure_s=20)  # 60 requests; 72 are needed
    with pytest.raises(UsageError, match="a run of 20 s has") as caught:
        slo.require(ramp)
    seconds = float(caught.value.next_step.split(" s ")[0].split()[-1])
    assert 20 < seconds < 60
    slo.require(ramp.model_copy(update={"measure_s": seconds}))
    trace = tmp_path / "times.txt"
    trace.write_text("\n".join(str(0.1 * n) for n in range(150)))
    slo.require(LoadPlan(trace=str(trace), warm_up_s=1, measure_s=10))
    with pytest.raises(UsageError, match="too few to prove"):
        slo.require(LoadPlan(trace=str(trace), warm_up_s=10, measure_s=10))


def test_a_closed_loop_offers_no_rate() -> None:
    closed = LoadPlan(arrivals="closed", measure_s=1)
    Slo.of(["p99=100ms", "error_rate=0.1%"]).require(closed)
    with pytest.raises(UsageError, match="closed loop"):
        Slo.of(["achieved_rate=95%"]).require(closed)


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


def test_an_endpoint_is_judged_by_its_own_figures() -> None:
    def part(name: str, upper: float) -> EndpointReport:
        found = Percentile(level=99.0, ms=100, lower_ms=90, upper_ms=upper, effective_samples=1000)
        return EndpointReport(endpoint=name, requests=6_002, failed=0, achieved_rate=50.0, percentiles=(found,))

    report = _report(1, 1, 1, endpoints=(part("POST /a", 110), part("POST /b", 310)), endpoint="POST /a, POST /b")
    for endpoint, outcome in (("POST /a", Outcome.PASS), ("POST /b", Outcome.INCONCLUSIVE)):
        verdict = judge(report, Slo(objectives={"p99": 300.0}, endpoints={endpoint: {"p99": 300.0}}))
        assert verdict.outcome is outcome
        assert verdict.checks[2].name == f"p99 {endpoint}" and verdict.checks[2].wanted == f"p99 ≤ 300 ms on {endpoint}"
    missing = judge(report, Slo(endpoints={"POST /c": {"p99": 300.0}}))
    assert missing.outcome is Outcome.INCONCLUSIVE and "no requests" in str(missing)
    alone = _report(1, 1, 1)
    assert judge(alone, Slo(endpoints={"POST /predict": {"p99": 300.0}})).passed


def _compared(ratio: tuple[float, float], ms: tuple[float, float]) -> LoadReport:
    found = Difference(
        name="p95", a_ms=40, b_ms=44, ratio=sum(ratio) / 2, ratio_lower=ratio[0], ratio_upper=ratio[1],
        ms=sum(ms) / 2, ms_lower=ms[0], ms_upper=ms[1], significant=False,
    )  # fmt: skip
    comparison = Comparison(
        a="digits:live", b="digits:new", settings_hash="0", block_s=2.5, head_s=0.5, pairs=12, requests_a=2400,
        requests_b=2400, failed_a=0, failed_b=0, differences=(found,), outcome="no difference shown", seen="",
    )  # fmt: skip
    return _report(1, 1, 1, comparison=comparison)


@pytest.mark.parametrize(
    ("ratio", "ms", "outcome"),
    [
        ((0.9, 1.08), (-4, 20), Outcome.PASS),  # at most 8 % slower
        ((1.2, 1.9), (0.5, 4), Outcome.PASS),  # nearly twice as slow, by at most 4 ms
        ((1.2, 1.9), (6, 30), Outcome.FAIL),
        ((1.2, 1.9), (4, 30), Outcome.INCONCLUSIVE),
        ((1.05, 1.9), (6, 30), Outcome.INCONCLUSIVE),
    ],
)
def test_slower_than_live_by_a_share_and_by_time(
    ratio: tuple[float, float], ms: tuple[float, float], outcome: Outcome
) -> None:
    slo = Slo.of(["p95_vs_live=10% and 5ms"])
    check = judge(_compared(ratio, ms), slo).checks[1]
    assert (check.name, check.outcome) == ("p95_vs_live", outcome)
    assert check.wanted == "p95 not slower than live by more than 10 % and 5 ms" and "live 40.0 ms" in check.seen


def test_without_a_comparison_nothing_is_known_but_without_a_live_release_nothing_is_slower() -> None:
    slo = Slo.of(["p95_vs_live=10% and 5ms", "p99_vs_live=5ms and 10%"])
    assert slo.relative["p99"] == Allowance(share=0.1, ms=5)
    assert judge(_report(1, 1, 1), slo).outcome is Outcome.INCONCLUSIVE
    first = judge(_report(1, 1, 1), slo, live=False)
    assert first.passed and "there is no live release" in first.checks[1].seen
    assert judge(_compared((0.9, 1.08), (-4, 20)), slo).outcome is Outcome.INCONCLUSIVE  # p99 was not compared


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["20s", "5ms", "1%"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(LOAD_KEYS.split(", ")) | st.text(max_size=8), values, max_size=3))
def test_any_load_table_is_a_plan_or_a_usage_error(table: dict[str, object]) -> None:
    try:
        plan = plan_of(table, Path("slo.toml"))
    except UsageError as error:
        assert "slo.toml: [load]" in str(error)
    else:
        assert plan.measure_s > 0


@given(
    st.lists(st.text() | st.from_regex(r"p\d\d(_vs_live)?=\d+(ms|%)( and \d+(ms|s|%))?", fullmatch=True), max_size=3)
)
def test_any_texts_are_objectives_or_a_usage_error(texts: list[str]) -> None:
    try:
        slo = Slo.of(texts)
    except UsageError as error:
        assert "p95_vs_live=10% and 5ms" in error.wanted
    else:
        assert len(slo.objectives) + len(slo.relative) <= len(texts)
