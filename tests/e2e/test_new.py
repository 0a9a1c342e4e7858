"""`ekiben new`, and then what it has written, unchanged: its own tests, and the whole way to live traffic."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ekiben.processes import free_port

ROOT = Path(__file__).parents[2]

torch = pytest.param(
    "torch",
    marks=pytest.mark.skipif(
        not find_spec("torch"), reason="needs torch, in an environment of its own: make test-torch"
    ),
)


class Shop:
    """A folder where commands are given."""

    def __init__(self, root: Path, engine: Path = ROOT / "src") -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "EKIBEN_"))}
        home = {"BENTOML_HOME": str(root.parent / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}
        self.env = {**kept, **home, "PYTHONPATH": str(engine), "EKIBEN_PORT": str(free_port())}

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root, env=self.env, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def ekiben(self, *arguments: str) -> str:
        return self.run("ekiben.cli", *arguments).stdout


@pytest.fixture
def copy(tmp_path: Path) -> Shop:
    """Ekiben's own project, which has two models already."""
    root = tmp_path / "copy"
    for name in ("bentos", "service", "workflows", "loadtests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bentofile.yaml", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root)
    return Shop(root)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """An empty folder."""
    return Shop(tmp_path / "shop")


@pytest.mark.parametrize("framework", ["sklearn", torch])
@pytest.mark.parametrize("where", ["copy", "shop"])
def test_a_new_model_passes_its_own_tests(where: str, framework: str, request: pytest.FixtureRequest) -> None:
    place: Shop = request.getfixturevalue(where)
    place.ekiben("new", "wine", "--framework", framework)
    assert "8 passed in" in place.run("pytest", "-q", "tests/test_wine.py").stdout


def test_its_tests_find_what_its_author_has_broken(shop: Shop) -> None:
    shop.ekiben("new", "wine")
    service, recipe = shop.root / "service" / "wine.py", shop.root / "bentos" / "wine" / "recipe.py"
    right = service.read_text()

    def broken(*selected: str) -> str:
        with pytest.raises(AssertionError) as failed:
            shop.run("pytest", "-q", "tests/test_wine.py", *selected)
        return str(failed.value)

    service.write_text(right.replace("FEATURES = 13", "FEATURES = 12"))
    assert "X has 12 features, but" in broken("-k", "own_answers")
    service.write_text(right.replace("argmax", "argmin"))
    recipe.write_text(recipe.read_text().replace('random_state=params["seed"]', "").replace("0.9,", "1.1,"))
    assert "3 failed, 5 passed" in broken()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The wheel's content, as it would be installed."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as packed:
        folders = {name.partition("/")[0] for name in packed.namelist()}
        assert {name for name in folders if not name.endswith(".dist-info")} == {"ekiben"}
        packed.extractall(folder / "installed")
    return folder / "installed"


@pytest.mark.parametrize("framework", ["sklearn", "torch"])
def test_the_wheel_starts_the_same_project_as_the_repository(wheel: Path, tmp_path: Path, framework: str) -> None:
    made: list[dict[str, str]] = []
    for engine in (wheel, ROOT / "src"):
        place = Shop(tmp_path / engine.name / "shop", engine)
        where = "import ekiben.scaffold; print(ekiben.scaffold.__file__)"
        found = subprocess.run([sys.executable, "-c", where], env=place.env, capture_output=True, text=True, check=True)
        assert Path(found.stdout).is_relative_to(engine)
        place.ekiben("new", "wine", "--framework", framework)
        files = (path for path in place.root.rglob("*") if path.is_file())
        made.append({path.relative_to(place.root).as_posix(): path.read_text() for path in files})
    assert made[0] == made[1]
    assert len(made[0]) > 15


@pytest.mark.journey
@pytest.mark.parametrize(
    ("where", "framework", "name"),
    [
        ("shop", "sklearn", ""),
        ("copy", "sklearn", "wine"),
        pytest.param("copy", *torch.values, "wine", marks=torch.marks),
    ],
)
def test_a_new_model_goes_live_unchanged(where: str, framework: str, name: str, request: pytest.FixtureRequest) -> None:
    """In a project of its own it is the default recipe; beside others it is named."""
    place: Shop = request.getfixturevalue(where)
    place.ekiben("new", "wine", "--framework", framework)
    named = [name] if name else []
    try:
        told = json.loads(place.ekiben("run", *named, "--json").splitlines()[-1])
        assert told["outcome"] == "PASS"
        assert told["bento"].startswith("wine:v0-")
        assert predict(int(place.env["EKIBEN_PORT"]), [[0.0] * 13])["classes"][0] in range(3)
        bentofile = Path("bentos/wine/bentofile.yaml" if name else "bentofile.yaml")
        assert "wine:" in place.run("bentoml", "build", "-o", "tag", "-f", str(bentofile), ".").stdout
    finally:
        place.ekiben("down", *named)


def predict(port: int, rows: list[list[float]]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/predict", json.dumps({"rows": rows}), {"Content-Type": "application/json"})
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    return answer
