"""A page that shows the course of a run: each step as a bar over time, with what it said. Pure."""

import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median
from urllib.parse import quote

from ekiben.pipeline.course import Course
from ekiben.pipeline.nodes import BAD, Node, Try
from ekiben.pipeline.summary import Summary
from ekiben.report.text import shortened

MOST_ITEMS = 8  # of a loop, above which its steps are folded together
_ITEM = re.compile(r"(.*?)\(\d+:")
_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --ink: #1c2024; --muted: #5f6770; --rule: #e3e5e8; --link: #1f6feb;
  --good: #2da44e; --bad: #cf222e; --wait: #848d97; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1216; --ink: #e6e9ed; --muted: #9aa4af; --rule: #2a3038;
  --link: #58a6ff; --good: #3fb950; --bad: #ff7b72; --wait: #7d8791; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 2rem 1.25rem 3rem;
  background: var(--page); color: var(--ink); font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } p { margin: .25rem 0; } a { color: var(--link); }
.verdict { border-left: 5px solid var(--bad); padding-left: 1rem; white-space: pre-line; margin: 1rem 0; }
.verdict.PASS { border-color: var(--good); } .verdict.INCONCLUSIVE { border-color: var(--wait); }
.muted, .said, .axis { color: var(--muted); font-size: .875rem; }
.row { display: grid; grid-template-columns: minmax(7rem, 17rem) 1fr 5rem; gap: 0 1rem; align-items: center;
  padding: .3rem 0; border-bottom: 1px solid var(--rule); }
.name a { color: inherit; text-decoration-color: var(--rule); } .time { text-align: right; white-space: nowrap; }
.lane { position: relative; height: 1.1rem; } .axis .lane { height: 1.3rem; }
.lane i { position: absolute; top: .1rem; bottom: .1rem; min-width: 3px; border-radius: 3px; background: var(--wait); }
.lane i.Succeeded { background: var(--good); } .lane i.Failed, .lane i.Error { background: var(--bad); }
.lane i.between { opacity: .35; top: .45rem; bottom: .45rem; border-radius: 0; }
.lane u { position: absolute; top: -.35rem; bottom: -.35rem; border-left: 1px solid var(--rule); }
.lane u.cut { border-left: 2px dotted var(--wait); }
.lane b { position: absolute; font-weight: 400; transform: translateX(-50%); white-space: nowrap; }
.lane b:first-of-type { transform: none; } .lane b.last { transform: translateX(-100%); }
.said { grid-column: 2 / -1; white-space: pre-line; } .said em { color: var(--bad); font-style: normal; }
summary { cursor: pointer; list-style: none; } summary .name::before { content: "▸ "; color: var(--muted); }
details[open] > summary .name::before { content: "▾ "; } details .row .row { padding-left: 1rem; }
.keys span { margin-right: 1.25rem; } .keys i { display: inline-block; width: 1rem; height: .6rem; border-radius: 3px;
  margin-right: .4rem; background: var(--tone); }
@media (max-width: 40rem) { .row { grid-template-columns: 1fr auto; } .lane, .said { grid-column: 1 / -1; }
  .lane { grid-row: 2; } .axis .time { display: none; } }
"""
_KEYS = (("good", "succeeded"), ("bad", "failed"), ("wait", "waited"))


def page(run: Summary, folder: Path) -> str:
    """`folder` is where the page will lie, beside the steps' logs."""
    ran = sorted((node for node in run.nodes if node.started), key=lambda node: node.started)
    course = Course.of(node_tries for node in ran for node_tries in _tries(node))
    began = f"{datetime.fromtimestamp(ran[0].started, UTC):%Y-%m-%d %H:%M:%S} UTC, " if ran else ""
    report = f'<p><a href="{quote(run.report)}/report.html">The load report</a></p>' if run.report else ""
    keys = "".join(f'<span><i style="--tone: var(--{tone})"></i>{text}</span>' for tone, text in _KEYS)
    return (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(run.run)}</title><style>{_STYLE}</style><h1>{escape(run.run)}</h1>"
        f"<p class=muted>{began}{_seconds(run.seconds)}; {_counts(run.nodes)}</p>"
        f"<p class='verdict {run.verdict.outcome}'>{escape(str(run.verdict))}</p>{report}"
        f"<p class='muted keys'>{keys}</p>{''.join(_rows(ran, course, folder))}{_rest(run.nodes)}</html>"
    )


