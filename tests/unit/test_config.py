"""Settings: the file, then the environment; and what a project offers by name."""

from pathlib import Path

import pytest

from ekiben.config import Project, find_root
from ekiben.errors import NotFoundError, UsageError
from ekiben.recipe import Evaluation, Recipe


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bentofile.yaml").touch()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return tmp_path


def test_the_root_is_found_from_below(root: Path) -> None:
    assert Project.here().root == root


def test_no_root_says_what_a_root_is(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no bentofile\.yaml"):
        find_root(tmp_path)


def test_the_environment_overrides_the_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "pyproject.toml").write_text('[tool.ekiben]\nproject = "vision"\nport = 4000\n')
    monkeypatch.setenv("EKIBEN_PORT", "5000")
    settings = Project.here().settings
    assert (settings.project, settings.port, settings.recipe) == ("vision", 5000, "digits")


@pytest.mark.parametrize(
    ("text", "said"),
    [("[tool.ekiben]\nprot = 1\n", "prot"), ("[tool.ekiben]\nport = 70000\n", "port"), ("[tool", "pyproject.toml")],
)
def test_wrong_settings_are_named(root: Path, text: str, said: str) -> None:
    (root / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        _ = Project.here().settings


def test_a_reference_that_leads_nowhere_says_what_to_create(root: Path) -> None:
    (root / "some_workflows.py").write_text("import nothing_like_this\n")
    project = Project.here()
    with pytest.raises(NotFoundError, match="no module bentos_x"):
        project.load("bentos_x.recipe:RECIPE")
    with pytest.raises(
        ModuleNotFoundError, match="nothing_like_this"
    ):  # a fault in the user's own module is shown whole
        project.load("some_workflows:define")


def recipe() -> Recipe:
    return Recipe(
        name="r", service="s:S", route="/predict", params={"C": 1.0, "depth": 3, "balanced": False, "kernel": "rbf"},
        thresholds=(), data=dict, train=lambda split, params: None, evaluate=lambda model, split: Evaluation({}),
        save=lambda model, split, folder: None, examples=lambda model, split: [],
    )  # fmt: skip


def test_parameters_take_the_type_of_their_default() -> None:
    given = recipe().with_params({"C": "0.5", "depth": "7", "balanced": "true", "kernel": "linear"})
    assert given == {"C": 0.5, "depth": 7, "balanced": True, "kernel": "linear"}


@pytest.mark.parametrize(("key", "text"), [("C", "much"), ("depth", "2.5"), ("balanced", "perhaps"), ("colour", "red")])
def test_wrong_parameters_are_refused_with_what_is_allowed(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=key):
        recipe().with_params({key: text})
