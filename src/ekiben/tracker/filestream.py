"""The stream in which a run sends its metrics, console lines and end; each post says at which line it continues."""

import json
import sqlite3
from typing import Any

from ekiben.tracker.graph.runs import EVENTS, HISTORY, OUTPUT
from ekiben.tracker.graphql import Args, GraphQLError
from ekiben.tracker.store import now

_STREAMS = {"wandb-history.jsonl": HISTORY, "wandb-events.jsonl": EVENTS, "output.log": OUTPUT}
_SUMMARY = "wandb-summary.json"


def receive(db: sqlite3.Connection, run: int, body: dict[str, Any]) -> None:
    """Takes one post. The same post twice leaves what it left once. Raises GraphQLError for what cannot be read."""
    files = body.get("files") or {}
    if not isinstance(files, dict):
        raise GraphQLError("file_stream: files must be an object")
    for name in files:
        chunk = Args(files, "file_stream").object(name)
        lines = chunk.texts("content", 16 << 20)
        if name == _SUMMARY and lines:
            summary = chunk_json(lines[-1])
            db.execute("UPDATE runs SET summary = ? WHERE id = ?", (json.dumps(summary), run))
        elif stream := _STREAMS.get(name):
            _append(db, run, stream, chunk.integer("offset") or 0, lines)
    state = "running"
    exit_code = Args(body, "file_stream").integer("exitcode")
    if body.get("complete") is True:
        state = "finished" if not exit_code else "failed"
    elif body.get("preempting") is True:
        state = "preempting"
    db.execute(
        "UPDATE runs SET state = ?, exit_code = ?, heartbeat_at = ? WHERE id = ?", (state, exit_code, now(), run)
    )


def _append(db: sqlite3.Connection, run: int, stream: str, offset: int, lines: list[str]) -> None:
    if offset < 0:
        raise GraphQLError("file_stream: an offset cannot be negative")
    rows = []
    for number, line in enumerate(lines, start=offset):
        step = None
        if stream != OUTPUT:
            step = chunk_json(line).get("_step", number if stream == HISTORY else None)
            if step is not None and (not isinstance(step, int) or abs(step) >= 1 << 62):
                raise GraphQLError(f"file_stream: _step must be a whole number, not {str(step)[:40]}")
        rows.append((run, stream, number, step, line))
    db.executemany("INSERT OR REPLACE INTO run_lines (run, stream, line, step, data) VALUES (?, ?, ?, ?, ?)", rows)


def chunk_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise GraphQLError(f"file_stream: a line is not a JSON object: {text[:80]!r}")
    return value
