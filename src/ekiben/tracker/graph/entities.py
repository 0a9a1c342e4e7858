"""Entities, organisations and users. Here an entity is a name space and nothing more, and its own organisation."""

from typing import Any

from ekiben.tracker.graph import filters
from ekiben.tracker.graph.base import Context, Row, listing, page, to_id
from ekiben.tracker.graph.collections import collections_page, memberships_page
from ekiben.tracker.graphql import Args, Node, field


class Entity(Node):
    typename = "Entity"

    def __init__(self, context: Context, name: str) -> None:
        self.context = context
        self._name = name

    @field
    def id(self, args: Args) -> str:
        return to_id(f"Entity:{self._name}", 0)

    @field
    def name(self, args: Args) -> str:
        return self._name

    @field
    def entity_type(self, args: Args) -> str:
        return "organization"

    @field
    def is_team(self, args: Args) -> bool:
        return True

    @field
    def organization(self, args: Args) -> "Organization":
        return Organization(self.context, self._name)

    @field
    def user(self, args: Args) -> None:
        return None  # no entity is a person's own; the client then asks the organisation

    @field
    def xxhash_digests_enabled(self, args: Args) -> bool:
        return False

    @field
    def project(self, args: Args) -> Row | None:
        row = self.context.one(
            "SELECT id FROM projects WHERE entity = ? AND name = ?", self._name, args.text("name", 10_000)
        )
        return self.context.node("Project", row["id"]) if row else None

    @field
    def projects(self, args: Args) -> dict[str, Any]:
        """Its projects: what asks an organisation for them means its registries."""
        where, parameters = filters.where(args.json("filters"), filters.PROJECTS)
        key, descending = filters.order(args.optional_text("order"), filters.PROJECTS, "+id")
        return page(
            self.context,
            args,
            f"SELECT *, created_at AS updated_at FROM projects WHERE entity = ? AND {where}",
            (self._name, *parameters),
            lambda row: Row.registry["Project"](self.context, row),
            key=key,
            descending=descending,
        )

    @field
    def artifact_collections(self, args: Args) -> dict[str, Any]:
        kinds = args.texts("collectionTypes") or ["SEQUENCE", "PORTFOLIO"]
        scope, parameters = self._projects(args)
        kind = f"AND kind IN ({','.join('?' * len(kinds))})"
        return collections_page(self.context, args, f"{scope} {kind}", [*parameters, *kinds])

    @field
    def artifact_memberships(self, args: Args) -> dict[str, Any]:
        scope, parameters = self._projects(args)
        where, more = filters.where(args.json("collectionFilters"), filters.COLLECTIONS)
        within = f"collection IN (SELECT id FROM tagged_collections WHERE {scope} AND kind = 'PORTFOLIO' AND {where})"
        return memberships_page(self.context, args, within, [*parameters, *more])

    def _projects(self, args: Args) -> tuple[str, list[Any]]:
        where, parameters = filters.where(args.json("projectFilters"), filters.PROJECTS)
        return f"project IN (SELECT id FROM projects WHERE entity = ? AND {where})", [self._name, *parameters]


class Organization(Node):
    typename = "Organization"

    def __init__(self, context: Context, name: str) -> None:
        self.context = context
        self._name = name

    @field
    def id(self, args: Args) -> str:
        return to_id(f"Organization:{self._name}", 0)

    @field
    def name(self, args: Args) -> str:
        return self._name

    @field
    def org_entity(self, args: Args) -> Entity:
        return Entity(self.context, self._name)

    @field
    def core_weave_organization_id(self, args: Args) -> None:
        return None

    @field
    def feature_flags(self, args: Args) -> list[Any]:
        return []

    @field
    def advanced_registry_features(self, args: Args) -> dict[str, Any]:
        return {"__typename": "AdvancedRegistryFeatures", "advancedSearch": False}


def user(context: Context, name: str = "") -> dict[str, Any]:
    """The user who asks, or another by name; all that is known of users are the names of their keys."""
    name = name or context.user.name
    return {
        "__typename": "User",
        "id": to_id(f"User:{name}", 0),
        "name": name,
        "username": name,
        "email": "",
        "admin": context.user.admin,
        "flags": "{}",
        "entity": context.user.entity,
        "deletedAt": None,
        "apiKeys": listing([]),
        "teams": listing([{"name": context.user.entity}]),
        "organizations": lambda: [Organization(context, context.user.entity)],
    }
