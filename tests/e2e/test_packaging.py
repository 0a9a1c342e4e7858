"""From W&B to the BentoML stores and back, by the real client, against a tracker in a process of its own."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from ekiben.errors import IntegrityError, UsageError
from ekiben.packaging import content, models, requirements, staging
from ekiben.types import ModelVersion
from tests.e2e.packaging_world import STRANGERS, Clone, World
from tests.e2e.packaging_world import world as make_world

SERVICE = "service.digits:Digits"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("packaging")) as made:
        yield made


@pytest.fixture(scope="module")
def clone(world: World) -> Clone:
    return world.clone("first")


@pytest.fixture(scope="module")
def pulled(clone: Clone) -> dict:
    return clone.json("pull", "digits:v0")


@pytest.fixture(scope="module")
def built(clone: Clone, pulled: dict) -> dict:
    return clone.json("build", "digits:v0", "--publish")


def pinned(world: World, number: int) -> str:
    version = world.versions[number]
    return f"{version}@{version.digest}"


def test_a_pulled_model_says_where_it_comes_from(world: World, clone: Clone, pulled: dict) -> None:
    version = world.versions[0]
    assert pulled["tag"] == "digits:v0"
    assert pulled["labels"]["wandb.version"] == str(version)
    assert pulled["labels"]["wandb.digest"] == version.digest
    assert re.fullmatch(r"[a-z0-9]{8}", pulled["labels"]["wandb.run"])
    assert re.fullmatch(r"[0-9a-f]{64}", pulled["labels"]["data.digest"])
    assert re.fullmatch(r"[0-9a-f]{40}", pulled["labels"]["train.commit"])
    assert pulled["metadata"]["metrics"]["accuracy"] > 0.9
    said = subprocess.run(
        [sys.executable, "-m", "bentoml", "models", "get", "digits:v0", "-o", "json"],
        env=clone.env, cwd=clone.root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(said.stdout)["labels"] == pulled["labels"]


def test_pulling_again_changes_nothing(world: World, clone: Clone, pulled: dict) -> None:
    before = {path: path.stat().st_mtime_ns for path in clone.home.glob("models/**/*")}
    assert clone.json("pull", "digits:v0") == pulled
    assert clone.json("pull", pinned(world, 0)) == pulled
    assert {path: path.stat().st_mtime_ns for path in clone.home.glob("models/**/*")} == before


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["pull", "digits:v77"], 3, "no model"),
        (["pull", "nobody"], 3, "no model"),
        (["pull", "a:b:c"], 2, "not a model"),
        (["pull", "--bento", "nobody"], 3, "no bento"),
        (["image", "nobody"], 3, "no Bento nobody"),
    ],
)
def test_mistakes_are_told_without_a_traceback(clone: Clone, args: list[str], code: int, said: str) -> None:
    complaint = clone.ekiben(*args, code=code)
    assert said in complaint
    assert "Traceback" not in complaint


def test_a_bento_pins_the_model_and_carries_its_lineage(clone: Clone, pulled: dict, built: dict) -> None:
    assert re.fullmatch(r"v0-[0-9a-f]{8}", built["version"])
    document = yaml.safe_load((clone.bento(built["tag"]) / "bento.yaml").read_text())
    assert [model["tag"] for model in document["services"][0]["models"]] == ["digits:v0"]
    labels = document["labels"]
    assert labels.items() >= pulled["labels"].items()
    assert labels["git.commit"] == clone.git("rev-parse", "HEAD")
    assert labels["git.dirty"] == "false"
    assert labels["ekiben.version"]
    assert labels["ekiben.content-digest"] == built["digest"]
    assert labels["framework"] == "scikit-learn", "the bentofile's own labels are kept"


def test_a_bento_holds_the_service_and_nothing_else_of_the_project(clone: Clone, built: dict) -> None:
    folder = clone.bento(built["tag"]) / "src"
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    service = {path.relative_to(clone.root).as_posix() for path in (clone.root / "service").glob("*.py")}
    assert held <= service | {"bentofile.yaml", "requirements.lock"}
    assert held >= {"bentofile.yaml", "requirements.lock", "service/__init__.py", "service/digits.py"}


def test_secrets_tests_and_state_are_in_no_bento_even_if_the_bentofile_includes_everything(
    clone: Clone, tmp_path: Path
) -> None:
    greedy = tmp_path / "greedy" / "bentofile.yaml"
    greedy.parent.mkdir()
    greedy.write_text('include: ["**"]\nexclude: ["bentos/**"]\n')
    (clone.root / ".bentoignore").write_text("note\n")
    staging.stage(clone.root, greedy, tmp_path / "staged", SERVICE)
    (clone.root / ".bentoignore").unlink()
    held = {path.relative_to(tmp_path / "staged").as_posix() for path in (tmp_path / "staged").rglob("*")}
    assert "service/digits.py" in held
    assert not held & {*STRANGERS, ".git", ".git/config", ".ekiben", "tests", "bentos"}


def test_building_again_loads_nothing_heavy_and_builds_nothing(world: World, clone: Clone, built: dict) -> None:
    made = clone.bento(built["tag"]) / "bento.yaml"
    before = made.stat().st_mtime_ns
    assert clone.json("build", pinned(world, 0))["tag"] == built["tag"]
    # How long that takes is measured by benchmarks/packaging.py; what would make it long is looked for here.
    heavy = clone.python(IMPORTED, "build", pinned(world, 0)).splitlines()[-1]
    assert heavy == "[]", "what is there already needs neither BentoML nor W&B nor what trains"
    assert clone.json("build", "digits:latest")["version"].startswith("v1-"), "another model is another Bento"
    assert clone.json("build", "digits:v0")["tag"] == built["tag"]
    assert made.stat().st_mtime_ns == before


IMPORTED = """
import contextlib, sys
from ekiben import cli
sys.argv = ["ekiben", *sys.argv[1:]]
with contextlib.suppress(SystemExit):
    cli.main()
