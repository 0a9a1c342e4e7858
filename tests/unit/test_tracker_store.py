"""What is on disk: rows in transactions, blobs whole or not at all, and what gc may take."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ekiben.errors import ConflictError, EkibenError, IntegrityError, NotFoundError, UsageError
from ekiben.tracker import keys, manifest
from ekiben.tracker.blobs import Blobs
from ekiben.tracker.export import export
from ekiben.tracker.graph.base import Context, User
from ekiben.tracker.graph.mutations import Mutation
from ekiben.tracker.graph.placing import set_alias
from ekiben.tracker.graphql import GraphQLError, choose, execute
from ekiben.tracker.maintenance import gc, missing_blobs
from ekiben.tracker.multipart import Uploads
from ekiben.tracker.state import lock, open_blobs, open_store
from ekiben.tracker.store import Store
from ekiben.tracker.syntax import parse
from ekiben.tracker.urls import Urls

USER = User("tester", "team", admin=True)
OLD = timedelta(0)  # a grace after which everything counts as old


def mutate(store: Store, blobs: Blobs, text: str, **variables: object) -> dict[str, dict[str, object]]:
    document = parse(text)
    with store.write() as db:
        root = Mutation(Context(db, blobs, Uploads(blobs), USER, Urls("http://x", store.secret)))
        return execute(document, choose(document, None), variables, root)


def log_version(store: Store, blobs: Blobs, name: str, content: bytes, commit: bool = True, **more: object) -> str:
    """What the client does to log a version of one file. Returns the artifact's id."""
    held = {"version": 1, "contents": {"f": {"digest": _b64(content), "size": len(content)}}}
    made = mutate(
        store,
        blobs,
        "mutation($input: I!) { createArtifact(input: $input) { artifact { id state } } }",
        input={
            "entityName": "team",
            "projectName": "p",
            "artifactTypeName": "model",
            "artifactCollectionNames": [name],
            "digest": manifest.digest(held),
            "enableDigestDeduplication": True,
            **more,
        },
    )
    identity = str(made["createArtifact"]["artifact"]["id"])  # type: ignore[index]
    text = manifest.text(held)
    blobs.put(content)
    blobs.put(text)
    mutate(
        store,
        blobs,
        "mutation($input: I!) { createArtifactManifest(input: $input) { artifactManifest { id } } }",
        input={"artifactID": identity, "digest": _b64(text)},
    )
    if commit:
        commit_version(store, blobs, identity)
    return identity


def commit_version(store: Store, blobs: Blobs, identity: str) -> None:
    mutate(
        store,
        blobs,
        "mutation($id: ID!) { commitArtifact(input: {artifactID: $id}) { artifact { id state versionIndex } } }",
        id=identity,
    )


def _b64(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data: Path) -> Store:
    return open_store(data)


@pytest.fixture
def blobs(data: Path) -> Blobs:
    return open_blobs(data)


def test_a_transaction_is_all_or_nothing_and_a_read_is_of_one_moment(store: Store) -> None:
    with pytest.raises(RuntimeError), store.write() as db:
        db.execute("INSERT INTO meta VALUES ('a', '1')")
        raise RuntimeError
    with store.read() as before:
        before.execute("SELECT * FROM meta").fetchall()
        with store.write() as db:
            db.execute("INSERT INTO meta VALUES ('a', '1')")
        assert before.execute("SELECT value FROM meta WHERE name = 'a'").fetchone() is None
    with store.read() as db:
        assert db.execute("SELECT value FROM meta WHERE name = 'a'").fetchone()[0] == "1"


def test_the_database_is_its_owners_alone_and_of_a_known_schema(data: Path, store: Store) -> None:
    assert store.path.stat().st_mode & 0o077 == 0
    assert open_store(data).secret == store.secret
    with store.write() as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(IntegrityError, match="schema 99"):
        open_store(data)


def test_a_data_folder_is_served_once(data: Path) -> None:
    held = lock(data)
    with pytest.raises(ConflictError, match=str(os.getpid())):
        lock(data)
    os.close(held)
    os.close(lock(data))


