"""How an artifact comes to be: draft, files, manifest, commit. Nothing of it is visible until the commit."""

import json
from typing import Any

from ekiben.tracker import manifest
from ekiben.tracker.graph.artifacts import Artifact
from ekiben.tracker.graph.base import Context, Row, from_id, listing, to_id
from ekiben.tracker.graph.placing import place, refuse_protected, set_alias
from ekiben.tracker.graph.projects import ensure_project
from ekiben.tracker.graph.run_mutations import find_run
from ekiben.tracker.graphql import Args, GraphQLError, Node, field
from ekiben.tracker.manifest import hex_digest
from ekiben.tracker.paths import check_name, check_path
from ekiben.tracker.store import now


class ArtifactMutations(Node):
    typename = "Mutation"
    context: Context

    @field
    def create_artifact(self, args: Args) -> dict[str, Any]:
        """A draft; or, where the collection already holds this content, that version with the new aliases."""
        given = args.object("input")
        db = self.context.db
        client_id = given.optional_text("clientID")
        known = self.context.value("SELECT artifact FROM client_ids WHERE client_id = ?", client_id)
        if known is not None:
            return self._created(known)  # the client repeats itself when it missed the answer
        if given.has("distributedID"):
            raise GraphQLError("distributed artifacts (upsert_artifact) are not something this server does")
        entity, project_name = given.optional_text("entityName", 10_000) or "", given.text("projectName", 10_000)
        run = find_run(self.context, entity, project_name, given.text("runName")) if given.has("runName") else None
        collection = self._sequence(given, entity, project_name)
        digest = given.text("digest", 64)
        wanted = {
            "aliases": [self._alias(item) for item in given.objects("aliases")],
            "tags": [tag.text("tagName", 128) for tag in given.objects("tags")],
        }
        artifact = self.context.value(
            "SELECT id FROM artifacts WHERE collection = ? AND digest = ? AND state = 'COMMITTED'", collection, digest
        )
        if artifact is not None and given.flag("enableDigestDeduplication"):
            self._give(artifact, collection, wanted)
        else:
            metadata = given.optional_text("metadata", 16 << 20)
            artifact = db.execute(
                "INSERT INTO artifacts (collection, state, digest, digest_algorithm, description, metadata,"
                " ttl_seconds, created_by, history_step, wanted, created_at)"
                " VALUES (?, 'PENDING', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    collection,
                    digest,
                    given.optional_text("digestAlgorithm", 64) or "MANIFEST_MD5",
                    given.optional_text("description", 100_000),
                    metadata,
                    given.integer("ttlDurationSeconds"),
                    run.key if run else None,
                    given.integer("historyStep"),
                    json.dumps(wanted),
                    now(),
                ),
            ).lastrowid
        if client_id:
            db.execute("INSERT INTO client_ids VALUES (?, ?)", (client_id, artifact))
        if run:
            db.execute("INSERT OR IGNORE INTO run_outputs VALUES (?, ?, ?)", (run.key, artifact, now()))
        assert artifact is not None
        return self._created(artifact)

    def _alias(self, item: Args) -> str:
        alias = item.text("alias", 10_000)
        check_name("alias", alias)
        refuse_protected(self.context, alias)  # now, before gigabytes are sent in vain
        return alias

    def _created(self, artifact: int) -> dict[str, Any]:
        return {"artifact": self.context.node("Artifact", artifact), "clientMutationId": None}

    def _sequence(self, given: Args, entity: str, project_name: str) -> int:
        names = given.texts("artifactCollectionNames", 10_000) or [given.text("artifactCollectionName", 10_000)]
        kind = given.text("artifactTypeName", 10_000)
        check_name("artifact", names[0])
        check_name("artifact type", kind)
        project = ensure_project(self.context, entity, project_name)
        self.context.db.execute(
            "INSERT INTO collections (project, kind, type, name, created_at, updated_at)"
            " VALUES (?, 'SEQUENCE', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (project["id"], kind, names[0], now(), now()),
        )
        row = self.context.one("SELECT * FROM collections WHERE project = ? AND name = ?", project["id"], names[0])
        assert row is not None
        if row["kind"] != "SEQUENCE" or row["type"] != kind:
            raise GraphQLError(
                f"{project_name}/{names[0]} is a {row['kind'].lower()} of type {row['type']!r}:"
                f" a version of type {kind!r} cannot be logged to it"
            )
        return int(row["id"])

    @field
    def create_artifact_manifest(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        kind = given.optional_text("type") or "FULL"
        draft = self._draft(given.text("artifactID"))
        if kind == "INCREMENTAL":
            wanted = json.loads(draft.row["wanted"])
            wanted["base"] = from_id("Artifact", given.text("baseArtifactID")) if given.has("baseArtifactID") else None
            self.context.db.execute("UPDATE artifacts SET wanted = ? WHERE id = ?", (json.dumps(wanted), draft.key))
        elif kind != "FULL":
            raise GraphQLError(f"a manifest of type {kind[:40]!r} is not something this server takes")
        return self._manifest(draft, given)

    @field
    def update_artifact_manifest(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        key = from_id("ArtifactManifest", given.text("artifactManifestID"))
        return self._manifest(self._draft(to_id("Artifact", key)), given)

    def _manifest(self, draft: Row, given: Args) -> dict[str, Any]:
        md5 = hex_digest(given.text("digest", 64)) if given.optional_text("digest") else None
        if md5:
            self.context.db.execute("UPDATE artifacts SET manifest_md5 = ? WHERE id = ?", (md5, draft.key))
        file = {
            "__typename": "File",
            "id": to_id("ManifestFile", draft.key),
            "name": "wandb_manifest.json",
            "uploadUrl": lambda: self.context.urls.put(f"/upload/blob/{md5}") if md5 else None,
            "uploadHeaders": [],
        }
        return {"artifactManifest": {"id": to_id("ArtifactManifest", draft.key), "file": file}}

    @field
    def create_artifact_files(self, args: Args) -> dict[str, Any]:
        """Where each file goes: nowhere if its bytes are here already, one address, or one for each part."""
        return {"files": listing([self._upload(spec) for spec in args.object("input").objects("artifactFiles")])}

    def _upload(self, spec: Args) -> dict[str, Any]:
        draft = self._draft(spec.text("artifactID"))
        name = spec.text("name", 10_000)
        check_path(name)
        md5 = hex_digest(spec.text("md5", 64))
        here = self.context.blobs.touch(md5)
        parts = None
        if not here and (wanted := spec.objects("uploadPartsInput")):
            upload = self.context.uploads.begin()
            numbers = [part.integer("partNumber") for part in wanted]
            put = self.context.urls.put
            parts = {
                "uploadID": upload,
                "uploadUrlParts": [
                    {"partNumber": number, "uploadUrl": put(f"/upload/part/{upload}/{number}")} for number in numbers
                ],
            }
        return {
            "id": to_id(f"ArtifactFile:{name}", draft.key),
            "name": name,
            "displayName": name,
            "storagePath": f"blobs/{md5}",
            "uploadUrl": None if here else self.context.urls.put(f"/upload/blob/{md5}"),
            "uploadHeaders": [],
            "uploadMultipartUrls": parts,
            "artifact": draft,
        }

    @field
    def complete_multipart_upload_artifact(self, args: Args) -> dict[str, Any]:
        given = args.object("input")
        self._draft(given.text("artifactID"))
        md5 = given.text("storagePath", 200).removeprefix("blobs/")
        numbers = [part.integer("partNumber") or 0 for part in given.objects("completedParts")]
        upload = given.text("uploadID", 64)
        if given.optional_text("completeMultipartAction") == "Abort":
            self.context.uploads.abort(upload)
            return {"digest": None}
        return {"digest": self.context.uploads.finish(upload, sorted(numbers), md5)}

    @field
    def commit_artifact(self, args: Args) -> dict[str, Any]:
        draft = self.context.found("Artifact", args.object("input").text("artifactID"))
        if draft.row["state"] != "COMMITTED":  # committing twice is how the client repeats itself
            self._commit(draft)
        return {"artifact": self.context.node("Artifact", draft.key)}

    def _commit(self, draft: Row) -> None:
        db, row, blobs = self.context.db, draft.row, self.context.blobs
        if row["manifest_md5"] is None or not blobs.has(row["manifest_md5"]):
            raise GraphQLError("the artifact's manifest has not been uploaded; it cannot be committed")
        contents = manifest.parse(blobs.path(row["manifest_md5"]).read_bytes())
        digest, wanted = manifest.digest(contents), json.loads(row["wanted"])
        if row["digest_algorithm"] == "MANIFEST_MD5" and digest != row["digest"]:
            raise GraphQLError(f"the manifest's digest is {digest}, the artifact was announced with {row['digest']}")
        manifest_md5 = row["manifest_md5"]
        if base := wanted.get("base"):
            contents = self._on_base(base, contents)
            digest, manifest_md5 = manifest.digest(contents), blobs.put(manifest.text(contents))
        entries = manifest.entries(contents)
        for entry in entries:
            if entry.md5 and not blobs.has(entry.md5):
                raise GraphQLError(f"the file {entry.path!r} has not been uploaded; the artifact cannot be committed")
        db.executemany(
            "INSERT INTO artifact_files (artifact, name, md5, digest, size) VALUES (?, ?, ?, ?, ?)",
            [(draft.key, entry.path, entry.md5, entry.digest, entry.size) for entry in entries],
        )
        db.execute(
            "UPDATE artifacts SET state = 'COMMITTED', size = ?, file_count = ?, digest = ?, manifest_md5 = ?,"
            " updated_at = ?, wanted = '{}' WHERE id = ?",
            (sum(entry.size for entry in entries), len(entries), digest, manifest_md5, now(), draft.key),
        )
        place(self.context, row["collection"], draft.key)
        self._give(draft.key, row["collection"], wanted)

    def _on_base(self, base: int, added: manifest.Manifest) -> manifest.Manifest:
        """An incremental artifact: what the base holds, and what was added to it."""
        artifact = self.context.node("Artifact", base)
        if artifact is None or artifact.row["manifest_md5"] is None:
            raise GraphQLError("the version that the artifact builds on is no longer there")
        below = manifest.parse(self.context.blobs.path(artifact.row["manifest_md5"]).read_bytes())
        return {**below, "contents": {**below["contents"], **added["contents"]}}

    def _give(self, artifact: int, collection: int, wanted: dict[str, list[str]]) -> None:
        for alias in ["latest", *wanted.get("aliases", [])]:
            set_alias(self.context, collection, alias, artifact)
        for tag in wanted.get("tags", []):
            self.context.db.execute("INSERT OR IGNORE INTO artifact_tags VALUES (?, ?)", (artifact, tag))

    def _draft(self, text: str) -> Artifact:
        draft = self.context.found("Artifact", text)
        if draft.row["state"] != "PENDING":
            raise GraphQLError("the artifact is committed; its files cannot change")
        assert isinstance(draft, Artifact)
        return draft