print(sorted({"bentoml", "wandb", "numpy", "sklearn", "httpx"} & set(sys.modules)))
"""


def test_a_build_notices_what_changed_since_the_last(world: World) -> None:
    """Each by the whole command, with the Bento of the last build still there to be found."""
    changing = world.clone("changing")
    first = changing.json("build", pinned(world, 0))
    service, lock = changing.root / "service" / "digits.py", changing.root / "requirements.lock"
    held = service.read_text()
    service.write_text(held + "# one line more\n")
    second = changing.json("build", pinned(world, 0))
    assert second["tag"] != first["tag"]
    assert (changing.bento(second["tag"]) / "src/service/digits.py").read_text() == service.read_text()
    service.write_text(held)
    assert changing.json("build", pinned(world, 0)) == first
    needed = changing.root / "bentofile.yaml"
    asked = needed.read_text()
    needed.write_text(re.sub(r"numpy==\S+", 'numpy<99"', asked))
    third = changing.json("build", pinned(world, 0))
    assert third["tag"] not in (first["tag"], second["tag"])
    needed.write_text(re.sub(r"numpy==\S+", 'numpy<1"', asked))
    assert "requirements.lock has numpy" in changing.ekiben("build", pinned(world, 0), code=2)
    needed.write_text(asked)
    lock.write_text(re.sub("sha256:(.)", lambda it: f"sha256:{int(it[1], 16) ^ 1:x}", lock.read_text(), count=1))
    assert changing.json("build", pinned(world, 0))["tag"] not in (first["tag"], second["tag"], third["tag"])
    _flip(changing.model("digits:v0") / "model.skops")
    assert "bentoml models delete" in changing.ekiben("build", pinned(world, 0), code=5)


def test_a_bento_that_was_changed_in_the_store_is_not_taken_for_the_finished_one(world: World) -> None:
    victim = world.clone("changed-bento")
    tag = victim.json("build", pinned(world, 0))["tag"]
    with (victim.bento(tag) / "src/service/digits.py").open("a") as file:
        file.write("# not what was built\n")
    assert f"bentoml delete {tag}" in victim.ekiben("build", pinned(world, 0), code=5)


def test_two_clones_in_other_folders_at_other_times_build_the_same_content(world: World, built: dict) -> None:
    other = world.clone("somewhere/else/second")
    for path in other.root.rglob("*.py"):
        path.touch()
    told = other.json("build", "digits:v0")
    assert (told["digest"], told["tag"]) == (built["digest"], built["tag"])
    model = content.of_model(other.model("digits:v0"))
    assert content.of_bento(other.bento(told["tag"]), model) == built["digest"]


def test_a_weight_a_line_or_a_requirement_makes_another_digest(clone: Clone, built: dict, tmp_path: Path) -> None:
    model = shutil.copytree(clone.model("digits:v0"), tmp_path / "model")
    project = shutil.copytree(clone.root, tmp_path / "project", ignore=shutil.ignore_patterns(".git"))

    def digest(name: str) -> str:
        staging.stage(project, project / "bentofile.yaml", tmp_path / name, SERVICE)
        return content.of_source(tmp_path / name, content.of_model(model))

    seen = [digest("unchanged")]
    assert seen == [built["digest"]]
    service = project / "service" / "digits.py"
    service.write_text(service.read_text() + "\n# one line more\n")
    seen.append(digest("line"))
    bentofile = project / "bentofile.yaml"
    bentofile.write_text(bentofile.read_text().replace("numpy==", "numpy>="))
    seen.append(digest("requirement"))
    lock = project / "requirements.lock"
    lock.write_text(lock.read_text().replace("numpy==2", "numpy==1"))
    seen.append(digest("locked requirement"))
    _flip(model / "model.skops")
    seen.append(digest("weight"))
    bentofile.write_text(bentofile.read_text().replace("scikit-learn\n", "sklearn\n") + "# a remark\n")
    assert digest("label") == seen[-1], "a label or a remark is nothing that a Bento does"
    assert len(set(seen)) == 5


def test_a_lock_that_is_older_than_the_bentofile_is_refused(clone: Clone, tmp_path: Path) -> None:
    staging.stage(clone.root, clone.root / "bentofile.yaml", tmp_path / "staged", SERVICE)
    requirements.check(tmp_path / "staged")
    bentofile = tmp_path / "staged" / "bentofile.yaml"
    bentofile.write_text(re.sub(r"numpy==\S+", "numpy==0.1", bentofile.read_text()))
    with pytest.raises(UsageError, match=r"requirements\.lock has numpy"):
        requirements.check(tmp_path / "staged")


def test_uncommitted_files_are_said(world: World) -> None:
    dirty = world.clone("dirty")
    (dirty.root / "service" / "more.py").write_text("")
    told = dirty.json("build", "digits:v0")
    labels = yaml.safe_load((dirty.bento(told["tag"]) / "bento.yaml").read_text())["labels"]
    assert labels["git.dirty"] == "true"


def test_two_builds_at_once_make_one_bento(world: World) -> None:
    racing = world.clone("racing")
    both = [racing.start("build", "digits:v0", "--json") for _ in range(2)]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    tags = {json.loads(out.splitlines()[-1])["tag"] for out, _ in said}
    assert len(tags) == 1
    assert len([path for path in (racing.home / "bentos" / "digits").iterdir() if path.is_dir()]) == 1
    assert len([path for path in (racing.home / "models" / "digits").iterdir() if path.is_dir()]) == 1
    assert content.of_bento(racing.bento(tags.pop()), content.of_model(racing.model("digits:v0")))
    assert not list((racing.home / ".ekiben").glob("work-*")), "no scratch folder is left"


EXPORT = """
import sys
from pathlib import Path
from ekiben.packaging import bundle
for number in range(5):
    bundle.export(sys.argv[1], Path(sys.argv[2]) / str(number))
