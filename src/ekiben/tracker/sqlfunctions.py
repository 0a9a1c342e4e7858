"""What SQL calls back: functions that SQLite lacks."""

import json
import re
import sqlite3
from datetime import UTC, datetime
from typing import Any

CRASHED_AFTER_SECONDS = 300  # without a sign of life; W&B's own patience


def register(db: sqlite3.Connection) -> None:
    db.create_function("json_at", 2, json_at, deterministic=True)
    db.create_function("config_at", 2, config_at, deterministic=True)
    db.create_function("matches", 2, matches, deterministic=True)
    db.create_function("run_state", 2, run_state)


def json_at(text: str | None, path: str) -> Any:
    """What `a.b.c` leads to in a JSON text; SQLite's json_extract refuses the NaN that metrics may hold."""
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    while path:
        if not isinstance(value, dict):
            return None
        if path in value:  # a key may hold dots itself
            value, path = value[path], ""
        else:
            head, _, path = path.partition(".")
            value = value.get(head)
    if isinstance(value, dict | list):
        return json.dumps(value)
    return value if not isinstance(value, int) or abs(value) < 1 << 63 else float(value)


def config_at(text: str | None, path: str) -> Any:
    """The same in a run's config, where each value is wrapped: `lr.value` is meant by `lr` too."""
    try:
        wrapped = json.loads(text or "{}")
    except ValueError:
        return None
    bare = {key: item["value"] if isinstance(item, dict) and "value" in item else item for key, item in wrapped.items()}
    key, _, rest = path.partition(".")
    if key in wrapped and (rest == "value" or rest.startswith("value.")):
        path = key + rest.removeprefix("value")
    return json_at(json.dumps(bare), path)


def matches(text: Any, pattern: str) -> bool:
    return isinstance(text, str) and re.search(pattern, text[:1024]) is not None


def run_state(state: str, heartbeat_at: str) -> str:
    """The state that a run is in: one that says it runs, but has long been silent, has crashed."""
    silent = (datetime.now(UTC) - datetime.fromisoformat(heartbeat_at)).total_seconds()
    return "crashed" if state == "running" and silent > CRASHED_AFTER_SECONDS else state
