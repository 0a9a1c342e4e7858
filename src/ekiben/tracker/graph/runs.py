"""Runs, their metrics, console lines and files, as they are read."""

import json
import mimetypes
import sqlite3
from typing import Any, ClassVar

from ekiben.tracker.graph.base import Row, listing, page, to_id
from ekiben.tracker.graph.entities import user
from ekiben.tracker.graphql import Args, GraphQLError, field
from ekiben.tracker.sqlfunctions import run_state

HISTORY, EVENTS, OUTPUT = "history", "events", "output"


class Run(Row):
    typename = "Run"
    table = "runs"
    plain: ClassVar = {
        "name": "name",
        "displayName": "display_name",
        "description": "description",
        "notes": "notes",
        "group": "group_name",
        "groupName": "group_name",
        "jobType": "job_type",
        "sweepName": "sweep",
        "host": "host",
        "commit": "git_commit",
        "config": "config",
        "summaryMetrics": "summary",
        "createdAt": "created_at",
        "heartbeatAt": "heartbeat_at",
        "updatedAt": "heartbeat_at",
    }

    @field
    def project(self, args: Args) -> Row | None:
        return self.context.node("Project", self.row["project"])

    @field
    def project_id(self, args: Args) -> int:
        return int(self.row["project"])

    @field
    def user(self, args: Args) -> dict[str, Any]:
        return user(self.context, self.row["user"])

    @field
    def read_only(self, args: Args) -> bool:
        return False

    @field
    def tags(self, args: Args) -> Any:
        return json.loads(self.row["tags"])

    @field
    def state(self, args: Args) -> str:
        return run_state(self.row["state"], self.row["heartbeat_at"])

    @field
    def stopped(self, args: Args) -> bool:
        return bool(self.row["stop_requested"])

    @field
    def wandb_config(self, args: Args) -> str:
        """The client's own part of the config, reduced to the keys asked for."""
        own = json.loads(self.row["config"]).get("_wandb", {}).get("value", {})
        return json.dumps({key: own[key] for key in args.texts("keys") if key in own})

    @field
    def system_metrics(self, args: Args) -> str:
        last = self._tail(EVENTS, 1)
        return last[0] if last else "{}"

    @field
    def history_line_count(self, args: Args) -> int:
        return self._count(HISTORY)

    @field
    def events_line_count(self, args: Args) -> int:
        return self._count(EVENTS)

    @field
    def log_line_count(self, args: Args) -> int:
        return self._count(OUTPUT)

    @field
    def history_tail(self, args: Args) -> str:
        return json.dumps(self._tail(HISTORY, 1))

    @field
    def events_tail(self, args: Args) -> str:
        return json.dumps(self._tail(EVENTS, 1))

    @field
    def history_keys(self, args: Args) -> dict[str, Any]:
        """Which metrics were logged, how often, and what kind their values are."""
        keys: dict[str, Any] = {}
        last = -1
        for row in self._lines(HISTORY):
            last = max(last, row["step"] or 0)
            for name, value in json.loads(row["data"]).items():
                kinds = keys.setdefault(name, {})
                kinds[_kind(value)] = kinds.get(_kind(value), 0) + 1
        counted = {
            name: {"typeCounts": [{"type": kind, "count": n} for kind, n in kinds.items()], "monotonic": False}
            for name, kinds in keys.items()
        }
        return {"sets": [], "keys": counted, "lastStep": last}

    @field
    def history(self, args: Args) -> list[str]:
        """Lines of history as JSON: the steps from `minStep` to before `maxStep`, or a sample of all of them."""
        low, high, samples = args.integer("minStep"), args.integer("maxStep"), args.integer("samples") or 500
        if low is None and high is None:
            return [row["data"] for row in _sample(self._lines(HISTORY), samples)]
        rows = self.context.db.execute(
            "SELECT data FROM run_lines WHERE run = ? AND stream = ? AND step >= ? AND step < ? ORDER BY line LIMIT ?",
            (self.key, HISTORY, low or 0, high if high is not None else 1 << 62, min(samples, 100_000)),
        )
        return [row["data"] for row in rows]

    @field
    def events(self, args: Args) -> list[str]:
        return [row["data"] for row in _sample(self._lines(EVENTS), args.integer("samples") or 500)]

    @field
    def sampled_history(self, args: Args) -> list[list[dict[str, Any]]]:
        """For each spec {keys, samples}: the rows that hold all of its keys, thinned to that many."""
        return [self._sampled(spec) for spec in args.texts("specs", 100_000)]

    def _sampled(self, text: str) -> list[dict[str, Any]]:
        try:
            spec = json.loads(text)
            keys, samples = list(spec.get("keys", [])), int(spec.get("samples", 500))
        except (ValueError, TypeError, AttributeError):
            raise GraphQLError("sampledHistory: a spec is a JSON object with keys and samples") from None
        rows = [json.loads(row["data"]) for row in self._lines(HISTORY)]
        whole = [{key: row[key] for key in keys} if keys else row for row in rows if all(key in row for key in keys)]
        return _sample(whole, samples)

    @field
    def parquet_history(self, args: Args) -> dict[str, Any]:
        """None of it is in parquet files: all rows are live ones."""
        keys = args.texts("liveKeys")
        rows = [json.loads(row["data"]) for row in self._lines(HISTORY)]
        live = [{key: row[key] for key in keys if key in row} for row in rows] if keys else rows
        return {"parquetUrls": [], "liveData": live}

    @field
    def log_lines(self, args: Args) -> dict[str, Any]:
        last = args.integer("last")
        source = "SELECT line AS id, data FROM run_lines WHERE run = ? AND stream = ?"
        if last is not None:
            rows = self.context.db.execute(
                f"{source} ORDER BY line DESC LIMIT ?", (self.key, OUTPUT, max(0, min(last, 10_000)))
            ).fetchall()
            return listing([_log_line(row) for row in reversed(rows)])
        return page(self.context, args, source, [self.key, OUTPUT], _log_line)

    @field
    def file_count(self, args: Args) -> int:
        return int(self.context.value("SELECT COUNT(*) FROM run_files WHERE run = ?", self.key))

    @field
    def files(self, args: Args) -> dict[str, Any]:
        """Its files; those of `names` if any are given, those LIKE `pattern` if that is."""
        names, pattern = args.texts("names", 10_000), args.optional_text("pattern")
        among = f"AND name IN ({','.join('?' * len(names))})" if names else ""
        like = "AND name LIKE ?" if pattern else ""
        return page(
            self.context,
            args,
            f"SELECT * FROM run_files WHERE run = ? {among} {like}",
            (self.key, *names, *([pattern] if pattern else [])),
            lambda row: RunFile(self.context, row),
            key="name",
        )

    @field
    def output_artifacts(self, args: Args) -> dict[str, Any]:
        return self._artifacts("run_outputs", args)

    @field
    def input_artifacts(self, args: Args) -> dict[str, Any]:
        return self._artifacts("run_inputs", args)

    def _artifacts(self, table: str, args: Args) -> dict[str, Any]:
        return page(
            self.context,
            args,
            f"SELECT a.* FROM {table} x JOIN artifacts a ON a.id = x.artifact"
            " WHERE x.run = ? AND a.state = 'COMMITTED'",
            [self.key],
            lambda row: Row.registry["Artifact"](self.context, row),
        )

    def _count(self, stream: str) -> int:
        # Streams are numbered from 0 without gaps, so the last number is enough.
        last = self.context.value("SELECT MAX(line) FROM run_lines WHERE run = ? AND stream = ?", self.key, stream)
        return last + 1 if last is not None else 0

    def _lines(self, stream: str) -> list[sqlite3.Row]:
        return self.context.db.execute(
            "SELECT step, data FROM run_lines WHERE run = ? AND stream = ? ORDER BY line", (self.key, stream)
        ).fetchall()

    def _tail(self, stream: str, number: int) -> list[str]:
        rows = self.context.db.execute(
            "SELECT data FROM run_lines WHERE run = ? AND stream = ? ORDER BY line DESC LIMIT ?",
            (self.key, stream, number),
        )
        return [row["data"] for row in rows][::-1]