"""


def test_many_exports_of_one_bento_at_once_do_not_meet(clone: Clone, built: dict, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        for name in "abc":
            (tmp_path / name).mkdir()
        list(pool.map(lambda name: clone.python(EXPORT, built["tag"], str(tmp_path / name)), "abc"))
    exported = [_hashes(folder) for folder in tmp_path.glob("*/*")]
    assert len(exported) == 15
    assert all(each == exported[0] for each in exported)
    assert "models/digits/v0/model.skops" in exported[0]


MOVE = """
import sys, time
from ekiben.config import Project
from ekiben.pipeline import sources
registry = sources.registry(Project.here())
versions = [registry.resolve("digits", version) for version in ("v0", "v1")]
print("moving", flush=True)
while True:
    for version in versions:
        registry.promote(version, "wandering", instead_of=registry.find(version.name, "wandering"))
"""


def test_an_alias_that_moves_during_the_build_does_not_mix_versions(world: World, clone: Clone) -> None:
    moving = world.clone("moving")
    files = {version.version: _files(moving.json("pull", f"digits:{version.version}")) for version in world.versions}
    assert files["v0"] != files["v1"]
    mover = subprocess.Popen(
        [sys.executable, "-c", MOVE], cwd=clone.root, env=clone.env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert mover.stdout is not None
        assert mover.stdout.readline() == "moving\n"
        time.sleep(0.5)
        for _ in range(3):
            shutil.rmtree(moving.home, ignore_errors=True)
            told = moving.json("build", "digits:wandering")
            document = yaml.safe_load((moving.bento(told["tag"]) / "bento.yaml").read_text())
            tag = document["services"][0]["models"][0]["tag"]
            version = told["model"]["version"]
            assert tag == f"digits:{version}"
            assert document["labels"]["wandb.version"] == f"local/ekiben/digits:{version}"
            assert document["labels"]["wandb.digest"] == told["model"]["digest"]
            assert told["version"].startswith(f"{version}-")
            assert _hashes(moving.model(tag)) == files[version]
    finally:
        mover.kill()
        mover.communicate()


def test_a_byte_that_changed_in_the_clients_cache_is_refused(world: World) -> None:
    victim = world.clone("cache")
    victim.ekiben("pull", "digits:v0")
    weights = (victim.model("digits:v0") / "model.skops").read_bytes()
    shutil.rmtree(victim.home)
    cached = [path for path in _below(victim.env["WANDB_CACHE_DIR"]) if path.read_bytes() == weights]
    assert cached
    for path in cached:
        _flip(path)
    complaint = victim.ekiben("pull", "digits:v0", code=5)
    assert "not what W&B has" in complaint
    assert not victim.model("digits:v0").exists()


def test_a_byte_that_changed_on_the_server_is_refused(world: World, clone: Clone, pulled: dict) -> None:
    weights = (clone.model("digits:v0") / "model.skops").read_bytes()
    (blob,) = (path for path in world.blobs.rglob("*") if path.is_file() and path.read_bytes() == weights)
    victim = world.clone("server")
    _flip(blob)
    try:
        complaint = victim.ekiben("build", "digits:v0", code=5)
    finally:
        _flip(blob)
    assert "not what W&B has" in complaint
    assert not list(victim.home.glob("bentos/*")), "nothing was built"


def test_a_byte_that_changed_in_the_model_store_is_refused(world: World) -> None:
    victim = world.clone("store")
    victim.ekiben("pull", "digits:v0")
    _flip(victim.model("digits:v0") / "model.skops")
    assert "bentoml models delete" in victim.ekiben("build", "digits:v0", code=5)


def test_the_store_may_hold_another_projects_model_by_the_same_tag(world: World) -> None:
    shared = world.clone("shared")
    other = shared.model("digits:v0")
    other.mkdir(parents=True)
    (other / "model.yaml").write_text(yaml.safe_dump({"name": "digits", "version": "v0", "labels": {}}))
    told = shared.json("pull", "digits:v0")
    assert told["tag"] == f"digits:v0-{world.versions[0].digest[:8]}"
    assert [path.name for path in other.iterdir()] == ["model.yaml"]


def test_a_published_bento_names_its_model_and_comes_back_the_same(world: World, clone: Clone, built: dict) -> None:
    assert built["artifact"] == "local/ekiben/digits-bento:v0"
    assert clone.json("build", "digits:v0", "--publish")["artifact"] == built["artifact"], "published once"
    lineage = """
