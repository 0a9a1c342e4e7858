"""`ekiben new`: names, what is planned where, and that nothing is ever overwritten."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import EkibenError, NotFoundError, UsageError
from ekiben.scaffold import Framework, names
from ekiben.scaffold.plan import HELPERS, Plan, plan
from ekiben.scaffold.show import told
from ekiben.scaffold.write import write

ROOT = Path(__file__).parents[2]
SKLEARN, TORCH = Framework.SKLEARN, Framework.TORCH
LONGEST = "w" * names.LONGEST


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Ekiben's own project, without its engine and its tests."""
    root = tmp_path / "shop"
    for name in ("bentos", "service", "workflows", "loadtests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bentofile.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    return root


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    root = tmp_path / "Wine Shop"
    (root / ".venv").mkdir(parents=True)
    return root


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def accepted(name: str) -> bool:
    try:
        names.check(name, ())
    except UsageError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("my-model", "my_model"),
        ("My Model", "my_model"),
        ("WineQuality", "wine_quality"),
        ("_wine_", "wine"),
        ("3d", "model_3d"),
        ("class", "model_class"),
        ("none", "model_none"),  # class None
        ("on", "model_on"),  # true, for YAML
        ("../wine", "wine"),
        ("wine.py", "wine_py"),
        ("größe", "groe"),
        ("w" * 41, "w" * 40),
        ("batching", "model_batching"),  # service/batching.py
        ("path", "model_path"),  # class Path
        ("answer", "model_answer"),
    ],
)
def test_a_wrong_name_is_refused_with_the_right_one(empty: Path, name: str, suggested: str) -> None:
    with pytest.raises(UsageError) as refused:
        plan(empty, name, SKLEARN)
    assert refused.value.next_step == f"ekiben new {suggested}"
    plan(empty, suggested, SKLEARN)


