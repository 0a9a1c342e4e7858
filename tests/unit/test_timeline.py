"""run.html: what a person sees of a run's course."""

import re
import urllib.parse
from pathlib import Path

import pytest

from ekiben.pipeline import timeline
from ekiben.pipeline.course import Course
from ekiben.pipeline.nodes import Node, Try
from ekiben.pipeline.summary import Summary
from ekiben.types import Check, Outcome, Verdict
from tests.fakes.browser import browsing, executable

T = 1_795_000_000.0
VERDICT = Verdict.of([Check(name="step", outcome=Outcome.ERROR, seen="<b>bad</b>", wanted="good")], "run")


def summary(*nodes: Node) -> Summary:
    return Summary("run", VERDICT, 8, None, None, None, "", nodes, 12.0)


def rows(page: str) -> list[str]:
    """The name of each row, and what it says."""
    found = re.findall(
        r"<(?:div|summary) class=row><span class=name>(.*?)</span>.*?</(?:div|summary)>", page, re.DOTALL
    )
    return [re.sub("<.*?>", "", each) for each in found]


def bars(page: str) -> list[tuple[str, float, float]]:
    found = re.findall(r'<i class=(\w+) style="left:([\d.]+)%;width:([\d.]+)%"', page)
    return [(kind, float(left), float(width)) for kind, left, width in found]


def node(name: str, at: float, seconds: float, phase: str = "Succeeded", **more: object) -> Node:
    return Node(name, phase, seconds, started=T + at, **more)  # type: ignore[arg-type]


def test_steps_stand_in_the_order_in_which_they_began_with_their_logs(tmp_path: Path) -> None:
    folder = tmp_path / "steps" / "b(0_x)" / "attempt-1"
    page = timeline.page(
        summary(node("b(0:x)", 4, 4, folder=folder), node("a", 0, 4), Node("c", "Skipped", message="when 1 == 2")),
        tmp_path,
    )
    assert rows(page) == ["a", "b(0:x)"]
    assert [(left, width) for _, left, width in bars(page)] == [(0, 50), (50, 50)]
    assert urllib.parse.unquote(re.findall(r'href="(.*?)"', page)[0]) == "steps/b(0_x)/attempt-1/log"
    assert "Did not run: c (skipped: when 1 == 2)" in page


def test_each_attempt_and_the_waits_between_them_are_bars(tmp_path: Path) -> None:
    tries = (Try(T, 2, "Failed"), Try(T + 6, 2, "Error"), Try(T + 8, 2, "Succeeded"))
    page = timeline.page(summary(node("a", 0, 10, tries=tries)), tmp_path)
    assert bars(page) == [
        ("Failed", 0, 20), ("between", 20, 40), ("Error", 60, 20), ("between", 80, 0), ("Succeeded", 80, 20),
    ]  # fmt: skip
    assert "3 attempts" in page


def test_what_failed_says_why_and_markup_stays_text(tmp_path: Path) -> None:
    page = timeline.page(summary(node("<i>", 0, 1, "Failed", message="a < b\nwanted: <script>")), tmp_path)
    assert "<em>Failed</em>: a &lt; b\nwanted: &lt;script&gt;" in page
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "<script" not in page
    assert rows(page) == ["&lt;i&gt;"]


def test_a_long_loop_is_folded_and_its_failures_stay_in_sight(tmp_path: Path) -> None:
    items = [node(f"all({i}:{i}).x", i, 1, "Failed" if i == 7 else "Succeeded") for i in range(200)]
    page = timeline.page(summary(node("first", -1, 1), *items), tmp_path)
    shown = re.sub(r"</summary>.*?</details>", "</summary>", page, flags=re.DOTALL)
    assert rows(shown) == ["first", "all", "all(7:7).x"]
    assert "200 steps: 199 succeeded, 1 failed" in page
    assert len(rows(page)) == 202
    assert rows(timeline.page(summary(*items[:8]), tmp_path)) == [f"all({i}:{i}).x" for i in range(8)]


def test_a_night_between_two_halves_of_a_run_is_left_out() -> None:
    course = Course.of([Try(T, 40, "Succeeded"), Try(T + 40_000, 10, "Succeeded"), Try(T + 40_060, 40, "Failed")])
    assert course.cuts == ((40.0, 39_960.0),)
    shares = [course.share(T + at) for at in (0, 40, 40_000, 40_010, 40_060, 40_100)]
    assert shares == pytest.approx([0, 40 / 140, 40 / 140, 50 / 140, 100 / 140, 1])


def test_a_run_in_which_nothing_ran(tmp_path: Path) -> None:
    assert "No step ran." in timeline.page(summary(Node("a", "Omitted")), tmp_path)


@pytest.mark.skipif(not executable(), reason="no Chromium is installed")
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_every_window(tmp_path: Path, width: int) -> None:
    long = "a-very-long-name-of-a-step." * 4
    items = [node(f"all({i}:{i})", i, 1) for i in range(30)]
    (tmp_path / "run.html").write_text(
        timeline.page(summary(node(long, 0, 90, "Failed", message=long), *items), tmp_path)
    )
    (tmp_path / "browser").mkdir()
    with browsing(tmp_path / "browser") as page:
        page.view(width)
        page.open(tmp_path / "run.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.complaints() == []
        assert page.evaluate("document.querySelector('details .row .lane').checkVisibility()")
        assert not page.evaluate("document.querySelectorAll('details .row .lane')[1].checkVisibility()")
