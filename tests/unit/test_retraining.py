"""The key under which Argo keeps a training: another one exactly when the result could be another.

Argo's cache of ConfigMaps takes keys of letters, digits and hyphens that begin with a letter or digit
(workflow/controller/cache: ^[a-zA-Z0-9][-a-zA-Z0-9]*$), at most 253 characters.
"""

import re
import sys
from pathlib import Path

import pytest

from ekiben.errors import UsageError
from ekiben.pipeline import retraining

RECIPE = """
from pathlib import Path
from ekiben.recipe import Recipe

def data(params):
    return {"rows": Path("data.txt").read_bytes() if not params["odd"] else object()}

RECIPE = Recipe(
    name="some_thing", service="service.x:X", route="/predict", params={"rate": 0.1, "odd": False}, thresholds=(),
    data=data, train=None, evaluate=None, save=None, examples=None,
)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bentofile.yaml").touch()
    folder = tmp_path / "bentos" / "some_thing"
    folder.mkdir(parents=True)
    (tmp_path / "bentos" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "recipe.py").write_text(RECIPE)
    (tmp_path / "data.txt").write_text("1 2 3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "bentos"}
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "bentos"]:
        del sys.modules[name]
    sys.modules.update(before)


def key(run: str = "run-1", **params: str) -> str:
    found = retraining.key("some_thing", params, run)
    assert re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", found)
    assert len(found) <= 253
    return found


def test_the_same_data_give_the_same_key_in_every_run(root: Path) -> None:
    assert key("run-1") == key("run-2") == key("run-2", rate="0.1")
    assert key().startswith("some-thing-")


def test_other_data_parameters_or_code_give_another(root: Path) -> None:
    keys = {key(), key(rate="0.2")}
    (root / "data.txt").write_text("1 2 4")
    keys.add(key())
    (root / "bentos" / "some_thing" / "model.py").write_text("LAYERS = 3")
    keys.add(key())
    assert len(keys) == 4


def test_data_of_unknown_bytes_are_never_taken_for_the_same(root: Path) -> None:
    assert key("run-1", odd="true") != key("run-2", odd="true")


def test_a_parameter_that_is_not_there(root: Path) -> None:
    with pytest.raises(UsageError, match="no parameter 'rat'"):
        key(rat="1")
