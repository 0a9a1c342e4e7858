"""What changes runs."""

import json
from typing import Any

from ekiben.tracker.graph.base import Context, Row
from ekiben.tracker.graph.projects import ensure_project, find_project
from ekiben.tracker.graph.runs import Run
from ekiben.tracker.graphql import Args, GraphQLError, Node, field
from ekiben.tracker.paths import check_name, check_path
from ekiben.tracker.store import now

_TEXTS = {
    "displayName": "display_name",
    "description": "description",
    "notes": "notes",
    "groupName": "group_name",
    "jobType": "job_type",
    "host": "host",
    "jobProgram": "program",
    "jobRepo": "repo",
    "commit": "git_commit",
    "state": "state",
    "sweep": "sweep",
}
LONG = 100_000  # characters of a note or description


class RunMutations(Node):
    typename = "Mutation"
    context: Context

    @field
    def upsert_bucket(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        run, inserted = self._run(given)
        self._change(run, given)
        return {"bucket": self.context.node("Run", run), "inserted": inserted, "clientMutationId": None}

    def _run(self, given: Args) -> tuple[int, bool]:
        """The run that the input names, by id or by project and name; made if it is new."""
        if given.has("id"):
            return self.context.found("Run", given.text("id")).key, False
        name = given.text("name", 10_000)
        check_name("run", name)
        project = ensure_project(
            self.context,
            given.optional_text("entityName", 10_000) or "",
            given.optional_text("modelName", 10_000) or "uncategorized",
        )
        found = self.context.value("SELECT id FROM runs WHERE project = ? AND name = ?", project["id"], name)
        if found is not None:
            return found, False
        made = self.context.db.execute(
            "INSERT INTO runs (project, name, user, display_name, state, created_at, heartbeat_at)"
            " VALUES (?, ?, ?, ?, 'running', ?, ?)",
            (project["id"], name, self.context.user.name, name, now(), now()),
        )
        assert made.lastrowid is not None
        return made.lastrowid, True

    def _change(self, run: int, given: Args) -> None:
        changes: dict[str, Any] = {column: given.text(name, LONG) for name, column in _TEXTS.items() if given.has(name)}
        if given.has("config"):
            changes["config"] = json.dumps(_object(given, "config"))
        if given.has("summaryMetrics"):
            changes["summary"] = json.dumps(_object(given, "summaryMetrics"))
        if given.has("tags"):
            changes["tags"] = json.dumps(given.texts("tags"))
        changes["heartbeat_at"] = now()
        columns = ", ".join(f"{column} = ?" for column in changes)
        self.context.db.execute(f"UPDATE runs SET {columns} WHERE id = ?", (*changes.values(), run))

    @field
    def delete_run(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        run = self.context.found("Run", given.text("id"))
        if given.flag("deleteArtifacts"):
            self.context.db.execute("DELETE FROM artifacts WHERE created_by = ?", (run.key,))
        self.context.db.execute("DELETE FROM runs WHERE id = ?", (run.key,))
        return {"clientMutationId": None, "success": True}

    @field
    def update_run_state(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        run = self.context.found("Run", given.text("id"))
        state, before = given.text("state"), run.fields["state"](run, Args({}, "state"))
        allowed = {"pending": ("running", "failed", "crashed", "preempted"), "failed": ("pending", "running")}
        if before not in allowed.get(state, ()):
            raise GraphQLError(f"a run cannot go from {before} to {state[:40]!r}")
        self.context.db.execute("UPDATE runs SET state = ? WHERE id = ?", (state, run.key))
        return {"success": True}

    @field
    def stop_run(self, args: Args) -> dict[str, Any]:
        run = self.context.found("Run", args.object("input").text("id"))
        self.context.db.execute("UPDATE runs SET stop_requested = 1 WHERE id = ?", (run.key,))
        return {"success": True, "clientMutationId": None}

    @field
    def create_run_files(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        run = self._named_run(given)
        names = given.texts("files", 10_000)
        for name in names:
            check_path(name)
        return {
            "runID": run.row["name"],
            "uploadHeaders": [],
            "files": [
                {"name": name, "uploadUrl": self.context.urls.put(f"/upload/run/{run.key}/{name}")} for name in names
            ],
        }

    @field
    def mark_run_files_uploaded(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        run = self._named_run(given)
        for name in given.texts("files", 10_000):
            if self.context.value("SELECT 1 FROM run_files WHERE run = ? AND name = ?", run.key, name) is None:
                raise GraphQLError(f"the file {name[:200]!r} of run {run.row['name']} has not been uploaded")
        return {"success": True}

    @field
    def delete_files(self, args: Args) -> dict[str, Any]:
        for text in args.object("input").texts("files"):
            self.context.db.execute("DELETE FROM run_files WHERE id = ?", (self.context.found("File", text).key,))
        return {"success": True}

    def _named_run(self, given: Args) -> Row:
        return find_run(
            self.context,
            given.optional_text("entityName", 10_000) or "",
            given.text("projectName", 10_000),
            given.text("runName", 10_000),
        )


def find_run(context: Context, entity: str, project: str, name: str) -> Run:
    """Raises GraphQLError where it is not there."""
    found = find_project(context, entity, project)
    row = context.one("SELECT * FROM runs WHERE project = ? AND name = ?", found["id"], name) if found else None
    if row is None:
        raise GraphQLError(f"no run {name[:80]!r} in {entity[:80]}/{project[:80]}")
    return Run(context, row)


def _object(given: Args, name: str) -> dict[str, Any]:
    value = given.json(name)
    if not isinstance(value, dict):
        raise GraphQLError(f"{name}: a JSON object is wanted")
    return value
