"""What changes collections and registries."""

from typing import Any

from ekiben.tracker.graph.base import Context, Row
from ekiben.tracker.graph.collections import find_collection, tag
from ekiben.tracker.graph.projects import REGISTRY_PREFIX, ensure_project, find_project
from ekiben.tracker.graphql import Args, GraphQLError, Node, field
from ekiben.tracker.paths import check_name
from ekiben.tracker.store import now

MAX_TAG = 128


class CollectionMutations(Node):
    typename = "Mutation"
    context: Context

    @field
    def update_artifact_sequence(self, args: Args) -> dict[str, Any]:
        return self._update(args.object("input"), "artifactSequenceID")

    @field
    def update_artifact_portfolio(self, args: Args) -> dict[str, Any]:
        return self._update(args.object("input"), "artifactPortfolioID")

    def _update(self, given: Args, id_name: str) -> dict[str, Any]:
        collection = self.context.found("ArtifactCollection", given.text(id_name))
        name = given.optional_text("name", 10_000) or collection.row["name"]
        check_name("collection", name)
        taken = self.context.value(
            "SELECT 1 FROM collections WHERE project = ? AND name = ? AND id != ?",
            collection.row["project"],
            name,
            collection.key,
        )
        if taken:
            raise GraphQLError(f"the project has another collection named {name!r}")
        description = given.optional_text("description", 100_000)
        self.context.db.execute(
            "UPDATE collections SET name = ?, description = COALESCE(?, description), updated_at = ? WHERE id = ?",
            (name, description, now(), collection.key),
        )
        return {"artifactCollection": self.context.node("ArtifactCollection", collection.key)}

    @field
    def move_artifact_sequence(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        collection = self.context.found("ArtifactCollection", given.text("artifactSequenceID"))
        kind = given.text("destinationArtifactTypeName", 10_000)
        check_name("artifact type", kind)
        self.context.db.execute("UPDATE collections SET type = ? WHERE id = ?", (kind, collection.key))
        return {"artifactCollection": self.context.node("ArtifactCollection", collection.key)}

    @field
    def delete_artifact_sequence(self, args: Args) -> dict[str, Any]:
        return self._delete(args.object("input").text("artifactSequenceID"))

    @field
    def delete_artifact_portfolio(self, args: Args) -> dict[str, Any]:
        return self._delete(args.object("input").text("artifactPortfolioID"))

    def _delete(self, text: str) -> dict[str, Any]:
        collection = self.context.found("ArtifactCollection", text)
        self.context.db.execute("DELETE FROM collections WHERE id = ?", (collection.key,))
        return {"artifactCollection": {"__typename": collection.typename, "state": "DELETED"}}

    @field
    def create_artifact_collection_tag_assignments(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        collection, names = find_collection(self.context, given), self._tags(given)
        self.context.db.executemany(
            "INSERT OR IGNORE INTO collection_tags VALUES (?, ?)", [(collection, name) for name in names]
        )
        return {"tags": [tag(name) for name in names]}

    @field
    def delete_artifact_collection_tag_assignments(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        collection = find_collection(self.context, given)
        self.context.db.executemany(
            "DELETE FROM collection_tags WHERE collection = ? AND tag = ?",
            [(collection, name) for name in self._tags(given)],
        )
        return {"success": True}

    def _tags(self, given: Args) -> list[str]:
        return [item.text("tagName", MAX_TAG) for item in given.objects("tags")]

    @field
    def upsert_model(self, args: Args) -> dict[str, Any]:
        """A project or, where its name begins so, a registry."""
        given = args.object("input")
        entity, name = given.optional_text("entityName", 10_000) or "", given.text("name", 10_000)
        inserted = find_project(self.context, entity, name) is None
        project = ensure_project(self.context, entity, name)
        self.context.db.execute(
            "UPDATE projects SET description = COALESCE(?, description), access = COALESCE(?, access) WHERE id = ?",
            (given.optional_text("description", 100_000), given.optional_text("access"), project["id"]),
        )
        node = self.context.node("Project", project["id"])
        return {"project": node, "model": node, "inserted": inserted}

    @field
    def rename_project(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        entity, name = given.text("entityName", 10_000), given.text("newProjectName", 10_000)
        project = find_project(self.context, entity, given.text("oldProjectName", 10_000))
        check_name("project", name)
        if project is None or find_project(self.context, entity, name):
            raise GraphQLError(f"the old project is not there, or one named {name!r} is already")
        self.context.db.execute("UPDATE projects SET name = ? WHERE id = ?", (name, project["id"]))
        return {"project": self.context.node("Project", project["id"]), "inserted": False}

    @field
    def delete_model(self, args: Args) -> dict[str, Any]:
        """Deletes a registry: the links in it, not the versions that they lead to."""
        project: Row = self.context.found("Project", args.object("input").text("id"))
        if not project.row["name"].startswith(REGISTRY_PREFIX):
            raise GraphQLError(f"{project.row['name']!r} is a project; only registries are deleted like this")
        self.context.db.execute("DELETE FROM projects WHERE id = ?", (project.key,))
        return {"success": True}
