"""From load reports to what a search sees, and what its outcome means."""

from datetime import UTC, datetime

import pytest

from ekiben.errors import UsageError
from ekiben.loadtest.search import Ask
from ekiben.loadtest.searching import conduct, judge, seen, wanted
from ekiben.loadtest.slo import Slo
from ekiben.report.headline import headline
from ekiben.types import LoadPlan, LoadReport, Outcome, Percentile, Proportion

SLO = Slo(objectives={"p99": 50.0, "error_rate": 0.01})
ASK = Ask(100.0, 10.0, "fit")


def report(p99: float | None = 20.0, errors: float = 0.0, slower: float = 0.001, **more: object) -> LoadReport:
    found = Percentile(level=99.0, ms=p99, lower_ms=p99, upper_ms=p99, effective_samples=900)
    return LoadReport(
        validity="VALID", url="http://127.0.0.1:9", started=datetime(2024, 1, 1, tzinfo=UTC), settings=LoadPlan(),
        requests=1000, slower=slower, percentiles=(found,), error_rate=Proportion(value=errors, lower=0.0, upper=1.0),
        achieved_rate=99.0,
    ).model_copy(update=more)  # fmt: skip


def test_a_probe_holds_when_every_objective_is_met_as_measured() -> None:
    for given, held in ((report(), True), (report(p99=51.0), False), (report(errors=0.02), False)):
        point = seen(given, ASK, SLO, 99.0)
        assert point is not None and point.held is held
    failing = seen(report(p99=None), ASK, SLO, 99.0)
    assert failing is not None and not failing.held and failing.ms is None


def test_a_late_generator_says_nothing_and_an_overwhelmed_service_a_lot() -> None:
    assert seen(report(validity="INVALID", reason="the generator was late"), ASK, SLO, 99.0) is None
    for more in ({"dropped": 5}, {"target_lost": True}):
        point = seen(report(validity="INVALID", reason="", slower=0.4, **more), ASK, SLO, 99.0)
        assert point is not None and not point.held and point.ms is None and point.slower >= 0.4


def test_the_highest_percentile_is_searched_for() -> None:
    sought = wanted(Slo(objectives={"p50": 5.0, "p95": 20.0, "error_rate": 0.01}), LoadPlan(rate=40), 300, 1000)
    assert (sought.objective, sought.limit_ms, sought.share, sought.start) == ("p95 ≤ 20 ms", 20.0, 0.05, 40.0)


@pytest.mark.parametrize(
    ("slo", "plan"),
    [
        (Slo(objectives={"error_rate": 0.01}), LoadPlan()),
        (SLO, LoadPlan(arrivals="closed")),
        (SLO, LoadPlan(profile=((0, 1), (9, 9)))),
    ],
)
def test_what_cannot_be_searched_is_refused(slo: Slo, plan: LoadPlan) -> None:
    with pytest.raises(UsageError):
        wanted(slo, plan, 600, 1000)


def test_the_report_is_that_of_the_confirming_probe() -> None:
    offered: list[LoadPlan] = []
    clock = iter(range(0, 100_000, 10))

    def probe(number: int, plan: LoadPlan, limit_ms: float) -> LoadReport:
        offered.append(plan)
        slow = plan.rate > 250
        return report(p99=500.0 if slow else 20.0, slower=0.5 if slow else 0.0, settings=plan)

    sought = wanted(SLO, LoadPlan(), 3000, 250)
    found = conduct(sought, SLO, LoadPlan(extend_to_s=99), probe, lambda line: None, lambda: float(next(clock)))
    assert found.search is not None and found.search.rate == 200.0 == found.settings.rate
    assert len({plan.seed for plan in offered}) == len(offered) and {plan.extend_to_s for plan in offered} == {0.0}
    verdict = judge(found)
    assert verdict.outcome is Outcome.PASS and headline(verdict).startswith("200 requests/s hold it")


def test_nothing_measured_is_an_error() -> None:
    broken = report(validity="INVALID", reason="no Locust")
    found = conduct(wanted(SLO, LoadPlan(), 600, 250), SLO, LoadPlan(), lambda *_: broken, print, lambda: 0.0)
    verdict = judge(found)
    assert verdict.outcome is Outcome.ERROR and "no Locust" in headline(verdict)