class RunFile(Row):
    typename = "File"
    table = "run_files"
    plain: ClassVar = {
        "name": "name",
        "displayName": "name",
        "sizeBytes": "size",
        "updatedAt": "updated_at",
        "md5": "md5",
    }

    @field
    def digest(self, args: Args) -> str:
        return str(self.row["md5"])

    @field
    def url(self, args: Args) -> str:
        if args.flag("upload"):
            return self.context.urls.put(f"/upload/run/{self.row['run']}/{self.row['name']}")
        return self.direct_url(args)

    @field
    def direct_url(self, args: Args) -> str:
        return self.context.urls.get(f"/download/{self.row['md5']}/{self.row['name']}")

    @field
    def storage_path(self, args: Args) -> str:
        return f"blobs/{self.row['md5']}"

    @field
    def mimetype(self, args: Args) -> str | None:
        return mimetypes.guess_type(self.row["name"])[0]


def _log_line(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "__typename": "LogLine",
        "id": to_id("LogLine", row["id"]),
        "number": row["id"],
        "timestamp": None,
        "level": "info",
        "label": "",
        "line": row["data"],
    }


def _sample(rows: list[Any], wanted: int) -> list[Any]:
    """At most `wanted` of them, evenly spread, the first and the last always among them."""
    wanted = max(1, wanted)
    if len(rows) <= wanted:
        return rows
    if wanted == 1:
        return rows[-1:]
    return [rows[round(i * (len(rows) - 1) / (wanted - 1))] for i in range(wanted)]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, dict):
        return str(value.get("_type", "map"))
    return "string" if isinstance(value, str) else "list" if isinstance(value, list) else "nil"
