"""Artifacts and their files, as they are read."""

import mimetypes
import sqlite3
from typing import Any, ClassVar

from ekiben.tracker.graph.base import Row, listing, page, to_id
from ekiben.tracker.graph.collections import Membership, alias_node, tag
from ekiben.tracker.graphql import Args, GraphQLError, field


class Artifact(Row):
    typename = "Artifact"
    table = "artifacts"
    plain: ClassVar = {
        "state": "state",
        "description": "description",
        "metadata": "metadata",
        "digest": "digest",
        "digestAlgorithm": "digest_algorithm",
        "size": "size",
        "fileCount": "file_count",
        "historyStep": "history_step",
        "commitHash": "git_commit",
        "createdAt": "created_at",
        "updatedAt": "updated_at",
    }

    @field
    def artifact_sequence(self, args: Args) -> Row | None:
        return self.context.node("ArtifactCollection", self.row["collection"])

    @field
    def artifact_type(self, args: Args) -> dict[str, Any]:
        kind = self.context.value("SELECT type FROM collections WHERE id = ?", self.row["collection"])
        return {"__typename": "ArtifactType", "name": kind}

    @field
    def version_index(self, args: Args) -> int | None:
        """Its number in its own sequence; none until it is committed."""
        version: int | None = self.context.value(
            "SELECT version FROM memberships WHERE collection = ? AND artifact = ?", self.row["collection"], self.key
        )
        return version

    @field
    def ttl_duration_seconds(self, args: Args) -> int:
        # -1 is W&B's word for "kept for ever".
        return int(self.row["ttl_seconds"]) if self.row["ttl_seconds"] is not None else -1

    @field
    def ttl_is_inherited(self, args: Args) -> bool:
        return self.row["ttl_seconds"] is None

    @field
    def tags(self, args: Args) -> list[dict[str, Any]]:
        rows = self.context.db.execute("SELECT tag FROM artifact_tags WHERE artifact = ? ORDER BY tag", (self.key,))
        return [tag(row["tag"]) for row in rows]

    @field
    def aliases(self, args: Args) -> list[dict[str, Any]]:
        """Those in its own sequence and those in every collection it is linked to."""
        rows = self.context.db.execute(
            "SELECT a.alias, a.collection FROM memberships m JOIN aliases a ON a.membership = m.id"
            " WHERE m.artifact = ? ORDER BY m.id, a.alias",
            (self.key,),
        )
        return [alias_node(self.context.node("ArtifactCollection", row["collection"]), row["alias"]) for row in rows]

    @field
    def artifact_memberships(self, args: Args) -> dict[str, Any]:
        return page(
            self.context,
            args,
            "SELECT * FROM memberships WHERE artifact = ?",
            [self.key],
            lambda row: Membership(self.context, row),
        )

    @field
    def created_by(self, args: Args) -> Row | None:
        return self.context.node("Run", self.row["created_by"])

    @field
    def used_by(self, args: Args) -> dict[str, Any]:
        rows = self.context.db.execute(
            "SELECT r.* FROM run_inputs i JOIN runs r ON r.id = i.run WHERE i.artifact = ? ORDER BY i.created_at",
            (self.key,),
        )
        return listing([Row.registry["Run"](self.context, row) for row in rows])

    @field
    def current_manifest(self, args: Args) -> dict[str, Any] | None:
        md5 = self.row["manifest_md5"]
        if md5 is None:
            return None
        return {
            "__typename": "ArtifactManifest",
            "id": to_id("ArtifactManifest", self.key),
            "file": {
                "__typename": "File",
                "id": to_id("ManifestFile", self.key),
                "name": "wandb_manifest.json",
                "directUrl": self.context.urls.get(f"/download/{md5}/wandb_manifest.json"),
            },
        }

    @field
    def files(self, args: Args) -> dict[str, Any]:
        return self.files_page(args)

    def files_page(self, args: Args) -> dict[str, Any]:
        """Its files, or those of `names`, that are kept here (references to other places are not)."""
        names = args.texts("names", 10_000)
        among = f"AND name IN ({','.join('?' * len(names))})" if names else ""
        return page(
            self.context,
            args,
            "SELECT name AS id, name, md5, digest, size FROM artifact_files"
            f" WHERE artifact = ? AND md5 IS NOT NULL {among}",
            (self.key, *names),
            self.file,
            key="name",
        )

    @field
    def files_by_manifest_entries(self, args: Args) -> dict[str, Any]:
        wanted = [entry.text("digest") for entry in args.objects("entries")]
        found = {
            row["digest"]: row
            for row in self.context.db.execute(
                "SELECT name, md5, digest, size FROM artifact_files WHERE artifact = ? AND md5 IS NOT NULL", (self.key,)
            )
        }
        missing = [digest for digest in wanted if digest not in found]
        if missing:
            raise GraphQLError(f"the artifact holds no file with the digest {missing[0]!r}")
        return listing([self.file(found[digest]) for digest in wanted])

    def file(self, row: sqlite3.Row) -> dict[str, Any]:
        url = self.context.urls.get(f"/download/{row['md5']}/{row['name']}")
        return {
            "__typename": "File",
            "id": to_id(f"ArtifactFile:{row['name']}", self.key),
            "name": row["name"],
            "displayName": row["name"],
            "url": url,
            "directUrl": url,
            "sizeBytes": row["size"],
            "storagePath": f"blobs/{row['md5']}",
            "mimetype": mimetypes.guess_type(row["name"])[0],
            "updatedAt": self.row["updated_at"],
            "digest": row["digest"],
            "md5": row["digest"],
        }