def test_a_blob_is_there_whole_or_not_at_all(blobs: Blobs) -> None:
    incoming = blobs.incoming()
    incoming.write(b"ab")
    incoming.write(b"c" * 3_000_000)
    md5 = hashlib.md5(b"ab" + b"c" * 3_000_000).hexdigest()
    assert not blobs.has(md5)
    assert incoming.finish(md5) == md5
    assert blobs.path(md5).stat().st_size == 3_000_002

    wrong = blobs.incoming()
    wrong.write(b"x")
    with pytest.raises(IntegrityError, match="MD5"):
        wrong.finish(md5)
    left = blobs.incoming()
    left.write(b"half")
    assert blobs.discard_unfinished() == 1
    left.abandon()
    assert [path.name for path in blobs.all()] == [md5]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 32, "/" * 32, "0" * 31, "0" * 33])
def test_only_an_md5_names_a_blob(blobs: Blobs, name: str) -> None:
    with pytest.raises(EkibenError):
        blobs.path(name)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_parts_are_joined_in_order_whatever_order_they_come_in(blobs: Blobs, order: tuple[int, ...]) -> None:
    uploads = Uploads(blobs)
    upload = uploads.begin()
    for number in order:
        _send_part(uploads, upload, number)
    whole = b"".join(bytes([number]) * 1_500_000 for number in (1, 2, 3))
    md5 = hashlib.md5(whole).hexdigest()
    with pytest.raises(NotFoundError, match="3 parts came in a row, and 4 were announced"):
        uploads.finish(upload, [1, 2, 3, 4], md5)
    assert uploads.finish(upload, [1, 2, 3], md5) == md5
    assert uploads.finish(upload, [1, 2, 3], md5) == md5  # said twice
    assert blobs.path(md5).read_bytes() == whole
    with pytest.raises(NotFoundError):
        uploads.part(upload, 1)
    assert not list(blobs.tmp.iterdir())


def test_parts_that_make_another_whole_are_refused(blobs: Blobs) -> None:
    uploads = Uploads(blobs)
    upload = uploads.begin()
    _send_part(uploads, upload, 1)
    with pytest.raises(IntegrityError):
        uploads.finish(upload, [1], hashlib.md5(b"else").hexdigest())
    uploads.abort(upload)
    with pytest.raises(NotFoundError):
        uploads.part("../escape", 1)
    assert not list(blobs.tmp.iterdir())


def test_parts_that_come_at_once_are_each_joined_once(blobs: Blobs) -> None:
    uploads = Uploads(blobs)
    upload = uploads.begin()
    threads = [threading.Thread(target=_send_part, args=(uploads, upload, n, 100_000)) for n in range(1, 41)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = b"".join(bytes([number]) * 100_000 for number in range(1, 41))
    assert uploads.finish(upload, list(range(1, 41)), hashlib.md5(whole).hexdigest())


def _send_part(uploads: Uploads, upload: str, number: int, size: int = 1_500_000) -> None:
    part = uploads.part(upload, number)
    part.write(bytes([number]) * size)
    part.finish(None)
    uploads.advance(upload)


def test_a_version_is_only_there_once_committed_and_only_if_whole(store: Store, blobs: Blobs) -> None:
    draft = log_version(store, blobs, "m", b"one", commit=False)
    with store.read() as db:
        assert db.execute("SELECT COUNT(*) FROM memberships").fetchone()[0] == 0
    blobs.path(hashlib.md5(b"one").hexdigest()).unlink()
    with pytest.raises(GraphQLError, match="'f' has not been uploaded"):
        commit_version(store, blobs, draft)
    blobs.put(b"one")
    commit_version(store, blobs, draft)
    commit_version(store, blobs, draft)  # said twice
    with store.read() as db:
        assert [row[0] for row in db.execute("SELECT version FROM memberships")] == [0]
        assert db.execute("SELECT alias FROM aliases").fetchone()[0] == "latest"


def test_a_draft_asked_for_twice_is_one_draft(store: Store, blobs: Blobs) -> None:
    first = log_version(store, blobs, "m", b"one", commit=False, clientID="c1")
    assert log_version(store, blobs, "m", b"one", commit=False, clientID="c1") == first


def test_a_manifest_that_does_not_match_its_announced_digest_is_refused(store: Store, blobs: Blobs) -> None:
    with pytest.raises(GraphQLError, match="was announced with"):
        log_version(store, blobs, "m", b"one", digest="0" * 32)


@pytest.mark.parametrize("name", ["../up", "/abs", "a/../../b", "a//b", "", "a\\b", "a\0b", "x" * 2000, ".", "a/."])
def test_a_manifest_cannot_name_what_lies_outside(name: str) -> None:
    raw = json.dumps({"contents": {name: {"digest": _b64(b""), "size": 0}}}).encode()
    with pytest.raises(GraphQLError, match="file name"):
        manifest.parse(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"contents": []}', b'{"contents": {"a": 1}}', b"\xff" * 10, b"[" * 9999]
)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(GraphQLError, match="manifest"):
        manifest.parse(raw)