@pytest.mark.parametrize("name", ["", "-", "日本", "_"])
def test_where_no_name_is_like_it_none_is_suggested(empty: Path, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        plan(empty, name, SKLEARN)
    assert refused.value.next_step == "choose another name"


@given(text=st.text(max_size=60) | st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,50}", fullmatch=True))
def test_what_is_accepted_or_suggested_is_a_name_everywhere(text: str) -> None:
    from bentoml import Tag

    for name in {text, names.suggestion(text, ())}:
        if accepted(name):
            ast.parse(f"from service.{name} import {names.class_name(name)}\nclass {names.class_name(name)}: ...")
            assert Tag.from_str(f"{name}:v1").name == name
            assert yaml.safe_load(f"value: {name}") == {"value": name}
            assert name == Path(name).name
    assert accepted(names.suggestion(text, ())) or not names.suggestion(text, ())


def test_a_project_gets_the_models_own_files_and_what_it_lacks(project: Path) -> None:
    (project / "service" / "network.py").unlink()
    before = tree(project)
    write(plan(project / "service", "wine", TORCH))
    after = tree(project)
    assert {path: after[path] for path in before} == before
    assert sorted(set(after) - set(before)) == [
        "bentos/wine/__init__.py",
        "bentos/wine/bentofile.yaml",
        "bentos/wine/recipe.py",
        "service/network.py",
        "service/wine.py",
        "tests/test_wine.py",
    ]
    assert after["service/network.py"] == (ROOT / "service" / "network.py").read_bytes()


def test_a_second_model_in_a_new_project_brings_what_the_first_had_no_need_of(empty: Path) -> None:
    write(plan(empty, "wine", SKLEARN))
    first = yaml.safe_load((empty / "bentofile.yaml").read_text())
    assert first["service"] == "service.wine:Wine"
    assert not (empty / "bentos" / "wine" / "bentofile.yaml").exists()
    write(plan(empty, "cork_taint", TORCH))
    second = yaml.safe_load((empty / "bentos" / "cork_taint" / "bentofile.yaml").read_text())
    assert second["service"] == "service.cork_taint:CorkTaint"
    assert yaml.safe_load((empty / "bentofile.yaml").read_text()) == first
    for bentofile in (first, second):
        assert all((empty / path).is_file() for path in bentofile["include"])
        assert all("=" in package for package in bentofile["python"]["packages"])


def test_what_projects_share_is_what_this_project_has(empty: Path) -> None:
    files = plan(empty, "wine", TORCH).files
    for path in (*(f"service/{module}.py" for module in HELPERS[TORCH]), "workflows/steps.py", "loadtests/slo.toml"):
        assert files[path] == (ROOT / path).read_text()
    shared = {path.name for folder in ("workflows", "loadtests") for path in (ROOT / folder).glob("[!_]*.*")}
    assert shared <= {Path(path).name for path in files}
    assert not [path for path, text in files.items() if "workflows" in path and "digits" in text]


@pytest.mark.parametrize("name", ["w", "wine", LONGEST])
@pytest.mark.parametrize("framework", Framework)
def test_new_files_are_as_the_linter_wants_them(empty: Path, framework: Framework, name: str) -> None:
    write(plan(empty, name, framework))
    # The workflow, formatted for its own model, gets one line too long by a long name.
    what = ["bentos", "service", "tests"] if name == LONGEST else ["."]
    rules = ["--select", "E,F,W,I,B,UP,SIM,RET,PTH,RUF", "--ignore", "RUF001,RUF002"]
    for arguments in (["check", *rules], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, *what]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_a_new_project_has_a_name_for_pyproject_and_for_wandb(empty: Path) -> None:
    import tomllib

    write(plan(empty, "wine", SKLEARN))
    told = tomllib.loads((empty / "pyproject.toml").read_text())
    assert told["project"]["name"] == told["tool"]["ekiben"]["project"] == "wine-shop"
    assert told["tool"]["ekiben"]["recipe"] == "wine"


@pytest.mark.parametrize("there", ["bentos/wine", "service/wine", "service/wine.py", "tests/test_wine.py"])
def test_what_is_there_is_named_and_nothing_is_written(project: Path, there: str) -> None:
    path = project / there
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("nowhere")  # even this
    before = tree(project)
    with pytest.raises(UsageError, match=f"has {there} already"):
        plan(project, "wine", SKLEARN)
    assert tree(project) == before


def test_a_folder_that_is_not_empty_becomes_a_project_only_if_it_is_meant(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "pyproject.toml").write_text("# mine\n")
    with pytest.raises(NotFoundError, match=r"holds pyproject\.toml, thesis\.tex") as refused:
        plan(tmp_path, "wine", TORCH)
    assert "`ekiben new wine --framework torch --here`" in refused.value.next_step
    made = plan(tmp_path, "wine", TORCH, here=True)
    write(made)
    assert (tmp_path / "pyproject.toml").read_text() == "# mine\n"
    assert 'recipe = "wine"' in told(made, written=True)


def test_a_module_is_not_hidden_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bentofile.yaml").write_text('service: "service:Svc"\n')  # as BentoML's own examples have it
    (tmp_path / "service.py").touch()
    with pytest.raises(UsageError, match=r"has service\.py"):
        plan(tmp_path, "wine", SKLEARN)


@pytest.mark.parametrize("way", ["file", "folder"])
def test_what_comes_in_the_way_meanwhile_stays_and_nothing_else_is_left(empty: Path, way: str) -> None:
    made = plan(empty, "wine", SKLEARN)
    in_the_way = empty / ("service/wine.py" if way == "file" else "service")
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("mine")
    with pytest.raises(EkibenError, match=str(in_the_way)):
        write(made)
    assert tree(empty) == {in_the_way.relative_to(empty).as_posix(): b"mine"}
    assert {path.name for path in empty.iterdir()} == {".venv", "service"}


@given(which=st.sets(st.sampled_from(sorted(plan(ROOT / "src", "wine", TORCH).files)), min_size=1))
def test_no_file_is_ever_overwritten(tmp_path_factory: pytest.TempPathFactory, which: set[str]) -> None:
    root = tmp_path_factory.mktemp("some")
    made = Plan(root, "wine", TORCH, dict.fromkeys(plan(ROOT / "src", "wine", TORCH).files, "new"), starts=False)
    for path in which:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("mine")
    with pytest.raises(UsageError, match="already"):
        write(made)
    assert tree(root) == dict.fromkeys(which, b"mine")


def ekiben(cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "ekiben.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_the_command_lists_writes_and_tells_how_to_go_on(empty: Path) -> None:
    dry = ekiben(empty, "new", "wine", "--dry-run")
    assert dry.returncode == 0 and tree(empty) == {}
    done = ekiben(empty, "new", "wine")
    listed = [line.split(maxsplit=2)[-1] for line in dry.stdout.splitlines()]
    assert sorted(listed) == sorted(tree(empty))
    assert done.stdout.splitlines()[: len(listed)] == [f"created  {path}" for path in listed]
    assert "\n  python -m pytest tests/test_wine.py\n  ekiben run wine\n" in done.stdout
    below = ekiben(empty / "service", "new", "cork")
    assert "created  cork.py\n" in below.stdout and "\n  cd ..\n" in below.stdout
    exported = ekiben(empty, "workflow", "export", "release")
    assert exported.stdout == (empty / "workflows" / "release.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["my-model"], 2, "ekiben new my_model"),
        (["wine", "--framework", "keras"], 2, "'sklearn', 'torch'"),
        (["digits"], 2, "service/digits.py already"),
    ],
)
def test_mistakes_have_an_exit_code_and_no_traceback(project: Path, arguments: list[str], code: int, said: str) -> None:
    before = tree(project)
    done = ekiben(project, "new", *arguments)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert tree(project) == before
