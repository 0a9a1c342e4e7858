"""Pages for people: projects, runs with their curves, collections with their versions; at W&B's own addresses."""

import json
import sqlite3
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ekiben.tracker.access import authenticate
from ekiben.tracker.curves import HEIGHT, WIDTH, curves
from ekiben.tracker.graph.runs import HISTORY

if TYPE_CHECKING:
    from jinja2 import Template

NEWEST = 200  # rows of a list that are shown
# No script, nothing from elsewhere: whatever a name or a note holds, it is text.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


async def show(request: Request) -> Response:
    authenticate(request)
    return HTMLResponse(await run_in_threadpool(_render, request), headers=HEADERS)


def _render(request: Request) -> str:
    wanted = request.path_params
    with request.app.state.tracker.store.read() as db:
        if "run" in wanted:
            return _template("run.html").render(_run(db, **wanted))
        if "collection" in wanted:
            return _template("collection.html").render(_collection(db, **wanted))
        if "project" in wanted:
            return _template("project.html").render(_project(db, **wanted))
        return _template("projects.html").render(projects=_rows(db, _PROJECTS))


_PROJECTS = """
SELECT p.*, (SELECT COUNT(*) FROM runs WHERE project = p.id) AS runs,
    (SELECT COUNT(*) FROM collections WHERE project = p.id) AS collections
FROM projects p ORDER BY p.entity, p.name"""
_RUNS = """
SELECT *, run_state(state, heartbeat_at) AS shown_state FROM runs WHERE project = ? ORDER BY id DESC LIMIT ?"""
_COLLECTIONS = """
SELECT c.*, (SELECT COUNT(*) FROM memberships WHERE collection = c.id) AS versions,
    (SELECT json_group_array(json_array(a.alias, m.version)) FROM aliases a JOIN memberships m ON m.id = a.membership
     WHERE a.collection = c.id) AS aliases
FROM collections c WHERE c.project = ? ORDER BY c.type = 'model' DESC, c.name LIMIT ?"""
_VERSIONS = "SELECT * FROM tagged_versions WHERE collection = ? ORDER BY version DESC LIMIT ?"
_LOGGED_BY = "SELECT r.* FROM artifacts a JOIN runs r ON r.id = a.created_by WHERE a.id = ?"
_USED_BY = "SELECT r.* FROM run_inputs i JOIN runs r ON r.id = i.run WHERE i.artifact = ? ORDER BY i.created_at"
_PLACES = """
SELECT p.entity, p.name AS project, c.name, c.type, c.kind, m.version FROM memberships m
JOIN collections c ON c.id = m.collection JOIN projects p ON p.id = c.project WHERE m.artifact = ? AND c.id != ?"""
_OF_RUN = """
SELECT p.entity, p.name AS project, c.name, c.type, m.version FROM {table} x JOIN artifacts a ON a.id = x.artifact
JOIN collections c ON c.id = a.collection JOIN projects p ON p.id = c.project
JOIN memberships m ON m.artifact = a.id AND m.collection = c.id WHERE x.run = ? ORDER BY x.created_at LIMIT ?"""


def _project(db: sqlite3.Connection, entity: str, project: str) -> dict[str, Any]:
    found = _find(db, entity, project)
    collections = _rows(db, _COLLECTIONS, found["id"], NEWEST)
    for collection in collections:
        collection["aliases"] = json.loads(collection["aliases"])
    return {"project": found, "runs": _rows(db, _RUNS, found["id"], NEWEST), "collections": collections}


def _run(db: sqlite3.Connection, entity: str, project: str, run: str) -> dict[str, Any]:
    found = _find(db, entity, project)
    row = _one(db, "SELECT *, run_state(state, heartbeat_at) AS shown_state FROM runs", found["id"], run)
    lines = db.execute(
        "SELECT step, data FROM run_lines WHERE run = ? AND stream = ? ORDER BY line", (row["id"], HISTORY)
    )
    return {
        "project": found,
        "run": row,
        "curves": curves((line["step"], line["data"]) for line in lines),
        "width": WIDTH,
        "height": HEIGHT,
        "config": _config(row["config"]),
        "summary": _plain(json.loads(row["summary"])),
        "inputs": _rows(db, _OF_RUN.format(table="run_inputs"), row["id"], NEWEST),
        "outputs": _rows(db, _OF_RUN.format(table="run_outputs"), row["id"], NEWEST),
    }


def _collection(db: sqlite3.Connection, entity: str, project: str, kind: str, collection: str) -> dict[str, Any]:
    found = _find(db, entity, project)
    row = _one(db, "SELECT * FROM collections", found["id"], collection.partition(":")[0])
    versions = _rows(db, _VERSIONS, row["id"], NEWEST)
    for version in versions:
        version["aliases"], version["tags"] = json.loads(version["aliases"]), json.loads(version["tags"])
        version["metadata"] = _plain(json.loads(version["metadata"] or "{}"))
        version["by"] = _linked_runs(db, _LOGGED_BY, version["artifact"])
        version["used"] = _linked_runs(db, _USED_BY, version["artifact"])
        version["places"] = _rows(db, _PLACES, version["artifact"], row["id"])
    return {"project": found, "collection": row, "versions": versions}


def _linked_runs(db: sqlite3.Connection, sql: str, artifact: int) -> list[dict[str, Any]]:
    """Runs of a version's lineage. What a run says of a Bento or a release in its config is the lineage's next link."""
    runs = _rows(db, sql, artifact)
    for run in runs:
        config = dict(_config(run["config"]))
        run["became"] = [(key, config[key]) for key in ("bento", "image", "release") if key in config]
        owner = db.execute("SELECT entity, name FROM projects WHERE id = ?", (run["project"],)).fetchone()
        run["path"] = f"/{owner['entity']}/{owner['name']}/runs/{run['name']}"
    return runs


def _find(db: sqlite3.Connection, entity: str, project: str) -> dict[str, Any]:
    found = _rows(db, "SELECT * FROM projects WHERE entity = ? AND name = ?", entity, project)
    if not found:
        raise HTTPException(404, f"no project {entity}/{project}")
    return found[0]


def _one(db: sqlite3.Connection, select: str, project: int, name: str) -> dict[str, Any]:
    found = _rows(db, f"{select} WHERE project = ? AND name = ?", project, name)
    if not found:
        raise HTTPException(404, f"nothing is named {name} in that project")
    return found[0]


def _rows(db: sqlite3.Connection, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(sql, parameters)]


def _config(text: str) -> list[tuple[str, str]]:
    values = {key: item.get("value") if isinstance(item, dict) else item for key, item in json.loads(text).items()}
    return _plain(values)


def _plain(values: dict[str, Any]) -> list[tuple[str, str]]:
    shown = {key: value for key, value in values.items() if not key.startswith("_")}
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in sorted(shown.items())]


@cache
def _template(name: str) -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here, since most trackers never show a page

    environment = Environment(
        loader=PackageLoader("ekiben.tracker"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["bytes"] = _bytes
    return environment.get_template(name)


def _bytes(size: int) -> str:
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}" if unit != "B" else f"{size} B"


ROUTES = [
    Route("/", show),
    Route("/{entity}/{project}", show),
    Route("/{entity}/{project}/runs/{run}", show),
    Route("/{entity}/{project}/artifacts/{kind}/{collection}", show),
]