def test_gc_takes_what_nothing_refers_to_and_says_so_first(data: Path, store: Store, blobs: Blobs) -> None:
    log_version(store, blobs, "m", b"kept")
    log_version(store, blobs, "m", b"draft", commit=False)
    expired = log_version(store, blobs, "m", b"expired", ttlDurationSeconds=1)
    stray = blobs.put(b"stray")
    assert missing_blobs(store, blobs) == []
    with store.write() as db:
        db.execute("UPDATE artifacts SET created_at = '2026-01-01T00:00:00Z' WHERE ttl_seconds = 1")

    assert gc(data, dry_run=True) == gc(data, dry_run=True)  # all is young, but for the one past its time
    told = gc(data, dry_run=True, grace=OLD)
    assert (told.blobs, told.drafts, told.expired) == (5, 1, ("team/p/m:v1",))
    assert blobs.has(stray)
    assert gc(data, dry_run=False, grace=OLD) == told
    assert sorted(path.name for path in blobs.all()) == sorted(_referred(store))
    assert gc(data, dry_run=False, grace=OLD) == (0, 0, 0, ())
    assert missing_blobs(store, blobs) == []
    with store.read() as db, pytest.raises(GraphQLError):
        Context(db, blobs, Uploads(blobs), USER, Urls("", b"")).found("Artifact", expired)
    with store.read() as db:
        row = db.execute("SELECT m.version FROM aliases JOIN memberships m ON m.id = membership").fetchone()
        assert row[0] == 0  # `latest` is what is left


def _referred(store: Store) -> list[str]:
    with store.read() as db:
        return [row[0] for row in db.execute("SELECT md5 FROM artifact_files UNION SELECT manifest_md5 FROM artifacts")]


def test_gc_spares_what_a_client_was_just_told_is_here(data: Path, store: Store, blobs: Blobs) -> None:
    md5 = blobs.put(b"found again")
    week_ago = time.time() - 7 * 86400
    os.utime(blobs.path(md5), (week_ago, week_ago))
    assert gc(data, dry_run=True).blobs == 1
    assert blobs.touch(md5)
    assert gc(data, dry_run=False).blobs == 0
    assert blobs.has(md5)
    assert not blobs.touch("0" * 32)


def test_a_version_linked_to_a_registry_outlives_its_time(data: Path, store: Store, blobs: Blobs) -> None:
    linked = log_version(store, blobs, "m", b"linked", ttlDurationSeconds=1)
    mutate(
        store,
        blobs,
        'mutation($id: ID!) { linkArtifact(input: {artifactID: $id, entityName: "team",'
        ' projectName: "wandb-registry-model", artifactPortfolioName: "m"}) { versionIndex } }',
        id=linked,
    )
    with store.write() as db:
        db.execute("UPDATE artifacts SET created_at = '2026-01-01T00:00:00Z'")
    assert gc(data, dry_run=True).expired == ()


def test_lost_bytes_are_found_and_named(store: Store, blobs: Blobs) -> None:
    log_version(store, blobs, "m", b"one")
    log_version(store, blobs, "m", b"two")
    blobs.path(hashlib.md5(b"one").hexdigest()).unlink()
    blobs.path(hashlib.md5(b"two").hexdigest()).write_bytes(b"short of it"[:2])
    assert missing_blobs(store, blobs) == ["m:v0/f", "m:v1/f"]


