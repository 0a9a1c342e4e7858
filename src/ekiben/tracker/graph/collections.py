"""Artifact types, collections (sequences and portfolios), memberships and aliases."""

import sqlite3
from typing import Any, ClassVar

from ekiben.tracker.graph import filters
from ekiben.tracker.graph.base import Context, Row, listing, page, to_id
from ekiben.tracker.graphql import Args, GraphQLError, Node, field


class ArtifactType(Node):
    typename = "ArtifactType"

    def __init__(self, context: Context, project: int, row: sqlite3.Row) -> None:
        self.context = context
        self.project = project
        self.row = row

    @field
    def id(self, args: Args) -> str:
        return to_id(f"ArtifactType:{self.row['type']}", self.project)

    @field
    def name(self, args: Args) -> str:
        return str(self.row["type"])

    @field
    def description(self, args: Args) -> None:
        return None

    @field
    def created_at(self, args: Args) -> str:
        return str(self.row["created_at"])

    @field
    def artifact_collection(self, args: Args) -> "Collection | None":
        row = self.context.one(
            "SELECT * FROM collections WHERE project = ? AND type = ? AND name = ?",
            self.project,
            self.row["type"],
            args.text("name", 10_000),
        )
        return Collection(self.context, row) if row else None

    @field
    def artifact_collections(self, args: Args) -> dict[str, Any]:
        return collections_page(self.context, args, "project = ? AND type = ?", [self.project, self.row["type"]])


def collections_page(context: Context, args: Args, scope: str, parameters: list[Any]) -> dict[str, Any]:
    where, more = filters.where(args.json("filters"), filters.COLLECTIONS)
    key, descending = filters.order(args.optional_text("order"), filters.COLLECTIONS, "-id")
    return page(
        context,
        args,
        f"SELECT * FROM tagged_collections WHERE {scope} AND {where}",
        (*parameters, *more),
        lambda row: Collection(context, row),
        key=key,
        descending=descending,
    )


class Collection(Row):
    typename = "ArtifactCollection"
    also = ("ArtifactCollection",)
    table = "collections"
    plain: ClassVar = {
        "name": "name",
        "description": "description",
        "createdAt": "created_at",
        "updatedAt": "updated_at",
    }

    def __init__(self, context: Context, row: sqlite3.Row) -> None:
        super().__init__(context, row)
        self.typename = "ArtifactPortfolio" if row["kind"] == "PORTFOLIO" else "ArtifactSequence"

    def membership(self, alias: str) -> "Membership | None":
        """The version that `vN` or an alias names."""
        row = None
        if alias[:1] == "v" and alias[1:].isdecimal() and len(alias) < 19:
            row = self.context.one(
                "SELECT * FROM memberships WHERE collection = ? AND version = ?", self.key, int(alias[1:])
            )
        row = row or self.context.one(
            "SELECT m.* FROM aliases a JOIN memberships m ON m.id = a.membership"
            " WHERE a.collection = ? AND a.alias = ?",
            self.key,
            alias,
        )
        return Membership(self.context, row) if row else None

    @field
    def state(self, args: Args) -> str:
        return "READY"

    @field
    def project(self, args: Args) -> Row | None:
        return self.context.node("Project", self.row["project"])

    @field
    def default_artifact_type(self, args: Args) -> dict[str, Any]:
        return {"__typename": "ArtifactType", "name": self.row["type"]}

    @field
    def digest_algorithm(self, args: Args) -> str:
        return "MANIFEST_MD5"

    @field
    def tags(self, args: Args) -> dict[str, Any]:
        rows = self.context.db.execute("SELECT tag FROM collection_tags WHERE collection = ? ORDER BY tag", (self.key,))
        return listing([tag(row["tag"]) for row in rows])

    @field
    def aliases(self, args: Args) -> dict[str, Any]:
        return page(
            self.context,
            args,
            "SELECT alias, membership AS id FROM aliases WHERE collection = ?",
            [self.key],
            lambda row: alias_node(self, row["alias"]),
            key="alias",
        )

    @field
    def artifact_membership(self, args: Args) -> "Membership | None":
        return self.membership(args.text("aliasName", 10_000))

    @field
    def latest_artifact(self, args: Args) -> Row | None:
        latest = self.membership("latest")
        return self.context.node("Artifact", latest.row["artifact"]) if latest else None

    @field
    def artifacts(self, args: Args) -> dict[str, Any]:
        """Its versions; the newest first unless told otherwise, as the client expects."""
        found = memberships_page(self.context, args, "collection = ?", [self.key], "-version")
        for edge in found["edges"]:
            edge["version"] = f"v{edge['node'].row['version']}"
            edge["node"] = edge["node"].artifact(args)
        return found


def memberships_page(
    context: Context, args: Args, scope: str, parameters: list[Any], order: str = "+id"
) -> dict[str, Any]:
    where, more = filters.where(args.json("filters"), filters.VERSIONS)
    key, descending = filters.order(args.optional_text("order"), filters.VERSIONS, order)
    return page(
        context,
        args,
        f"SELECT * FROM tagged_versions WHERE {scope} AND {where}",
        (*parameters, *more),
        lambda row: Membership(context, row),
        key=key,
        descending=descending,
    )


class Membership(Row):
    typename = "ArtifactCollectionMembership"
    table = "memberships"
    plain: ClassVar = {"versionIndex": "version", "createdAt": "created_at"}

    @field
    def artifact_collection(self, args: Args) -> Row | None:
        return self.context.node("ArtifactCollection", self.row["collection"])

    @field
    def artifact(self, args: Args) -> Row | None:
        return self.context.node("Artifact", self.row["artifact"])

    @field
    def aliases(self, args: Args) -> list[dict[str, Any]]:
        rows = self.context.db.execute("SELECT alias FROM aliases WHERE membership = ? ORDER BY alias", (self.key,))
        collection = self.context.node("ArtifactCollection", self.row["collection"])
        return [alias_node(collection, row["alias"]) for row in rows]

    @field
    def files(self, args: Args) -> dict[str, Any]:
        artifact: Any = self.context.node("Artifact", self.row["artifact"])
        found: dict[str, Any] = artifact.files_page(args)
        return found


def find_collection(context: Context, given: Args) -> int:
    """The collection that an input's entityName, projectName and artifactCollectionName name. Raises GraphQLError."""
    entity, project = (
        given.optional_text("entityName", 10_000) or context.user.entity,
        given.text("projectName", 10_000),
    )
    name = given.text("artifactCollectionName", 10_000)
    found = context.value(
        "SELECT c.id FROM collections c JOIN projects p ON p.id = c.project"
        " WHERE p.entity = ? AND p.name = ? AND c.name = ?",
        entity,
        project,
        name,
    )
    if found is None:
        raise GraphQLError(f"no collection {name[:80]!r} in {entity[:80]}/{project[:80]}")
    return int(found)


def tag(name: str) -> dict[str, Any]:
    return {"__typename": "Tag", "id": to_id(f"Tag:{name}", 0), "name": name}


def alias_node(collection: Row | None, alias: str) -> dict[str, Any]:
    owner = collection.key if collection else 0
    return {
        "__typename": "ArtifactAlias",
        "id": to_id(f"ArtifactAlias:{alias}", owner),
        "alias": alias,
        "artifactCollection": collection,
    }