import wandb
artifact = wandb.Api().artifact("local/ekiben/digits-bento:v0")
print(artifact.type, [used.source_qualified_name for used in artifact.logged_by().used_artifacts()])
"""
    assert clone.python(lineage).splitlines()[-1] == f"bento ['{world.versions[0]}']"
    elsewhere = world.clone("elsewhere")
    for _ in range(2):
        assert elsewhere.json("pull", "--bento", f"digits:{built['version']}")["digest"] == built["digest"]
    came, sent = elsewhere.bento(built["tag"]), clone.bento(built["tag"])
    assert content.of_bento(came, content.of_model(elsewhere.model("digits:v0"))) == built["digest"]
    assert _hashes(came) == _hashes(sent)
    assert elsewhere.json("build", "digits:v0")["tag"] == built["tag"], "and need not be built there"


FORGE = """
import sys
from pathlib import Path
from ekiben.config import Project
from ekiben.packaging import bundle, store
from ekiben.pipeline import sources
registry = sources.registry(Project.here())
path, metadata = registry.resolve_bento("digits-bento", "v0")
folder = Path(sys.argv[1])
registry.download_bento(path, folder)
service = folder / "src" / "service" / "digits.py"
service.write_text(service.read_text() + "# not what was built\\n")
from ekiben.types import ModelVersion
model = ModelVersion.model_validate(metadata["bento"]["model"])
print(registry.log_bento("digits-bento", folder, model, "forged", metadata))
"""


def test_a_published_bento_with_other_content_is_refused(world: World, built: dict, tmp_path: Path) -> None:
    forger = world.clone("forger")
    forger.python(FORGE, str(tmp_path / "forged"))
    complaint = forger.ekiben("pull", "--bento", "digits:forged", code=5)
    assert "content digest" in complaint
    assert not forger.bento(built["tag"]).exists()


LOG_PICKLE = """
import pickle, sys
from pathlib import Path
from ekiben.config import Project
from ekiben.pipeline import sources
from ekiben.recipe import Evaluation
folder = Path(sys.argv[1])
folder.mkdir()
(folder / "weights.bin").write_bytes(pickle.dumps([1.0]))
print(sources.registry(Project.here()).log("pickled", {}, Evaluation({}), folder, {}).model_dump_json())
"""
PULL = """
import sys
from ekiben.config import Project
from ekiben.packaging import models
from ekiben.pipeline import sources
from ekiben.types import ModelVersion
version = ModelVersion.model_validate_json(sys.argv[1])
print(models.pull(lambda: sources.registry(Project.here()), version, {"weights.bin": "a vendor's format"}).tag)
"""


def test_a_model_that_is_a_pickle_is_only_pulled_if_the_recipe_says_why(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = world.clone("pickled")
    version = trusting.python(LOG_PICKLE, str(tmp_path / "model")).splitlines()[-1]
    complaint = trusting.ekiben("pull", "pickled", code=5)
    assert "weights.bin" in complaint
    assert "pickles=" in complaint
    assert not trusting.model("pickled:v0").exists()
    assert trusting.python(PULL, version).splitlines()[-1] == "pickled:v0"
    monkeypatch.setenv("BENTOML_HOME", str(trusting.home))
    with pytest.raises(IntegrityError, match=r"weights\.bin"):
        models.pull(_nobody, ModelVersion.model_validate_json(version), {})


def _nobody() -> object:
    raise AssertionError("what is in the store needs no registry")


def _flip(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(changed)


def _below(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def _files(pulled: dict) -> dict[str, str]:
    return _hashes(Path(pulled["path"]))


def _hashes(folder: Path) -> dict[str, str]:
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if path.name != "model.yaml"
    }
