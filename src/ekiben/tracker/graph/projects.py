"""Projects, entities, organisations and users."""

import sqlite3
from typing import Any, ClassVar

from ekiben.tracker.graph import filters
from ekiben.tracker.graph.base import Context, Row, listing, page, to_id
from ekiben.tracker.graph.collections import ArtifactType, Collection, collections_page
from ekiben.tracker.graph.entities import Entity, user
from ekiben.tracker.graphql import Args, field
from ekiben.tracker.paths import check_name
from ekiben.tracker.store import now

REGISTRY_PREFIX = "wandb-registry-"


def find_project(context: Context, entity: str, name: str) -> sqlite3.Row | None:
    return context.one("SELECT * FROM projects WHERE entity = ? AND name = ?", entity or context.user.entity, name)


def ensure_project(context: Context, entity: str, name: str) -> sqlite3.Row:
    """The project, made if it is new: W&B makes one with the first run."""
    entity = entity or context.user.entity
    check_name("entity", entity)
    check_name("project", name)
    context.db.execute(
        "INSERT INTO projects (entity, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (entity, name, now())
    )
    project = find_project(context, entity, name)
    assert project is not None
    return project


class Project(Row):
    typename = "Project"
    table = "projects"
    plain: ClassVar = {
        "name": "name",
        "entityName": "entity",
        "description": "description",
        "access": "access",
        "createdAt": "created_at",
        "updatedAt": "created_at",
    }

    @field
    def internal_id(self, args: Args) -> str:
        return to_id("ProjectInternalId", self.key)

    @field
    def entity(self, args: Args) -> Entity:
        return Entity(self.context, self.row["entity"])

    @field
    def user(self, args: Args) -> dict[str, Any]:
        return user(self.context)

    @field
    def views(self, args: Args) -> None:
        return None

    @field
    def is_benchmark(self, args: Args) -> bool:
        return False

    @field
    def read_only(self, args: Args) -> bool:
        return False

    @field
    def allow_all_artifact_types_in_registry(self, args: Args) -> bool:
        return True

    @field
    def members(self, args: Args) -> list[Any]:
        return []  # whoever has a key may do everything; there are no roles to list

    @field
    def team_members(self, args: Args) -> list[Any]:
        return []

    @field
    def run(self, args: Args) -> Row | None:
        return self.context.node("Run", self._run_id(args.text("name", 10_000)))

    @field
    def bucket(self, args: Args) -> Row | None:
        return self.run(args)

    def _run_id(self, name: str) -> int | None:
        found: int | None = self.context.value("SELECT id FROM runs WHERE project = ? AND name = ?", self.key, name)
        return found

    @field
    def run_count(self, args: Args) -> int:
        where, parameters = filters.where(args.json("filters"), filters.RUNS)
        return int(
            self.context.value(f"SELECT COUNT(*) FROM runs WHERE project = ? AND {where}", self.key, *parameters)
        )

    @field
    def runs(self, args: Args) -> dict[str, Any]:
        where, parameters = filters.where(args.json("filters"), filters.RUNS)
        key, descending = filters.order(args.optional_text("order"), filters.RUNS, "+created_at")
        return page(
            self.context,
            args,
            f"SELECT * FROM runs WHERE project = ? AND {where}",
            (self.key, *parameters),
            lambda row: Row.registry["Run"](self.context, row),
            key=key,
            descending=descending,
        )

    @field
    def artifact(self, args: Args) -> Row | None:
        membership = self.artifact_collection_membership(args)
        return self.context.node("Artifact", membership.row["artifact"]) if membership else None

    @field
    def artifact_collection_membership(self, args: Args) -> Row | None:
        """By `collection:alias`, `collection:vN` or `collection` alone, which means its latest."""
        name, _, alias = args.text("name", 10_000).partition(":")
        collection = self._collection(name)
        return collection.membership(alias or "latest") if collection else None

    def _collection(self, name: str) -> Collection | None:
        row = self.context.one("SELECT * FROM collections WHERE project = ? AND name = ?", self.key, name)
        return Collection(self.context, row) if row else None

    @field
    def artifact_collection(self, args: Args) -> Collection | None:
        return self._collection(args.text("name", 10_000))

    @field
    def artifact_collections(self, args: Args) -> dict[str, Any]:
        return collections_page(self.context, args, "project = ?", [self.key])

    @field
    def artifact_type(self, args: Args) -> ArtifactType | None:
        return next(iter(self._types(args.text("name", 10_000))), None)

    @field
    def artifact_types(self, args: Args) -> dict[str, Any]:
        return listing(self._types())

    def _types(self, name: str | None = None) -> list[ArtifactType]:
        rows = self.context.db.execute(
            "SELECT type, MIN(created_at) AS created_at FROM collections"
            " WHERE project = ? AND type = COALESCE(?, type) GROUP BY type ORDER BY type",
            (self.key, name),
        )
        return [ArtifactType(self.context, self.key, row) for row in rows]
