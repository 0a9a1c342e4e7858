"""`ekiben.registry` through the real client, one test per trap of the client and of W&B's aliases.

In this process, unlike the rest of the suite: what is tested is our code, as a step of a workflow runs it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ekiben.errors import ConflictError, IntegrityError, NotFoundError
from ekiben.loadtest.judging import judge
from ekiben.loadtest.slo import Slo
from ekiben.recipe import Evaluation
from ekiben.registry import Registry
from ekiben.report.headline import summary
from ekiben.report.write import FILES, Document, write
from ekiben.types import ModelVersion
from tests.contract.conftest import Server, client_environment
from tests.fakes.load_reports import measured


@pytest.fixture(scope="module")
def registry(server: Server, client_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(client_environment(folder, server.url, server.key))
    yield Registry(server.project)
    os.environ.clear()
    os.environ.update(before)


def logged(registry: Registry, name: str, tmp_path: Path, content: str, accuracy: float = 0.9) -> ModelVersion:
    folder = tmp_path / f"{name}-{content}"
    folder.mkdir()
    (folder / "weights").write_text(content * 100)
    tables = {"confusion": (["actual", "0"], [[0, 5]])}
    evaluation = Evaluation({"accuracy": accuracy, "recall/0": 1.0}, tables)
    return registry.log(name, {"C": 1.0}, evaluation, folder, {"git": "abc"})


def test_what_was_logged_is_resolved_with_its_metrics_and_its_run(
    registry: Registry, collection: str, tmp_path: Path
) -> None:
    model = logged(registry, collection, tmp_path, "one")
    assert model.version == "v0"
    assert len(model.digest) == 32
    assert registry.resolve(collection, "latest") == registry.resolve(collection, "v0") == model
    assert registry.metrics(model) == {"accuracy": 0.9, "recall/0": 1.0}
    assert registry.metadata(model)["git"] == "abc"
    assert registry.lineage(model).made_by


def test_files_are_named_as_the_caller_sees_them(
    registry: Registry, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's service, which reads them, has started in another folder."""
    logged(registry, collection, tmp_path, "first")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w").write_text("second")
    monkeypatch.chdir(tmp_path)
    assert registry.log(collection, {}, Evaluation({}), Path("weights"), {}).version == "v1"


def test_equal_content_is_one_version(registry: Registry, collection: str, tmp_path: Path) -> None:
    versions = set()
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        versions.add(logged(registry, collection, tmp_path / attempt, "same"))
    assert len(versions) == 1


def test_a_missing_model_is_not_found(registry: Registry, collection: str) -> None:
    with pytest.raises(NotFoundError, match=collection):
        registry.resolve(collection, "production")
    assert registry.find(collection, "production") is None


def test_a_download_is_verified_even_against_a_cache_that_lies(
    registry: Registry, collection: str, tmp_path: Path
) -> None:
    model = logged(registry, collection, tmp_path, "good")
    registry.download(model, tmp_path / "first")
    assert (tmp_path / "first" / "weights").read_text() == "good" * 100
    cache = Path(os.environ["WANDB_CACHE_DIR"])
    cached = [path for path in cache.rglob("*") if path.is_file() and path.read_bytes() == b"good" * 100]
    assert cached, "the client keeps what it downloaded"
    for path in cached:
        path.chmod(0o644)
        path.write_bytes(b"evil" * 100)  # the same size: the client trusts it
    with pytest.raises(IntegrityError, match="is not what W&B has"):
        registry.download(model, tmp_path / "second")
    with pytest.raises(IntegrityError, match="exists already"):
        registry.download(model, tmp_path / "first")


def test_a_version_with_another_digest_is_refused(registry: Registry, collection: str, tmp_path: Path) -> None:
    model = logged(registry, collection, tmp_path, "one")
    with pytest.raises(IntegrityError, match="has the digest"):
        registry.metrics(model.model_copy(update={"digest": "0" * 32}))


def test_promotion_moves_the_alias_only_from_where_the_caller_saw_it(
    registry: Registry, collection: str, tmp_path: Path
) -> None:
    first, second, third = (logged(registry, collection, tmp_path, text) for text in ("one", "two", "three"))
    registry.promote(first, instead_of=None)
    assert registry.find(collection, "production") == first
    with pytest.raises(ConflictError, match=f"is at {first}"):
        registry.promote(second, instead_of=None)
    registry.promote(second, instead_of=first)
    with pytest.raises(ConflictError, match=f"is at {second}"):
        registry.promote(third, instead_of=first)
    assert registry.find(collection, "production") == second, "a refused promotion changes nothing"
    registry.promote(second, instead_of=first)  # again, after a crash: it is there already
    assert registry.find(collection, "production") == second


def test_lineage_names_who_used_a_model(registry: Registry, collection: str, tmp_path: Path) -> None:
    import wandb

    model = logged(registry, collection, tmp_path, "one")
    registry.record(model, "deploy", {"bento": "digits:v0-abc"})
    (user,) = registry.lineage(model).used_by
    run = wandb.Api().run(f"{model.entity}/{model.project}/{user}")
    assert (run.job_type, run.config["bento"]) == ("deploy", "digits:v0-abc")


def test_a_load_report_stands_with_its_model(registry: Registry, collection: str, tmp_path: Path) -> None:
    import wandb

    model = logged(registry, collection, tmp_path, "one")
    report = measured()
    verdict = judge(report, Slo(objectives={"p99": 250.0}))
    write(report, verdict, tmp_path / "report")
    (tmp_path / "report" / "locust.log").write_text("not part of the report")
    before = registry.lineage(model)

    path = registry.log_load_report(model, tmp_path / "report", {"bento": "digits:1"}, summary(report, verdict))

    api = wandb.Api()
    artifact = api.artifact(path, type="load-report")
    artifact.download(root=str(tmp_path / "again"))
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == sorted(FILES)
    assert Document.read(tmp_path / "again").verdict == verdict
    assert artifact.metadata["verdict"] == "PASS"
    run = artifact.logged_by()
    assert registry.lineage(model).used_by == (*before.used_by, run.id)
    assert run.job_type == "load-test" and run.config["bento"] == "digits:1" and run.config["model"] == str(model)
    assert run.summary["load_test/p99_ms"] == pytest.approx(report.percentile(99.0).ms)  # type: ignore[union-attr]
    page = next(file for file in run.files() if file.name.endswith(".html"))
    page.download(root=str(tmp_path / "media"))
    assert (tmp_path / "media" / page.name).read_text() == (tmp_path / "report" / "report.html").read_text()
    made = api.run(f"{model.entity}/{model.project}/{before.made_by}")
    assert made.summary["load_test/verdict"] == "PASS" and made.summary["load_test/run"] == run.id
    assert made.summary["accuracy"] == 0.9 and made.state == "finished"


def test_a_load_report_of_another_model_is_refused(registry: Registry, collection: str, tmp_path: Path) -> None:
    model = logged(registry, collection, tmp_path, "one").model_copy(update={"digest": "0" * 32})
    with pytest.raises(IntegrityError):
        registry.log_load_report(model, tmp_path, {}, {})
