"""What changes committed versions: aliases, tags, metadata, links, deletion; and what records their use."""

from typing import Any

from ekiben.tracker.graph.base import Context, Row, to_id
from ekiben.tracker.graph.collections import find_collection
from ekiben.tracker.graph.placing import place, remove_alias, set_alias, settle_latest
from ekiben.tracker.graph.projects import ensure_project
from ekiben.tracker.graph.run_mutations import find_run
from ekiben.tracker.graphql import Args, GraphQLError, Node, field
from ekiben.tracker.paths import check_name
from ekiben.tracker.store import now


class VersionMutations(Node):
    typename = "Mutation"
    context: Context

    @field
    def use_artifact(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        artifact = self._committed(given.text("artifactID"))
        run = find_run(
            self.context,
            given.optional_text("entityName", 10_000) or "",
            given.text("projectName", 10_000),
            given.text("runName", 10_000),
        )
        self.context.db.execute(
            "INSERT INTO run_inputs VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET used_as = excluded.used_as",
            (run.key, artifact.key, given.optional_text("usedAs"), now()),
        )
        return {"artifact": artifact}

    @field
    def add_aliases(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        artifact = self._committed(given.text("artifactID"))
        for alias in given.objects("aliases"):
            set_alias(self.context, find_collection(self.context, alias), alias.text("alias", 10_000), artifact.key)
        return {"success": True}

    @field
    def delete_aliases(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        artifact = self._committed(given.text("artifactID"))
        for alias in given.objects("aliases"):
            remove_alias(self.context, find_collection(self.context, alias), alias.text("alias", 10_000), artifact.key)
        return {"success": True}

    @field
    def update_artifact(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        artifact = self.context.found("Artifact", given.text("artifactID"))
        changes: dict[str, Any] = {"updated_at": now()}
        if given.has("description"):
            changes["description"] = given.text("description", 100_000)
        if given.has("metadata"):
            given.json("metadata")
            changes["metadata"] = given.text("metadata", 16 << 20)
        if (ttl := given.integer("ttlDurationSeconds")) is not None:
            # W&B's words: -1 kept for ever, -2 as the collection's default, which here is for ever too.
            changes["ttl_seconds"] = ttl if ttl > 0 else None
        columns = ", ".join(f"{column} = ?" for column in changes)
        db = self.context.db
        db.execute(f"UPDATE artifacts SET {columns} WHERE id = ?", (*changes.values(), artifact.key))
        for tag in given.objects("tagsToAdd"):
            db.execute("INSERT OR IGNORE INTO artifact_tags VALUES (?, ?)", (artifact.key, tag.text("tagName", 128)))
        for tag in given.objects("tagsToDelete"):
            db.execute("DELETE FROM artifact_tags WHERE artifact = ? AND tag = ?", (artifact.key, tag.text("tagName")))
        return {"artifact": self.context.node("Artifact", artifact.key)}

    @field
    def delete_artifact(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        artifact = self.context.found("Artifact", given.text("artifactID"))
        named = self.context.one(
            "SELECT a.alias FROM memberships m JOIN aliases a ON a.membership = m.id"
            " WHERE m.artifact = ? AND a.alias != 'latest'",
            artifact.key,
        )
        if named is not None and not given.flag("deleteAliases"):
            raise GraphQLError(f"the version has the alias {named[0]!r}; delete_aliases=True deletes it all the same")
        within = self.context.db.execute(
            "SELECT collection FROM memberships WHERE artifact = ?", (artifact.key,)
        ).fetchall()
        self.context.db.execute("DELETE FROM artifacts WHERE id = ?", (artifact.key,))
        for row in within:
            settle_latest(self.context.db, row["collection"])
        return {"artifact": artifact, "success": True}

    @field
    def link_artifact(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        artifact = self._committed(self._artifact_id(given))
        portfolio = self._portfolio(given, artifact)
        membership = place(self.context, portfolio, artifact.key)
        for alias in ["latest", *(item.text("alias", 10_000) for item in given.objects("aliases"))]:
            set_alias(self.context, portfolio, alias, artifact.key)
        node = self.context.node("ArtifactCollectionMembership", membership)
        assert node is not None
        return {"versionIndex": node.row["version"], "artifactMembership": node}

    def _artifact_id(self, given: Args) -> str:
        if given.has("artifactID"):
            return given.text("artifactID")
        found = self.context.value("SELECT artifact FROM client_ids WHERE client_id = ?", given.text("clientID"))
        if found is None:
            raise GraphQLError("linkArtifact: neither artifactID nor clientID names an artifact")
        return to_id("Artifact", found)

    def _portfolio(self, given: Args, artifact: Row) -> int:
        if given.has("artifactPortfolioID"):
            return self.context.found("ArtifactCollection", given.text("artifactPortfolioID")).key
        name = given.text("artifactPortfolioName", 10_000)
        check_name("collection", name)
        project = ensure_project(
            self.context, given.optional_text("entityName", 10_000) or "", given.text("projectName", 10_000)
        )
        kind = self.context.value("SELECT type FROM collections WHERE id = ?", artifact.row["collection"])
        self.context.db.execute(
            "INSERT INTO collections (project, kind, type, name, created_at, updated_at)"
            " VALUES (?, 'PORTFOLIO', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (project["id"], kind, name, now(), now()),
        )
        row = self.context.one("SELECT * FROM collections WHERE project = ? AND name = ?", project["id"], name)
        assert row is not None
        if row["kind"] != "PORTFOLIO" or row["type"] != kind:
            raise GraphQLError(
                f"{project['name']}/{name} is a {row['kind'].lower()} of type {row['type']!r}:"
                f" a version of type {kind!r} cannot be linked to it"
            )
        return int(row["id"])

    @field
    def unlink_artifact(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        artifact = self._committed(given.text("artifactID"))
        portfolio = self.context.found("ArtifactCollection", given.text("artifactPortfolioID"))
        if portfolio.row["kind"] != "PORTFOLIO":
            raise GraphQLError(f"{portfolio.row['name']} is where the version was logged, not a link to it")
        done = self.context.db.execute(
            "DELETE FROM memberships WHERE collection = ? AND artifact = ?", (portfolio.key, artifact.key)
        )
        settle_latest(self.context.db, portfolio.key)
        return {"success": done.rowcount > 0}

    def _committed(self, text: str) -> Row:
        artifact = self.context.found("Artifact", text)
        if artifact.row["state"] != "COMMITTED":
            raise GraphQLError("the artifact is still being uploaded")
        return artifact
