"""A page that shows the course of a run: each step as a bar over time. Pure."""

from html import escape

from ekiben.pipeline.nodes import Node
from ekiben.pipeline.summary import Summary

WIDTH, NAME, ROW = 960, 220, 26
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .2rem .8rem .2rem 0; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } pre { white-space: pre-wrap; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; } svg line { stroke: currentColor; opacity: .2; }
.Succeeded { fill: #2f855a; } .Failed, .Error { fill: #c53030; }
"""


def page(run: Summary) -> str:
    rows = "".join(
        f"<tr><td>{escape(node.name)}</td><td class=n>{_seconds(node)}</td><td>{escape(node.phase)}</td>"
        f"<td>{escape(node.message.splitlines()[0][:200]) if node.message else ''}</td></tr>"
        for node in run.nodes
    )
    report = f'<p><a href="{escape(run.report)}/report.html">The load report</a></p>' if run.report else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(run.run)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(run.run)}</h1><pre>{escape(str(run.verdict))}</pre>{report}"
        f"<h2>Course, {run.seconds:.1f} s</h2>{svg(run.nodes)}"
        f"<table><tr><th>step<th class=n>duration<th>outcome<th>said</tr>{rows}</table></html>"
    )


def svg(nodes: tuple[Node, ...]) -> str:
    """The steps that ran, in the order in which they started, against one axis of seconds."""
    ran = sorted((node for node in nodes if node.started and node.seconds), key=lambda node: node.started)
    if not ran:
        return "<p>No step ran.</p>"
    start = ran[0].started
    whole = max(node.started + node.seconds - start for node in ran) or 1.0
    scale = (WIDTH - NAME - 90) / whole
    height = ROW * (len(ran) + 1)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Steps over time" width="100%">']
    for quarter in range(5):
        x = NAME + (WIDTH - NAME - 90) * quarter / 4
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - ROW}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{whole * quarter / 4:.3g} s</text>')
    for at, node in enumerate(ran):
        y, x = ROW * at + 4, NAME + (node.started - start) * scale
        width = max(node.seconds * scale, 2)
        name = node.name if len(node.name) <= 30 else f"…{node.name[-29:]}"
        parts.append(f'<text x="{NAME - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{node.phase}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 8}" rx="3">')
        parts.append(f"<title>{escape(node.name)}: {node.phase}, {node.seconds:.1f} s</title></rect>")
        parts.append(f'<text x="{x + width + 6:.1f}" y="{y + 13}">{node.seconds:.1f} s</text>')
    return "".join([*parts, "</svg>"])


def _seconds(node: Node) -> str:
    return "–" if node.phase in ("Omitted", "Skipped") else f"{node.seconds:.1f} s"
