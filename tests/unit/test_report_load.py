import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.judging import judge
from ekiben.loadtest.slo import Slo
from ekiben.report import axes, headline, html, markdown, terminal
from ekiben.report.series import stretches
from ekiben.report.text import duration, printable
from ekiben.report.write import Document, write
from ekiben.types import ErrorKind, LoadPlan, Outcome, Second, Verdict
from tests.fakes.load_reports import BENTO, HOSTILE, IMAGE, MODEL, crashed, everything, long, measured

SLO = Slo(objectives={"p99": 250.0, "error_rate": 0.005, "achieved_rate": 0.95})
CASES = {
    "pass": measured(),
    "fail": measured(slow_ms=400, failures=40, example=HOSTILE),
    "all failed": measured(failures=10**6),
    "crashed": crashed(),
    "everything": everything(),
    "one second": measured(plan=LoadPlan(rate=400, warm_up_s=0, measure_s=1)),
    "a day": long(),
}


class Page(HTMLParser):
    """Collects what a page would load, its scripts, and checks that its tags are balanced."""

    VOID = frozenset({"meta", "rect", "line", "polygon", "path", "circle"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_whole_small_and_asks_the_network_for_nothing(case: str) -> None:
    page = html.render(CASES[case], judge(CASES[case], SLO))
    parsed = Page(page)
    assert len(page.encode()) < 200_000
    assert not [t for t, _ in parsed.tags if t in ("script", "link", "img", "iframe", "object")]
    assert not [a for _, a in parsed.tags if set(a) & {"src", "href", "onload", "style"}]
    assert not re.search(r"url\(|@import|nan\b", page.split("<body>")[0] + "".join(re.findall(r' d="[^"]*"', page)))
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_the_verdict_and_the_failing_objective_stand_first() -> None:
    report = CASES["fail"]
    page = html.render(report, judge(report, SLO))
    heading = re.search(r"<h1>(.*?)</h1>", page, re.S)
    assert heading and "FAIL" in heading[1] and "wanted p99 ≤ 250 ms on POST /predict" in heading[1]
    for text in (markdown.render(report, judge(report, SLO)), terminal.render(report, judge(report, SLO))):
        first = text.splitlines()[0]
        assert "FAIL" in first and "p99" in first and "250 ms" in first


def test_charts_have_text_alternatives_and_show_the_warm_up() -> None:
    report = CASES["pass"]
    page = Page(html.render(report, judge(report, SLO)))
    pictures = [a for t, a in page.tags if t == "svg" and a.get("class") == "chart"]
    assert len(pictures) == 4 and all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in pictures)
    assert sum(a.get("class") == "shade" for _, a in page.tags) == 3
    assert sum(t == "polygon" for t, _ in page.tags) >= 1


def test_a_run_without_figures_says_why_and_draws_nothing() -> None:
    report = CASES["crashed"]
    page = html.render(report, judge(report, SLO))
    assert "ERROR" in page and "ValueError: no" in page and "<svg" not in page


def test_what_a_server_answered_stays_text() -> None:
    report = CASES["fail"]
    verdict = judge(report, SLO)
    assert "<script>" not in html.render(report, verdict)
    row = next(line for line in markdown.render(report, verdict).splitlines() if "status 503" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 4 and row.count("`") == 2
    assert "\x1b" not in terminal.render(report, verdict)


@given(st.text(max_size=300))
def test_any_answer_leaves_the_markdown_table_whole(example: str) -> None:
    report = CASES["fail"].model_copy(
        update={"errors": (CASES["fail"].errors[0].model_copy(update={"example": example}),)}
    )
    rows = [line for line in markdown.render(report, judge(report, SLO)).split("\n") if line.startswith("| status 503")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 4


def test_the_lineage_is_in_every_form_for_people() -> None:
    report = CASES["everything"]
    for text in (html.render(report, judge(report, SLO)), markdown.render(report, judge(report, SLO))):
        assert str(MODEL) in text and MODEL.digest in text and BENTO.tag in text and str(IMAGE) in text


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_back(tmp_path: Path, case: str) -> None:
    verdict = judge(CASES[case], SLO)
    path = write(CASES[case], verdict, tmp_path / "report")
    assert path.name == "report.json" and json.loads(path.read_text())["schema_version"] == 1
    document = Document.read(path)
    assert document.report == CASES[case] and document.verdict == verdict
    assert sorted(p.name for p in path.parent.iterdir()) == ["junit.xml", "report.html", "report.json", "report.md"]


def test_a_file_that_is_no_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Document.read(tmp_path / "report.json")
    (tmp_path / "report.json").write_text('{"schema_version": 2}')
    with pytest.raises(UsageError, match="schema_version"):
        Document.read(tmp_path / "report.json")


def test_a_verdict_without_checks_is_shown_too() -> None:
    verdict = Verdict(outcome=Outcome.INCONCLUSIVE)
    for module in (html, markdown, terminal):
        assert "INCONCLUSIVE" in module.render(CASES["pass"], verdict)


@pytest.mark.parametrize(
    ("plan", "update", "told"),
    [
        (LoadPlan(), {}, ["open loop, Poisson arrivals, seed 1", "100 requests/s", "20 s"]),
        (LoadPlan(), {"measured_s": 0.0}, ["nothing of 20 s planned"]),
        (LoadPlan(arrivals="closed", users=1), {}, ["closed loop, 1 user"]),
        (LoadPlan(trace="day.txt"), {}, ["open loop, recorded arrivals", "as recorded in day.txt"]),
        (LoadPlan(profile=((0, 100), (600, 1_500))), {}, ["100 requests/s at 0 s, 1,500 requests/s at 10 min"]),
        (
            LoadPlan(extend_to_s=300),
            {"measured_s": 60.0, "stopped": "p99 is known well enough", "workers": 4},
            ["60 s of 20 s planned, at most 5 min", "p99 is known well enough", "4 processes"],
        ),
    ],
)
def test_each_form_says_how_it_was_measured(plan: LoadPlan, update: dict[str, object], told: list[str]) -> None:
    report = measured().model_copy(update={"settings": plan, **update})
    verdict = judge(report, SLO)
    values = [value for _, value in headline.settings(report)]
    assert set(told) <= set(values)
    for text in (html.render(report, verdict), markdown.render(report, verdict), terminal.render(report, verdict)):
        assert told[0].split(",")[0] in text or "loop" not in told[0]
    assert ("Closed loop:" in html.render(report, verdict)) is not plan.open_loop


def test_what_is_left_open_is_told_with_its_bounds() -> None:
    report = measured(slow_ms=93)
    verdict = judge(report, SLO)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert re.match(r"p99 \d+ ms \(95% bounds \d+–[\d,]+ ms.*\); wanted p99 ≤ 250 ms", headline.headline(verdict))


def test_an_invalid_run_says_why_and_nothing_else() -> None:
    verdict = judge(CASES["crashed"], SLO)
    assert headline.headline(verdict) == f"INVALID: {CASES['crashed'].reason}"


def test_markdown_fits_a_comment_whatever_was_measured() -> None:
    awful = "|`<&" * 1_000
    report = CASES["everything"].model_copy(
        update={
            "errors": tuple(ErrorKind(kind=f"{n} {awful}"[:300], count=1, example=awful) for n in range(50)),
            "endpoints": CASES["everything"].endpoints * 500,
        }
    )
    text = markdown.render(report, judge(report, SLO))
    assert len(text) < 65_536 and "998 more" not in text and "980 more in report.json" in text
    assert len(html.render(report, judge(report, SLO)).encode()) < 1_000_000


def test_a_day_is_drawn_fast_and_small(tmp_path: Path) -> None:
    report = CASES["a day"]
    verdict = judge(report, SLO)
    started = time.process_time()
    page = html.render(report, verdict)
    assert time.process_time() - started < 5  # 0.1 s on an idle machine
    assert len(page.encode()) < 200_000
    worst = max(s.p99_ms or 0 for s in report.series)
    assert worst == 1_800 and "p99 of 1,800 ms" in page and "<td>1,800</td>" in page  # the one slow second is not lost
    path = write(report, verdict, tmp_path)
    assert path.stat().st_size < 16_000_000 and Document.read(path).report == report


@given(st.floats(1e-6, 1e12))
def test_ticks_reach_the_maximum_in_few_even_steps(maximum: float) -> None:
    found = axes.ticks(maximum)
    assert found[0] == 0 and found[-1] >= maximum * (1 - 1e-6)
    assert 3 <= len(found) <= 7
    assert np.allclose(np.diff(found), found[1])


@given(st.floats(1e-3, 1e9), st.floats(1, 1e9))
def test_a_logarithmic_axis_holds_both_ends(low: float, factor: float) -> None:
    axis = axes.logarithmic(low, low * factor)
    assert axis.low <= low * (1 + 1e-6) and axis.high >= low * factor * (1 - 1e-6) and axis.high > axis.low
    assert 1 <= len(axis.ticks) <= 7
    assert 0 <= axis.share(low) <= axis.share(low * factor) <= 1


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_an_axis_around_zero_shows_zero_and_both_ends(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    axis = axes.around_zero(low, high, " %")
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    assert axis.low <= low + slack and axis.high >= high - slack and axis.low < 0 < axis.high
    assert "0 %" in [label for _, label in axis.ticks] and len(axis.ticks) <= 13


@given(st.floats(0.5, 90_000 * 40))
def test_a_time_axis_has_a_few_round_ticks(end: float) -> None:
    axis = axes.time(end)
    assert 1 <= len(axis.ticks) <= 6 and axis.ticks[0] == (0.0, "0") and axis.ticks[-1][0] <= end
    assert axis.share(end) == 1


@given(st.just(0.0) | st.floats(1e-3, 999e6))
def test_a_number_on_an_axis_is_short(value: float) -> None:
    assert len(axes.number(value)) <= 9


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.floats(0, 1e4)), min_size=1, max_size=700))
def test_stretches_keep_sums_and_peaks(values: list[tuple[int, float | None]]) -> None:
    series = [
        Second(
            at_s=t,
            warm_up=False,
            offered=count,
            completed=count,
            errors=count // 7,
            in_flight=count,
            p50_ms=p99,
            p99_ms=p99,
        )
        for t, (count, p99) in enumerate(values)
    ]
    found = stretches(series, 60)
    assert len(found) <= 60 and sum(s.seconds for s in found) == len(series)
    assert sum(s.offered * s.seconds for s in found) == pytest.approx(sum(s.offered for s in series))
    assert max(s.in_flight for s in found) == max(s.in_flight for s in series)
    known = [s.p99_ms for s in series if s.p99_ms is not None]
    assert max((s.p99_ms for s in found if s.p99_ms is not None), default=None) == max(known, default=None)


@given(st.text())
def test_text_from_elsewhere_is_shown_on_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and shown == shown.strip() and printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (90, "90 s"), (4.25, "4.25 s"), (288, "4 min 48 s"), (86_340, "23 h 59 min")]
)
def test_a_duration_is_told_in_its_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told