def test_protected_aliases_are_moved_by_their_keepers_only(store: Store, blobs: Blobs) -> None:
    log_version(store, blobs, "m", b"one")
    for user, allowed in ((User("anyone", "team"), False), (USER, True)):
        with store.write() as db:
            context = Context(db, blobs, Uploads(blobs), user, Urls("", b""), frozenset({"production"}))
            if allowed:
                set_alias(context, 1, "production", 1)
            else:
                with pytest.raises(GraphQLError, match="'production' is protected"):
                    set_alias(context, 1, "production", 1)


def test_keys_are_kept_as_hashes_and_can_be_revoked(data: Path, store: Store) -> None:
    assert keys.check(store, "anything") == User("local", "local", admin=True, keyless=True)
    made = keys.create_key(data, "ci", "team")
    assert len(made) == 40
    assert made not in "".join(path.read_bytes().decode("latin1") for path in data.iterdir() if path.is_file())
    assert keys.check(store, made) == User("ci", "team")
    assert keys.check(store, "anything") is None
    with pytest.raises(UsageError, match="'ci' exists"):
        keys.create_key(data, "ci", "team")
    keys.revoke_key(data, "ci")
    assert keys.check(store, made) is None
    assert keys.check(store, "anything") is None  # a tracker that once had keys does not open again
    assert keys.list_keys(data)[0].revoked_at
    with pytest.raises(NotFoundError):
        keys.revoke_key(data, "ci")
    assert keys.check(store, keys.create_key(data, "keeper", admin=True)) == User("keeper", "local", admin=True)


def test_a_database_of_the_first_schema_is_brought_up_to_date(data: Path, store: Store) -> None:
    with store.write() as db:
        db.execute("ALTER TABLE keys DROP COLUMN admin")
        db.execute("PRAGMA user_version = 1")
    keys.create_key(data, "ci", admin=True)
    assert keys.list_keys(data)[0].admin


def test_export_writes_every_row_as_json_or_nothing(data: Path, store: Store, blobs: Blobs, tmp_path: Path) -> None:
    log_version(store, blobs, "m", b"one", metadata='{"a": 1}')
    keys.create_key(data, "secret-name", "team")
    out = tmp_path / "out.jsonl"
    count = export(data, out)
    items = [json.loads(line) for line in out.read_text().splitlines()]
    assert count == len(items)
    version = next(item for item in items if item["kind"] == "version")
    assert (version["collection"], version["version"], version["aliases"]) == ("team/p/m", 0, ["latest"])
    assert (version["metadata"], version["files"][0]["md5"]) == ({"a": 1}, hashlib.md5(b"one").hexdigest())
    assert "secret-name" not in out.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_many_writers_number_versions_without_gap_or_double(store: Store, blobs: Blobs) -> None:
    def log(number: int) -> None:
        for each in range(10):
            log_version(store, blobs, "m", f"{number} {each}".encode())

    threads = [threading.Thread(target=log, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as db:
        assert [row[0] for row in db.execute("SELECT version FROM memberships ORDER BY version")] == list(range(60))


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from tests.unit.test_tracker_store import log_version
from ekiben.tracker.state import open_blobs, open_store
data = Path(sys.argv[1])
store, blobs = open_store(data), open_blobs(data)
number = 0
while True:
    log_version(store, blobs, "m", str(number).encode() * 10_000)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.11])
def test_a_killed_writer_leaves_no_acknowledged_version_behind(data: Path, seconds: float) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(data), str(root), str(root / "src")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    acknowledged = 1 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()

    store, blobs = open_store(data), open_blobs(data)
    blobs.discard_unfinished()
    assert missing_blobs(store, blobs) == []
    with store.read() as db:
        versions = [row[0] for row in db.execute("SELECT version FROM memberships ORDER BY version")]
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert versions == list(range(len(versions)))
    assert len(versions) in (acknowledged, acknowledged + 1)
