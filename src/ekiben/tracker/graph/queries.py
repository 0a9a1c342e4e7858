"""The root of all queries."""

from typing import Any

from ekiben.tracker.graph.base import Context, Row, page, to_id
from ekiben.tracker.graph.entities import Entity, Organization, user
from ekiben.tracker.graph.projects import Project, find_project
from ekiben.tracker.graphql import Args, Node, field, field_named

# What this server can do of what the client asks servers for; the names are the client's.
FEATURES = (
    "LARGE_FILENAMES",
    "ARTIFACT_TAGS",
    "ARTIFACT_REGISTRY_SEARCH",
    "INCLUDE_ARTIFACT_TYPES_IN_REGISTRY_CREATION",
    "ARTIFACT_COLLECTION_MEMBERSHIP_FILES",
    "ARTIFACT_COLLECTIONS_FILTERING_SORTING",
    "ARTIFACT_DIGEST_ALGORITHM",
    "ARTIFACT_MEMBERSHIP_IN_LINK_ARTIFACT_RESPONSE",
    "MARK_RUN_FILES_UPLOADED",
    "PROJECT_ARTIFACT_COLLECTION_MEMBERSHIP",
    "TOTAL_COUNT_IN_FILE_CONNECTION",
    "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
)


class Query(Node):
    typename = "Query"

    def __init__(self, context: Context) -> None:
        self.context = context

    @field
    def viewer(self, args: Args) -> dict[str, Any]:
        return user(self.context)

    @field
    def server_info(self, args: Args) -> dict[str, Any]:
        return {
            "__typename": "ServerInfo",
            "features": [{"__typename": "ServerFeature", "name": name, "isEnabled": True} for name in FEATURES],
            "cliVersionInfo": {"max_cli_version": "0.31.99", "min_cli_version": "0.28.0"},
            "latestLocalVersionInfo": None,
        }

    @field
    def entity(self, args: Args) -> Entity:
        return Entity(self.context, args.optional_text("name", 10_000) or self.context.user.entity)

    @field
    def organization(self, args: Args) -> Organization:
        return Organization(self.context, args.text("name", 10_000))

    @field
    def project(self, args: Args) -> Project | None:
        row = find_project(
            self.context, args.optional_text("entityName", 10_000) or "", args.optional_text("name", 10_000) or ""
        )
        return Project(self.context, row) if row else None

    @field
    def model(self, args: Args) -> Project | None:
        return self.project(args)

    @field
    def models(self, args: Args) -> dict[str, Any]:
        return page(
            self.context,
            args,
            "SELECT * FROM projects WHERE entity = ?",
            [args.optional_text("entityName", 10_000) or self.context.user.entity],
            lambda row: Project(self.context, row),
        )

    @field
    def artifact(self, args: Args) -> Row:
        return self.context.found("Artifact", args.text("id"))

    @field
    def artifact_collection(self, args: Args) -> Row:
        return self.context.found("ArtifactCollection", args.text("id"))

    @field_named("clientIDMapping")
    def client_id_mapping(self, args: Args) -> dict[str, Any] | None:
        """The artifact that a draft, known by the id its client gave it, has become."""
        found = self.context.value("SELECT artifact FROM client_ids WHERE client_id = ?", args.text("clientID"))
        return {"serverID": to_id("Artifact", found)} if found is not None else None
