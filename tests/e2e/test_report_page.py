"""The HTML report in a real browser: a phone and a desktop, light and dark, and on paper."""

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ekiben.loadtest.judging import judge
from ekiben.loadtest.slo import Slo
from ekiben.report import html
from ekiben.types import LoadPlan, LoadReport, Verdict
from tests.fakes import browser
from tests.fakes.load_reports import HOSTILE, crashed, everything, long, measured

pytestmark = pytest.mark.skipif(
    browser.executable() is None, reason=f"needs a browser: none of {', '.join(browser.NAMES)} is installed"
)

SLO = Slo(objectives={"p99": 250.0, "error_rate": 0.005, "achieved_rate": 0.95})
CLOSED = LoadPlan(arrivals="closed", users=20, warm_up_s=2, measure_s=20)
ENDLESS = measured(failures=30, example="x" * 300).model_copy(
    update={"url": f"http://very-long-host.example/{'a/very/long/path/' * 30}", "endpoint": f"POST /{'predict' * 20}"}
)
CASES: dict[str, tuple[LoadReport, int]] = {  # and how many charts it has
    "pass": (measured(), 4),
    "fail": (measured(slow_ms=400, failures=40, example=HOSTILE), 5),
    "all failed": (measured(failures=10**6), 3),
    "crashed": (crashed(), 0),
    "everything": (everything(), 10),
    "a day": (long(), 8),
    "one second": (measured(plan=LoadPlan(rate=400, warm_up_s=0, measure_s=1)), 4),
    "endless names": (ENDLESS, 5),
    "closed loop": (measured().model_copy(update={"settings": CLOSED, "stopped": "FAIL is certain"}), 4),
}

# The ratio of WCAG 2 for each text, against the nearest background that is not transparent.
CONTRAST = """
(() => {
  const channel = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(e).backgroundColor);
      if (a > 0) return [r, g, b];
    }
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = [];
  for (let t; t = texts.nextNode();) {
    const e = t.parentElement, style = getComputedStyle(e);
    if (!t.data.trim() || !e.getClientRects().length) continue;
    const [a, b] = [numbers(e.namespaceURI.endsWith('svg') ? style.fill : style.color), behind(e)].map(light);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (!(ratio >= 4.5)) low.push(`${ratio.toFixed(2)} ${t.data.trim().slice(0, 40)}`);
  }
  return low;
})()
"""

# What reaches beyond the page, but for tables that scroll by themselves.
BEYOND = """
[...document.body.querySelectorAll('*')]
  .filter(e => !e.closest('.scroll') && e.getClientRects().length && !e.closest('details:not([open]) > :not(summary)'))
  .filter(e => { const box = e.getBoundingClientRect(); return box.right > innerWidth + 1 || box.left < -1; })
  .map(e => `${e.tagName} ${e.textContent.trim().slice(0, 40)}`)
"""

# Names of ticks that touch each other.
TOUCHING = """
[...document.querySelectorAll('svg.chart')].flatMap(chart => ['x', 'y'].flatMap(axis => {
  const boxes = [...chart.querySelectorAll(`.tick.${axis}`)].map(e => [e.textContent, e.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], i) => boxes.slice(i + 1)
    .filter(([, b]) => a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
    .map(([other]) => `${chart.ariaLabel.slice(0, 30)}: ${name} and ${other}`));
}))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def saved(folder: Path, report: LoadReport, verdict: Verdict | None = None) -> Path:
    path = folder / "report.html"
    path.write_text(html.render(report, verdict or judge(report, SLO)))
    return path


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_at_each_width_and_in_each_scheme(page: browser.Page, case: str, tmp_path: Path) -> None:
    report, charts = CASES[case]
    path = saved(tmp_path, report)
    shots: dict[tuple[int, str], bytes] = {}
    for width, scheme in itertools.product((390, 1280), ("light", "dark")):
        page.view(width, scheme)
        page.open(path)
        shots[width, scheme] = page.screenshot(tmp_path / f"{width}-{scheme}.png")
        assert page.requested() == [path.as_uri()]
        assert not page.complaints()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not page.evaluate(BEYOND)
        assert not page.evaluate(TOUCHING)
        assert not page.evaluate(CONTRAST)
        assert _size(shots[width, scheme])[0] == width
    assert len(set(shots.values())) == 4
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    described = [n["name"]["value"] for n in tree if n.get("role", {}).get("value") in ("image", "img")]
    assert len(described) == charts and all(len(text) > 30 for text in described)


def _size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


@pytest.mark.parametrize("case", ["fail", "everything", "crashed"])
def test_it_prints_dark_on_white_whatever_the_screen_is(page: browser.Page, case: str, tmp_path: Path) -> None:
    page.view(720, "dark", media="print")
    page.open(saved(tmp_path, CASES[case][0]))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not page.evaluate(CONTRAST)
    assert not page.evaluate(BEYOND)
    printed = base64.b64decode(page.call("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF") and 1 <= printed.count(b"/Type /Page\n") <= 6


def test_the_verdict_is_what_one_sees_first(page: browser.Page, tmp_path: Path) -> None:
    report = CASES["fail"][0]
    for width in (390, 1280):
        page.view(width)
        page.open(saved(tmp_path, report))
        first = page.evaluate("document.body.innerText.split('\\n')[0]")
        assert first.startswith("FAIL: ") and "p99 ≤ 250 ms on POST /predict" in first
        assert page.evaluate("document.querySelector('h1').getBoundingClientRect().bottom") < 300


def test_the_same_numbers_stand_in_tables(page: browser.Page, tmp_path: Path) -> None:
    page.view(1280)
    page.open(saved(tmp_path, CASES["everything"][0]))
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.querySelectorAll('details tr').length") > 40
    assert not page.evaluate(BEYOND)
