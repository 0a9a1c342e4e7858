"""What a pod's init container does: a published Bento into a folder, with no project and no store, and it serves."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ekiben.packaging import content
from tests.e2e.packaging_world import Clone, World
from tests.e2e.packaging_world import world as make_world
from tests.e2e.serving import serving, wait_ready


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("fetch")) as made:
        yield made


@pytest.fixture(scope="module")
def clone(world: World) -> Clone:
    return world.clone("publisher")


@pytest.fixture(scope="module")
def exact(world: World, clone: Clone) -> str:
    built = clone.json("build", "digits:v0", "--publish")
    return f"local/ekiben/digits:{built['version']}@{built['digest']}"


def fetch(clone: Clone, exact: str, into: Path, code: int = 0, **env: str) -> str:
    command = [sys.executable, "-m", "ekiben.cli", "pull", "--bento", exact, "--into", str(into)]
    kept = {
        key: clone.env[key] for key in ("PATH", "PYTHONPATH", "WANDB_BASE_URL", "WANDB_API_KEY") if key in clone.env
    }
    done = subprocess.run(command, cwd="/", env={**kept, "HOME": "/nowhere", **env}, text=True, capture_output=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert clone.env["WANDB_API_KEY"] not in done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_it_comes_whole_again_and_again_and_serves(clone: Clone, exact: str, tmp_path: Path) -> None:
    into = tmp_path / "bundle" / "bento"
    half = into.with_name("bento.new")
    half.mkdir(parents=True)
    (half / "bento.yaml").write_text("cut off by a kill")
    (tmp_path / "tmp").mkdir()
    for _ in range(2):
        fetch(clone, exact, into, TMPDIR=str(tmp_path / "tmp"))
    assert stat.S_IMODE(into.stat().st_mode) == 0o755, "another user must be able to read it"
    assert not half.exists()
    assert not list((tmp_path / "tmp").iterdir()), "no second copy stays in the client's cache"
    model = next(into.glob("models/*/*/model.yaml")).parent
    assert content.of_bento(into, content.of_model(model)) == exact.partition("@")[2]
    golden = json.loads((model / "golden.json").read_text())
    for path in (*into.rglob("*"), into):
        path.chmod(0o555 if path.is_dir() else 0o444)  # the serving container mounts it read-only
    with serving(tmp_path / "home", str(into), cwd=Path("/")) as server:
        wait_ready(server)
        answer = server.request("POST", golden["route"], json.dumps(golden["examples"][0]["request"])).json
        assert answer["classes"] == golden["examples"][0]["response"]["classes"]


def test_what_is_not_what_was_named_is_refused(clone: Clone, exact: str, tmp_path: Path) -> None:
    other = exact.partition("@")[0] + "@" + "0" * 64
    assert "content digest" in fetch(clone, other, tmp_path / "bento", code=5)
    assert not (tmp_path / "bento").exists()
    assert "exact" in fetch(clone, "digits:latest", tmp_path / "bento", code=2)
    assert "does not answer" in fetch(clone, exact, tmp_path / "bento", code=4, WANDB_BASE_URL="http://127.0.0.1:9")
