"""All that the database holds, as JSON lines: to read elsewhere, or to keep."""

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ekiben.tracker.state import open_store


def export(data: Path, out: Path) -> int:
    """Writes the file `out`, one JSON object a line, each with a `kind`. Returns the number of lines.

    project {entity, name}; run {project, name, config, summary, …}; line {run, stream, line, data}; run_file;
    collection; version {collection, version, digest, aliases, tags, metadata, files}; link; input and output (lineage).
    Blobs are named by their MD5 and lie in the data folder's `blobs/`. Keys are not exported.
    """
    store = open_store(data)
    part = out.with_name(f".{out.name}.part")
    count = 0
    try:
        with store.read() as db, part.open("w", encoding="utf-8") as file:
            for item in _items(db):
                file.write(json.dumps(item, ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
        store.close()
    return count


_PROJECT = "p.entity || '/' || p.name"
_RUN = "p.entity || '/' || p.name || '/' || r.name"
_COLLECTION = "p.entity || '/' || p.name || '/' || c.name"
_OF_RUN = "JOIN runs r ON r.id = x.run JOIN projects p ON p.id = r.project"
_VERSION = f"""{_COLLECTION} || ':v' || m.version FROM artifacts a JOIN collections c ON c.id = a.collection
    JOIN projects p ON p.id = c.project JOIN memberships m ON m.artifact = a.id AND m.collection = a.collection"""

# The kinds in the order in which a reader needs them; columns that hold JSON are named in _JSON.
_KINDS = {
    "project": "SELECT p.entity, p.name, p.description, p.created_at FROM projects p ORDER BY p.id",
    "run": f"""SELECT {_PROJECT} AS project, r.name, r.user, r.display_name, r.notes, r.group_name, r.job_type, r.state,
        r.exit_code, r.tags, r.config, r.summary, r.created_at, r.heartbeat_at
        FROM runs r JOIN projects p ON p.id = r.project ORDER BY r.id""",
    "line": f"SELECT {_RUN} AS run, x.stream, x.line, x.data FROM run_lines x {_OF_RUN}",
    "run_file": f"SELECT {_RUN} AS run, x.name, x.md5, x.size FROM run_files x {_OF_RUN} ORDER BY x.id",
    "collection": f"""SELECT {_COLLECTION} AS name, c.kind AS collection_kind, c.type, c.description, c.tags,
        c.created_at
        FROM tagged_collections c JOIN projects p ON p.id = c.project ORDER BY c.id""",
    "version": f"""SELECT {_COLLECTION} AS collection, v.version, v.digest, v.description, v.metadata, v.aliases,
        v.tags, v.size, v.created_at, (SELECT json_group_array(json_object('name', name, 'md5', md5, 'digest', digest,
        'size', size)) FROM artifact_files WHERE artifact = v.artifact) AS files
        FROM tagged_versions v JOIN collections c ON c.id = v.collection JOIN projects p ON p.id = c.project
        WHERE c.kind = 'SEQUENCE' ORDER BY v.id""",
    "link": f"""SELECT {_COLLECTION} AS collection, v.version, v.aliases,
        (SELECT {_VERSION} WHERE a.id = v.artifact) AS source
        FROM tagged_versions v JOIN collections c ON c.id = v.collection JOIN projects p ON p.id = c.project
        WHERE c.kind = 'PORTFOLIO' ORDER BY v.id""",
    "input": f"SELECT {_RUN} AS run, (SELECT {_VERSION} WHERE a.id = x.artifact) AS version"
    f" FROM run_inputs x {_OF_RUN}",
    "output": f"SELECT {_RUN} AS run, (SELECT {_VERSION} WHERE a.id = x.artifact) AS version"
    f" FROM run_outputs x {_OF_RUN}",
}
_JSON = {"tags", "config", "summary", "metadata", "aliases", "files"}


def _items(db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    for kind, sql in _KINDS.items():
        for row in db.execute(sql):
            yield {"kind": kind, **{name: _value(name, row[name]) for name in row.keys()}}  # noqa: SIM118


def _value(name: str, value: Any) -> Any:
    return json.loads(value) if name in _JSON and value is not None else value
