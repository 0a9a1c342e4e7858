"""What no client sends, or only a broken or a hostile one: a clear error each, and the tracker stays up.

These look at the data folder too, so they always have a tracker of their own, with keys.
"""

import base64
import hashlib
import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekiben.tracker import keys, manifest
from tests.contract.conftest import start_tracker, stop

LOCAL = ("entityName", "local"), ("projectName", "p")


class Tracker(NamedTuple):
    data: Path
    address: tuple[str, int]
    key: str
    revoked: str
    process: "subprocess.Popen[str]"

    def request(
        self, method: str, path: str, body: bytes = b"", key: str | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        basic = base64.b64encode(f"api:{self.key if key is None else key}".encode()).decode()
        sent = {"Authorization": f"Basic {basic}", "Content-Type": "application/json", **headers}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        status, body, _ = self.request(
            "POST", "/graphql", json.dumps({"query": query, "variables": variables}).encode()
        )
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer

    def error(self, query: str, **variables: Any) -> str:
        errors = self.ask(query, **variables)["errors"]
        return str(errors[0]["message"])

    def draft(self, name: str = "m", **more: Any) -> str:
        answer = self.ask(
            "mutation C($input: I!) { createArtifact(input: $input) { artifact { id } } }",
            input={
                **dict(LOCAL),
                "artifactTypeName": "model",
                "artifactCollectionNames": [name],
                "digest": "0" * 32,
                **more,
            },
        )
        return str(answer["data"]["createArtifact"]["artifact"]["id"])

    def upload(self, content: bytes, name: str = "f") -> str:
        """The path at which this content is awaited."""
        answer = self.ask(
            "mutation F($input: I!) { createArtifactFiles(input: $input) { files { edges { node { uploadUrl } } } } }",
            input={"artifactFiles": [{"artifactID": self.draft(), "name": name, "md5": b64(content)}]},
        )
        address = urlsplit(answer["data"]["createArtifactFiles"]["files"]["edges"][0]["node"]["uploadUrl"])
        return f"{address.path}?{address.query}"

    def is_up(self) -> bool:
        return self.process.poll() is None and self.request("GET", "/healthz")[0] == 200


def b64(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    folder = tmp_path_factory.mktemp("hostile")
    data = folder / "data"
    key, revoked = keys.create_key(data, "good"), keys.create_key(data, "bad")
    keys.revoke_key(data, "bad")
    process, url = start_tracker(data)
    address = urlsplit(url)
    assert address.hostname and address.port
    yield Tracker(data, (address.hostname, address.port), key, revoked, process)
    assert stop(process) == 0
    assert [path.name for path in folder.iterdir()] == ["data"]  # nothing was written beside it
    assert {path.name.partition("-")[0] for path in data.iterdir()} <= {"blobs", "lock", "tracker.db"}
    assert all(len(path.name) == 2 or path.name == "tmp" for path in (data / "blobs").iterdir())
    assert not list((data / "blobs/tmp").iterdir())


def test_wrong_and_revoked_keys_open_nothing(tracker: Tracker) -> None:
    for key in ("", "x" * 40, tracker.revoked, "\xff" * 40, "x" * 5000):
        for method, path in (
            ("POST", "/graphql"),
            ("POST", "/files/local/p/r/file_stream"),
            ("GET", "/metrics"),
            ("GET", "/"),
        ):
            status, body, headers = tracker.request(method, path, b"{}", key=key)
            assert status == 401, (path, body)
            assert "API key" in json.loads(body)["error"]
            assert headers["www-authenticate"].startswith("Basic")
    assert tracker.request("POST", "/graphql", b"{}", Authorization="Basic ???")[0] == 401
    assert tracker.request("GET", "/metrics")[0] == 200


def test_junk_as_graphql_is_an_error_that_says_so(tracker: Tracker) -> None:
    assert tracker.request("POST", "/graphql", b"\x00\xff" * 500_000)[0] == 400
    assert tracker.request("POST", "/graphql", b"[" * 1_000_000)[0] == 400
    assert tracker.request("POST", "/graphql", b"[]")[0] == 400
    assert tracker.request("POST", "/graphql", b"{}", **{"Content-Type": "text/plain"})[0] == 415
    assert "200000" in tracker.error("{" * 1_000_000)
    assert "not a GraphQL request" in tracker.error("{a" * 50_000)
    assert "not a GraphQL request" in tracker.error("drop table runs")
    answer = json.loads(tracker.request("POST", "/graphql", b'{"query": 3}')[1])
    assert "query must be text" in answer["errors"][0]["message"]


def test_a_body_without_end_is_cut_off(tracker: Tracker) -> None:
    status, body, _ = tracker.request("POST", "/graphql", b" " * (33 << 20))
    assert (status, "32 MiB" in json.loads(body)["error"]) == (413, True)


def test_an_unknown_operation_is_named_and_listed(tracker: Tracker) -> None:
    message = tracker.error('mutation LaunchRocket { launchRocket(input: {to: "moon"}) { ok } }')
    assert "LaunchRocket" in message
    assert 'Cannot query field "launchRocket" on type "Mutation".' in message
    assert "LaunchRocket" in json.loads(tracker.request("GET", "/healthz")[1])["unknown_operations"]


def test_a_truncated_upload_leaves_nothing(tracker: Tracker) -> None:
    content = b"x" * 3_000_000
    path = tracker.upload(content)
    with socket.create_connection(tracker.address, timeout=10) as raw:
        raw.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content[:2_000_000]
        )
    md5 = hashlib.md5(content).hexdigest()
    assert not (tracker.data / "blobs" / md5[:2] / md5).exists()
    assert tracker.request("PUT", path, content[:-1])[0] == 400
    assert not (tracker.data / "blobs" / md5[:2] / md5).exists()
    assert tracker.request("PUT", path, content)[0] == 200
    assert (tracker.data / "blobs" / md5[:2] / md5).stat().st_size == len(content)


def test_an_upload_that_is_not_what_was_announced_is_refused(tracker: Tracker) -> None:
    status, body, _ = tracker.request("PUT", tracker.upload(b"announced"), b"something else")
    assert status == 400
    assert hashlib.md5(b"announced").hexdigest() in json.loads(body)["error"]


def test_addresses_work_as_they_were_given_and_for_nothing_else(tracker: Tracker) -> None:
    path = tracker.upload(b"mine")
    other = hashlib.md5(b"other").hexdigest()
    for wrong in (
        path.replace(hashlib.md5(b"mine").hexdigest(), other),
        path.replace("until=", "until=9"),
        path[:-1] + ("0" if path[-1] != "0" else "1"),
        path.partition("?")[0],
        f"/download/{other}/x?until=99999999999&signature=" + "0" * 64,
        "/upload/blob/..%2F..%2Fescape",
    ):
        assert tracker.request("PUT" if "upload" in wrong else "GET", wrong, b"other")[0] in (403, 404)
    assert tracker.request("GET", path)[0] == 405


NAMES = ["../../escape", "/etc/passwd", "a/../../../b", "..", "", "a\\..\\b", "a\0b", "x" * 10_000, "a//b", "./a"]


@pytest.mark.parametrize("name", NAMES)
def test_file_names_that_lead_elsewhere_are_refused_with_the_name(tracker: Tracker, name: str) -> None:
    for message in (
        tracker.error(
            "mutation F($input: I!) { createArtifactFiles(input: $input) { files { edges { node { uploadUrl } } } } }",
            input={"artifactFiles": [{"artifactID": tracker.draft(), "name": name, "md5": b64(b"")}]},
        ),
        _run_file_error(tracker, name),
    ):
        assert "name" in message or "characters" in message


def _run_file_error(tracker: Tracker, name: str) -> str:
    tracker.ask("mutation U($input: I!) { upsertBucket(input: $input) { bucket { id } } }", input=_run("files"))
    return tracker.error(
        "mutation F($input: I!) { createRunFiles(input: $input) { files { uploadUrl } } }",
        input={**dict(LOCAL), "runName": "files", "files": [name]},
    )


def _run(name: str, **more: Any) -> dict[str, Any]:
    return {"entityName": "local", "modelName": "p", "name": name, **more}


@pytest.mark.parametrize("name", ["../../escape", "", "..", "a/b", "a:b", "a\0b", "x" * 10_000])
def test_names_of_things_are_checked(tracker: Tracker, name: str) -> None:
    upsert = "mutation U($input: I!) { upsertBucket(input: $input) { bucket { id } } }"
    create = "mutation C($input: I!) { createArtifact(input: $input) { artifact { id } } }"
    artifact = {**dict(LOCAL), "artifactTypeName": "model", "artifactCollectionNames": ["m"], "digest": "0" * 32}
    errors = [
        tracker.error(upsert, input=_run(name)),
        tracker.error(create, input={**artifact, "artifactCollectionNames": [name]}),
        tracker.error(create, input={**artifact, "artifactTypeName": name}),
        tracker.error(create, input={**artifact, "aliases": [{"alias": name}]}),
    ]
    if name:  # without a name, projects and entities take their default
        errors.append(tracker.error(upsert, input=_run("r", modelName=name)))
        errors.append(tracker.error(upsert, input=_run("r", entityName=name)))
    for message in errors:
        assert any(word in message for word in ("name", "characters")), message


def test_ids_of_other_things_and_of_other_projects_are_refused(tracker: Tracker) -> None:
    draft = tracker.draft("mine")
    other = tracker.draft("theirs", projectName="q")
    query = "query A($id: ID!) { artifact(id: $id) { id } }"
    for wrong in (
        "",
        "x",
        "x" * 10_000,
        base64.b64encode(b"Run:1").decode(),
        base64.b64encode(b"Artifact:999999").decode(),
    ):
        assert "rtifact" in tracker.error(query, id=wrong) or "characters" in tracker.error(query, id=wrong)
    held = {"version": 1, "contents": {"f": {"digest": b64(b"f"), "size": 1}}}
    for project in ("p", "q"):
        _log(tracker, held, project)
    theirs = tracker.ask('query T { project(entityName: "local", name: "q") { artifact(name: "m:v0") { id } } }')[
        "data"
    ]["project"]["artifact"]["id"]
    message = tracker.error(
        "mutation A($input: I!) { addAliases(input: $input) { success } }",
        input={
            "artifactID": theirs,
            "aliases": [{**dict(LOCAL), "artifactCollectionName": "m", "alias": "production"}],
        },
    )
    assert "not in the collection" in message
    for pending in (draft, other):
        assert "still being uploaded" in tracker.error(
            "mutation U($input: I!) { useArtifact(input: $input) { artifact { id } } }",
            input={**dict(LOCAL), "runName": "r", "artifactID": pending},
        )


def _log(tracker: Tracker, held: dict[str, Any], project: str) -> None:
    draft = tracker.draft(digest=manifest.digest(held), projectName=project)
    text = manifest.text(held)
    for content in (b"f", text):
        blobs_path = tracker.upload(content) if not _here(tracker, content) else ""
        assert not blobs_path or tracker.request("PUT", blobs_path, content)[0] == 200
    tracker.ask(
        "mutation M($input: I!) { createArtifactManifest(input: $input) { artifactManifest { id } } }",
        input={"artifactID": draft, "digest": b64(text)},
    )
    tracker.ask("mutation C($id: ID!) { commitArtifact(input: {artifactID: $id}) { artifact { id } } }", id=draft)


def _here(tracker: Tracker, content: bytes) -> bool:
    md5 = hashlib.md5(content).hexdigest()
    return (tracker.data / "blobs" / md5[:2] / md5).exists()


@pytest.mark.parametrize(
    "body",
    [
        {"files": 3},
        {"files": {"wandb-history.jsonl": 3}},
        {"files": {"wandb-history.jsonl": {"offset": -1, "content": ["{}"]}}},
        {"files": {"wandb-history.jsonl": {"offset": 0, "content": ["not json"]}}},
        {"files": {"wandb-history.jsonl": {"offset": 0, "content": [3]}}},
        {"files": {"wandb-history.jsonl": {"offset": 0, "content": ['{"_step": "x"}']}}},
        {"files": {"wandb-summary.json": {"offset": 0, "content": ["[]"]}}},
        {"exitcode": "x"},
    ],
)
def test_a_stream_that_is_not_one_is_refused_and_changes_nothing(tracker: Tracker, body: dict[str, Any]) -> None:
    tracker.ask("mutation U($input: I!) { upsertBucket(input: $input) { bucket { id } } }", input=_run("stream"))
    status, answer, _ = tracker.request("POST", "/files/local/p/stream/file_stream", json.dumps(body).encode())
    assert status == 400, answer
    assert json.loads(answer)["error"]
    seen = tracker.ask('query R { project(name: "p") { run(name: "stream") { historyLineCount summaryMetrics } } }')
    assert seen["data"]["project"]["run"] == {"historyLineCount": 0, "summaryMetrics": "{}"}
    assert tracker.request("POST", "/files/local/p/none/file_stream", b"{}")[0] == 404


def test_what_a_page_shows_is_text(tracker: Tracker) -> None:
    name = "<script>alert(1)<script>"
    tracker.ask(
        "mutation U($input: I!) { upsertBucket(input: $input) { bucket { id } } }",
        input=_run("shown", displayName=name, notes=name, config=json.dumps({name: {"value": name}})),
    )
    for path in ("/", "/local/p", "/local/p/runs/shown"):
        status, body, headers = tracker.request("GET", path)
        assert status == 200
        assert b"<script>" not in body
        assert headers["content-security-policy"].startswith("default-src 'none'")
    assert b"&lt;script&gt;" in body
    for path in ("/local/none", "/local/p/runs/none", "/local/p/artifacts/model/none", "/none"):
        assert tracker.request("GET", path)[0] == 404


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = {
    "upsertBucket": [
        "id",
        "name",
        "modelName",
        "entityName",
        "config",
        "summaryMetrics",
        "tags",
        "state",
        "displayName",
    ],
    "createArtifact": [
        "artifactTypeName",
        "artifactCollectionNames",
        "digest",
        "aliases",
        "tags",
        "metadata",
        "projectName",
    ],
    "createArtifactFiles": ["artifactFiles"],
    "createArtifactManifest": ["artifactID", "digest", "type", "baseArtifactID"],
    "commitArtifact": ["artifactID"],
    "updateArtifact": ["artifactID", "metadata", "ttlDurationSeconds", "tagsToAdd"],
    "addAliases": ["artifactID", "aliases"],
    "linkArtifact": ["artifactID", "clientID", "artifactPortfolioName", "projectName", "aliases"],
    "completeMultipartUploadArtifact": ["artifactID", "storagePath", "uploadID", "completedParts"],
    "useArtifact": ["artifactID", "projectName", "runName"],
    "deleteArtifact": ["artifactID", "deleteAliases"],
    "createRunFiles": ["projectName", "runName", "files"],
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mutation_with_any_input_is_answered_or_refused(tracker: Tracker, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    likely = st.sampled_from(["m", "p", "local", "QXJ0aWZhY3Q6MQ==", "0" * 32, "{}", "../x"])
    value = JUNK | likely | st.lists(likely, max_size=2)
    given_input = data.draw(st.fixed_dictionaries({}, optional={field: value for field in FIELDS[name]}))
    query = f"mutation Fuzz($input: Junk!) {{ {name}(input: $input) {{ __typename }} }}"
    body = json.dumps({"query": query, "variables": {"input": given_input}}).encode()
    status, answer, _ = tracker.request("POST", "/graphql", body)
    assert status == 200, answer
    parsed = json.loads(answer)
    assert parsed.get("data") is not None or parsed["errors"][0]["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    path=st.sampled_from(
        ["/", "/graphql", "/download/", "/upload/blob/", "/upload/run/1/", "/artifactsV2/a/", "/files/a/b/"]
    ),
    rest=st.text(max_size=30),
    body=st.binary(max_size=100),
)
def test_any_request_is_answered_without_a_server_error(
    tracker: Tracker, method: str, path: str, rest: str, body: bytes
) -> None:
    status, answer, _ = tracker.request(method, path + quote(rest, safe="/?&=%"), body)
    assert status < 500, answer


def test_it_is_still_up(tracker: Tracker) -> None:
    assert tracker.is_up()
