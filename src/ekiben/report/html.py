"""A load report as one self-contained HTML page: no script, no request to the network, light and dark. Pure."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ekiben.loadtest.phrases import ms, percent
from ekiben.report import course, headline, pictures
from ekiben.report.series import stretches
from ekiben.report.text import duration, printable, shortened
from ekiben.types import LoadReport, Verdict

MAX_ROWS = 120
"""Of a table over time: the same as the charts show, to read and to copy."""
MAX_ENDPOINTS = 200


def render(report: LoadReport, verdict: Verdict) -> str:
    comparison, search = report.comparison, report.search
    return _template().render(
        report=report,
        verdict=verdict,
        checks=[(check, *_split(check.seen)) for check in headline.ordered(verdict)],
        latency=pictures.of_latency(report),
        server=course.of_server(report),
        knee=search and pictures.of_search(search),
        difference=comparison and pictures.of_comparison(comparison),
        stretches=stretches(report.series, MAX_ROWS),
        endpoints=report.endpoints[:MAX_ENDPOINTS],
        lineage=headline.lineage(report),
        settings=headline.settings(report),
        machine=headline.machine(report),
        headline=headline,
        ms=ms,
        percent=percent,
        duration=duration,
    )


def _split(seen: str) -> tuple[str, str]:
    """What was seen, and the details in its brackets."""
    short, _, details = seen.partition(" (")
    return (short, details[:-1]) if details.endswith(")") else (seen, "")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template("load.html.j2")


def _shown(value: Any) -> Any:
    """Whatever a server answered: on one line, bounded, and without invisible characters. The rest is escaping."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return shortened(printable(value))
    return value
