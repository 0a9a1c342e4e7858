"""The digits service, built and served by real `bentoml` processes, each with a BENTOML_HOME of its own."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.e2e.serving import EXPORT, IMPORT, JSON, ROOT, Server, bentoml, build, python, serving, wait_ready

IMAGES, DIGITS = load_digits(return_X_y=True)
SENTINEL = 777.125  # a value that must never come back, nor reach the log


@dataclass(frozen=True)
class World:
    """A project with a Bento of `digits:v1`, built while v1 was the newest, and a store in which v2 is newer by now."""

    project: Path
    home: Path
    tag: str
    exported: Path
    models: dict[str, Pipeline]

    def digits(self, model: str, count: int) -> list[int]:
        """What that model says about the first `count` images."""
        return self.models[model].predict(IMAGES[:count]).tolist()

    @property
    def bento(self) -> Path:
        return self.home / "bentos" / self.tag.replace(":", "/")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    import skops.io

    folder = tmp_path_factory.mktemp("service")
    project, home = folder / "project", folder / "home"
    shutil.copytree(ROOT / "service", project / "service")
    shutil.copy(ROOT / "bentofile.yaml", project)
    for secret in (".env", ".git/config", ".ekiben/state.json", "tests/test_x.py", "README.md", "src/ekiben/cli.py"):
        (project / secret).parent.mkdir(parents=True, exist_ok=True)
        (project / secret).write_text("secret")
    # v2 calls each digit by its successor, so that an answer tells which of the two models gave it.
    models = {
        name: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(IMAGES, digits)
        for name, digits in {"v1": DIGITS, "v2": (DIGITS + 1) % 10}.items()
    }
    for name, model in models.items():
        (folder / name).mkdir()
        skops.io.dump(model, folder / name / "model.skops")
    home.mkdir()
    python(home, IMPORT, "digits:v1", str(folder / "v1"), "1" * 32)
    tag = build(home, project)
    python(home, EXPORT, tag, str(folder / "exported"))
    python(home, IMPORT, "digits:v2", str(folder / "v2"), "2" * 32)
    return World(project, home, tag, folder / "exported", models)


@pytest.fixture(scope="module")
def servers(world: World) -> Iterator[dict[str, Server]]:
    """The same Bento served in three ways, and the source. Each has its own copy of the store: metrics live in it."""

    def store(name: str) -> Path:
        return Path(shutil.copytree(world.home, world.home.parent / name))

    by_path = store("by-path")
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(serving(home, *arguments, cwd=cwd))
            for name, home, arguments, cwd in [
                ("exported", world.home.parent / "empty", (str(world.exported),), world.home.parent),
                ("tag", store("by-tag"), (world.tag,), world.home.parent),
                ("inside", by_path, (), by_path / world.bento.relative_to(world.home)),
                ("source", store("source"), (), world.project),
                ("source-v1", store("source-v1"), ("--arg", "model=digits:v1"), world.project),
            ]
        }
        for server in started.values():
            wait_ready(server)
        yield started


@pytest.fixture(scope="module")
def server(servers: dict[str, Server]) -> Server:
    return servers["exported"]


def test_answers_are_exactly_the_models(server: Server, world: World) -> None:
    wanted = world.models["v1"].predict_proba(IMAGES)
    for part in (slice(0, 1), slice(1, 1001), slice(1001, None)):
        answer = server.predict(IMAGES[part].tolist()).json
        assert answer["classes"] == wanted[part].argmax(axis=1).tolist()
        # The sums of many rows at once are rounded otherwise than those of one.
        np.testing.assert_allclose(answer["probabilities"], wanted[part], rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", ["exported", "tag", "inside", "source-v1"])
def test_the_pinned_model_is_served_although_a_newer_one_is_in_the_store(
    servers: dict[str, Server], world: World, way: str
) -> None:
    reply = servers[way].predict(IMAGES[:20].tolist())
    assert reply.json["classes"] == world.digits("v1", 20)
    assert reply.headers["x-model-version"] == "digits:v1"


def test_source_serves_the_newest_model(servers: dict[str, Server], world: World) -> None:
    reply = servers["source"].predict(IMAGES[:20].tolist())
    assert reply.json["classes"] == world.digits("v2", 20)
    assert reply.headers["x-model-version"] == "digits:v2"
    assert "x-bento-version" not in reply.headers


def test_answers_name_their_bento(servers: dict[str, Server], world: World) -> None:
    for way in ("exported", "tag", "inside"):
        assert servers[way].predict(IMAGES[:1].tolist()).headers["x-bento-version"] == world.tag


def test_bento_records_the_exact_model_and_its_lineage(world: World) -> None:
    manifest = yaml.safe_load((world.bento / "bento.yaml").read_text())
    assert [model["tag"] for model in manifest["services"][0]["models"]] == ["digits:v1"]
    assert manifest["args"] == {"model": "digits:v1"}
    assert manifest["labels"]["wandb.version"] == "acme/vision/digits:v1"
    assert manifest["labels"]["wandb.digest"] == "1" * 32
    shown = bentoml(world.home, "get", world.tag, "-o", "json", cwd=world.project)
    assert json.loads(shown.stdout)["labels"] == manifest["labels"]


def test_bento_holds_only_the_service(world: World) -> None:
    source = world.bento / "src"
    held = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    included = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    assert held == {"bentofile.yaml", *included}
    assert not [path for path in world.bento.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_arg_chooses_the_model_that_is_built(world: World) -> None:
    for wanted, arguments in {"digits:v1": ("--arg", "model=digits:v1"), "digits:v2": ()}.items():
        tag = build(world.home, world.project, "--label", "stage=test", *arguments)
        manifest = yaml.safe_load((world.home / "bentos" / tag.replace(":", "/") / "bento.yaml").read_text())
        assert [model["tag"] for model in manifest["services"][0]["models"]] == [wanted]
        assert manifest["labels"]["stage"] == "test"


def test_without_a_model_one_line_says_what_to_do(world: World, tmp_path: Path) -> None:
    for command in (("build",), ("serve",)):
        done = bentoml(tmp_path / "home", *command, cwd=world.project)
        assert done.returncode != 0
        assert "ekiben run" in done.stderr and "Traceback" not in done.stderr


def test_a_version_is_not_taken_for_a_prefix(world: World, tmp_path: Path) -> None:
    python(tmp_path, IMPORT, "digits:v10", str(world.home.parent / "v1"), "1" * 32)
    done = bentoml(tmp_path, "build", "--arg", "model=digits:v1", cwd=world.project)
    assert done.returncode != 0 and "digits:v1 is not in the BentoML model store" in done.stderr


def test_requirements_are_the_versions_that_run_here() -> None:
    packages = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["packages"]
    assert packages == [f"{name}=={version(name)}" for name in (package.partition("=")[0] for package in packages)]


def test_bentoml_client_and_documents(server: Server, world: World) -> None:
    import bentoml as client_library

    with client_library.SyncHTTPClient(f"http://127.0.0.1:{server.port}") as client:
        assert client.predict(rows=IMAGES[:3].tolist())["classes"] == world.digits("v1", 3)
        with pytest.raises(client_library.exceptions.BentoMLException, match="at least 64 items"):
            client.predict(rows=[[1.0]])
    assert server.request("GET", "/schema.json").json["routes"][0]["input"]["required"] == ["rows"]
    assert "/predict" in server.request("GET", "/docs.json").json["paths"]
    assert b"swagger" in server.request("GET", "/").body
    assert server.request("GET", "/static_content/swagger-ui.css").status == 200


GOOD = IMAGES[0].tolist()


def rows(*given: object) -> str:
    return json.dumps({"rows": given})


BAD = {
    "63 columns": (rows(GOOD[:63]), 400, "rows[0]: "),
    "65 columns": (rows(GOOD, [*GOOD, SENTINEL]), 400, "rows[1]: "),
    "one-dimensional": (rows(*GOOD), 400, "rows[0]: "),
    "three-dimensional": (rows([GOOD]), 400, "rows[0]"),
    "two rows of 32": (rows(GOOD[:32], GOOD[32:]), 400, "rows[0]: "),
    "no rows": (rows(), 400, "rows: "),
    "1,001 rows": (rows(*[[0] * 64] * 1001), 400, "rows: "),
    "NaN": (rows([*GOOD[:63], float("nan")]), 400, "rows[0][63]: "),
    "Infinity": (rows([*GOOD[:63], float("inf")]), 400, "rows[0][63]: "),
    "-Infinity": (rows([*GOOD[:63], float("-inf")]), 400, "rows[0][63]: "),
    "overflow": (rows([*GOOD[:63], 0]).replace(" 0]]", " 1e999]]"), 400, "rows[0][63]: "),
    "huge integer": (rows([*GOOD[:63], 10**400]), 400, "rows[0][63]: "),
    "too large": (rows(GOOD, [SENTINEL, *GOOD[1:]]), 400, "rows[1][0]: "),
    "negative": (rows([*GOOD[:63], -0.5]), 400, "rows[0][63]: "),
    "string": (rows([*GOOD[:63], str(SENTINEL)]), 400, "rows[0][63]: "),
    "boolean": (rows([*GOOD[:63], True]), 400, "rows[0][63]: "),
    "null": (rows([*GOOD[:63], None]), 400, "rows[0][63]: "),
    "null rows": ('{"rows": null}', 400, "rows: "),
    "object": (rows({"0": SENTINEL}), 400, "rows[0]: "),
    "missing field": ("{}", 400, "rows: "),
    "unknown field": (json.dumps({"rows": [GOOD], str(SENTINEL): SENTINEL}), 400, "unknown field"),
    "a list": (json.dumps([GOOD]), 400, "body: "),
    "a string": (json.dumps(str(SENTINEL)), 400, "body: "),
    "invalid JSON": ('{"rows": [[777.125,', 400, "body: Invalid JSON"),
    "not UTF-8": (b'{"rows": "\xff777.125"}', 400, "body: Invalid JSON"),
    "nested deeply": ("[" * 100_000, 400, "body: "),
    "text": ("777.125 please", 400, "body: Invalid JSON"),
    "empty": ("", 400, "the body is empty"),
    "blank": (" \n", 400, "the body is empty"),
    "1 MiB and a byte": (" " * ((1 << 20) + 1), 413, "the body is larger"),
    "20 MB": ("7" * 20_000_000, 413, "the body is larger"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused_with_a_reason(server: Server, case: str) -> None:
    body, status, reason = BAD[case]
    reply = server.request("POST", "/predict", body)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert list(reply.json) == ["error"]
    assert reply.json["error"].startswith(reason)
    assert len(reply.body) < 300 and str(SENTINEL) not in reply.body.decode()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/vnd.bentoml+pickle"]
)
def test_other_content_types_are_refused(server: Server, kind: str) -> None:
    reply = server.request("POST", "/predict", rows(GOOD), {"Content-Type": kind})
    assert reply.status == 415 and "application/json" in reply.json["error"]


def test_a_charset_is_no_other_content_type(server: Server) -> None:
    reply = server.request("POST", "/predict", rows(GOOD), {"Content-Type": "Application/JSON; charset=utf-8"})
    assert reply.status == 200


def test_chunked_bodies_are_counted(server: Server) -> None:
    pieces = [rows(GOOD)[:100].encode(), rows(GOOD)[100:].encode()]
    assert server.request("POST", "/predict", iter(pieces)).json["classes"] == [DIGITS[0]]
    reply = server.request("POST", "/predict", (b" " * 65536 for _ in range(100)))
    assert reply.status == 413 and "larger" in reply.json["error"]


def test_a_plain_client_reads_the_refusal_of_a_body_that_is_far_too_large(server: Server) -> None:
    """It sends all of it before it reads: a connection that was closed meanwhile would show it a reset."""
    large = urllib.request.Request(f"http://127.0.0.1:{server.port}/predict", b"7" * 20_000_000, JSON)
    for _ in range(3):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(large, timeout=30)
        with refused.value as reply:
            assert reply.code == 413
            assert "the body is larger than" in json.loads(reply.read())["error"]


def test_other_paths_and_methods_get_json_too(server: Server) -> None:
    assert server.request("GET", "/predict").status == 405
    for method, path in (("GET", "/predict"), ("GET", "/nowhere"), ("POST", "/nowhere"), ("POST", "/readyz")):
        reply = server.request(method, path, headers={})
        assert reply.status in (404, 405) and list(reply.json) == ["error"]


def test_metrics_count_refusals_and_keep_unknown_paths_together(server: Server) -> None:
    server.request("POST", "/predict", "")
    for number in range(20):
        assert server.request("GET", f"/scan-{number}").status == 404
    metrics = server.request("GET", "/metrics").body.decode()
    assert 'endpoint="/predict",http_response_code="400"' in metrics
    assert 'endpoint="/unknown",http_response_code="404"' in metrics
    assert "scan-" not in metrics


def test_bad_requests_do_not_disturb_good_ones(server: Server, world: World) -> None:
    bad = [body for body, status, _ in BAD.values() if status == 400]

    def good(number: int) -> tuple[int, list[int]]:
        reply = server.predict([IMAGES[number].tolist()])
        return reply.status, reply.json["classes"]

    with ThreadPoolExecutor(50) as refused, ThreadPoolExecutor(10) as answered:
        statuses = refused.map(lambda n: server.request("POST", "/predict", bad[n % len(bad)]).status, range(100))
        answers = list(answered.map(good, range(100)))
        assert set(statuses) == {400}
    assert answers == [(200, [digit]) for digit in world.digits("v1", 100)]


# Rows that are nearly right, so that both answers, yes and no, come up often.
NUMBER = st.one_of(st.integers(-1, 17), st.floats(-1, 17), st.sampled_from([None, True, "1", [], {}, float("nan")]))
MAYBE_ROW = st.one_of(
    st.just(GOOD),
    st.builds(lambda at, value: [*GOOD[:at], value, *GOOD[at + 1 :]], st.integers(0, 63), NUMBER),
    st.lists(NUMBER, max_size=66),
)


def is_right(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 64:
        return False
    return all(type(value) in (int, float) and 0 <= value <= 16 for value in row)


@settings(max_examples=150, deadline=None)
@given(given=st.lists(MAYBE_ROW, max_size=3))
def test_exactly_the_right_requests_are_answered(server: Server, given: list[object]) -> None:
    reply = server.request("POST", "/predict", rows(*given))
    assert reply.status == (200 if given and all(map(is_right, given)) else 400)


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
def test_no_body_is_an_error_of_ours(server: Server, body: bytes | str) -> None:
    body = body if isinstance(body, bytes) else body.encode()
    reply = server.request("POST", "/predict", body)
    assert reply.status == 400 and list(reply.json) == ["error"]


def test_the_log_holds_no_input_and_no_traceback(server: Server) -> None:
    for body, _, _ in BAD.values():
        server.request("POST", "/predict", body)
    log = server.log.read_text()
    assert "Traceback" not in log and str(SENTINEL) not in log
    assert len(log) < 2_000, log
