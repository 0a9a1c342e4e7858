"""What a person reads of a service's state. Pure: each function returns text."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ekiben.rollout.state import Observed
from ekiben.types import SLOTS, Release

SHORT = len("sha256:") + 12
"""Characters of a digest that tell it from any other in practice."""


def status(seen: Observed, url: str, mend: str = "run `ekiben up`") -> str:
    """What is live and where, then a line for each slot. `mend`: what helps if it is not ready."""
    if seen.active is None:
        return f"{seen.service}: nothing is live"
    live = seen.active
    health = "" if seen.selector in seen.ready and seen.listening else f"  NOT READY: {mend}"
    lines = [
        f"{seen.service}: {live.bento} is live in {live.slot}, since {_at(live.time)}, by {live.by}{health}",
        f"{'listens':<9}{url if seen.listening else 'nowhere: the switch does not run'}",
        f"{'model':<9}{live.bento.model}  {live.bento.model.digest}",
    ]
    if seen.canary:
        how = f"by HTTPRoute {seen.canary.route}" if seen.canary.route else "as both colours are selected"
        lines.append(
            f"{'canary':<9}{seen.canary.slot} has a share, {how}: {seen.canary.percent} % asked for by {seen.canary.by}"
            "  (ekiben rollback ends it)"
        )
    for slot in SLOTS:
        held = seen.slots[slot]
        state = "ready" if slot in seen.ready else "starting" if slot in seen.running else "stopped"
        place = f"  http://{held.address}" if slot in seen.running and held.address else ""
        trial = seen.canary is not None and seen.canary.slot == slot
        role = "live" if slot == seen.selector else "canary" if trial else "idle"
        lines.append(f"{slot:<9}{role}  {state:<8}  {held.bento or 'empty'}{place}")
    if seen.previous:
        lines.append(f"{'back to':<9}{seen.previous.bento}  (ekiben rollback)")
    return "\n".join(lines)


def history(releases: Sequence[Release]) -> str:
    """A line for each release, the newest last."""
    if not releases:
        return "nothing was ever live"
    heads = ["time (UTC)", "slot", "Bento", "model", "by"]
    rows = [[_at(r.time), r.slot, str(r.bento), str(r.bento.model), r.by] for r in releases]
    for head, values in (
        ("image", [release.image.rpartition("@")[2][:SHORT] for release in releases]),
        ("load report", [release.load_report for release in releases]),
    ):
        if any(values):  # where there are none, a column of nothing only makes the lines longer
            heads.append(head)
            rows = [[*row, value or "-"] for row, value in zip(rows, values, strict=True)]
    rows = [heads, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _at(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