def _rows(ran: list[Node], course: Course, folder: Path) -> Iterator[str]:
    if not ran:
        yield "<p>No step ran.</p>"
        return
    yield f"<div class='row axis'><span></span><span class=lane>{_axis(course)}</span><span class=time></span></div>"
    loops: dict[str, list[Node]] = {}
    for node in ran:
        loops.setdefault(_loop_of(node), []).append(node)
    for node in ran:
        items = loops[loop] if (loop := _loop_of(node)) else []
        if len(items) <= MOST_ITEMS:
            yield _row(node, course, folder)
        elif node is items[0]:
            yield _loop(loop, items, course, folder)


def _loop_of(node: Node) -> str:
    """The task of whose items it is one, or a part of one; '' for none."""
    match = _ITEM.match(node.name)
    return match[1] if match else ""


def _row(node: Node, course: Course, folder: Path) -> str:
    label = escape(node.name)
    if node.folder is not None:
        label = f'<a href="{quote(os.path.relpath(node.folder / "log", folder))}">{label}</a>'
    words = [] if node.phase == "Succeeded" else [f"<em>{node.phase}</em>"]
    words += [f"{len(node.tries)} attempts"] if len(node.tries) > 1 else []
    words += [escape(shortened(node.message.strip()))] if node.message else []
    said = f"<span class=said>{': '.join(words)}</span>" if words else ""
    return (
        f"<div class=row><span class=name>{label}</span>{_lane(_tries(node), course)}"
        f"<span class=time>{_seconds(node.seconds)}</span>{said}</div>"
    )


def _loop(name: str, items: list[Node], course: Course, folder: Path) -> str:
    """The items of a loop in one row, to be unfolded; what failed among them is shown all the same."""
    lengths = sorted(node.seconds for node in items)
    said = (
        f"{len(items)} steps: {_counts(items)}; {_seconds(lengths[0])} to {_seconds(lengths[-1])}, "
        f"half of them within {_seconds(median(lengths))}"
    )
    begin, end = items[0].started, max(node.started + node.seconds for node in items)
    whole = Try(begin, end - begin, "Failed" if any(node.phase in BAD for node in items) else "Succeeded")
    return (
        f"<details><summary class=row><span class=name>{escape(name)}</span>{_lane([whole], course)}"
        f"<span class=time>{_seconds(whole.seconds)}</span><span class=said>{said}</span></summary>"
        f"{''.join(_row(node, course, folder) for node in items if node.phase not in BAD)}</details>"
        f"{''.join(_row(node, course, folder) for node in items if node.phase in BAD)}"
    )


def _rest(nodes: Iterable[Node]) -> str:
    """What did not run, and why."""
    left = [node for node in nodes if not node.started]
    if not left:
        return ""
    words = ", ".join(
        f"{node.name} ({': '.join(filter(None, [node.phase.lower(), shortened(node.message, 100)]))})" for node in left
    )
    return f"<p class=muted>Did not run: {escape(words)}.</p>"


def _lane(tries: list[Try], course: Course) -> str:
    """One bar for each attempt, thinner ones between them."""
    bars = []
    for last, each in zip([None, *tries], tries, strict=False):
        if last is not None:
            bars.append(_bar(last.started + last.seconds, each.started, "between", course))
        bars.append(_bar(each.started, each.started + each.seconds, each.phase, course))
    return f"<span class=lane>{_grid(course)}{''.join(bars)}</span>"


def _bar(begin: float, end: float, kind: str, course: Course) -> str:
    left, right = course.share(begin), course.share(end)
    return f'<i class={kind} style="left:{left:.2%};width:{max(right - left, 0):.2%}" title="{kind}"></i>'


def _grid(course: Course) -> str:
    lines = "".join(f'<u style="left:{course.axis.share(at):.2%}"></u>' for at, _ in course.axis.ticks)
    return lines + "".join(f'<u class=cut style="left:{course.axis.share(at):.2%}"></u>' for at, _ in course.cuts)


def _axis(course: Course) -> str:
    named = [(at, text) for at, text in course.axis.ticks] + [
        (at, f"{_seconds(long)} later") for at, long in course.cuts
    ]
    return "".join(
        f'<b{" class=last" if course.axis.share(at) > 0.95 else ""} style="left:{course.axis.share(at):.2%}">{text}</b>'
        for at, text in sorted(named)
    )


def _tries(node: Node) -> list[Try]:
    return list(node.tries) or [Try(node.started, node.seconds, node.phase)]


def _counts(nodes: Iterable[Node]) -> str:
    phases = [node.phase for node in nodes]
    return ", ".join(f"{phases.count(phase)} {phase.lower()}" for phase in dict.fromkeys(sorted(phases, reverse=True)))


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
