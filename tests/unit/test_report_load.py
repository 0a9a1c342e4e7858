import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.slo import Slo, judge
from ekiben.report import html, markdown, terminal
from ekiben.report.axes import ticks
from ekiben.report.write import Document, write
from ekiben.types import LoadPlan, Outcome, Verdict
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


@given(st.floats(1e-6, 1e12))
def test_ticks_reach_the_maximum_in_few_even_steps(maximum: float) -> None:
    found = ticks(maximum)
    assert found[0] == 0 and found[-1] >= maximum * (1 - 1e-6)
    assert 3 <= len(found) <= 7
    assert np.allclose(np.diff(found), found[1])
