"""`ekiben render` as a person or a GitOps pipeline calls it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.golden.test_manifests import BENTO, IMAGE
from tests.manifest_checks import check

PROJECT = """
[tool.ekiben.environments.production]
namespace = "models"
image_repository = "registry.example/team"
[tool.ekiben.environments.staging]
runtime_image = "registry.example/team/runtime:1"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for name in ("digits", "digits_cnn"):
        (tmp_path / "bentos" / name).mkdir(parents=True)
        (tmp_path / "bentos" / name / "recipe.py").write_text("raise SystemExit('rendering runs no recipe')")
    (tmp_path / "bento.json").write_text(json.dumps({**BENTO.model_dump(), "tag": BENTO.tag, "artifact": ""}))
    (tmp_path / "image.json").write_text(json.dumps({**IMAGE.model_dump(), "sbom": "x.json"}))
    return tmp_path


def render(root: Path, *args: str, code: int = 0) -> str:
    env = {**os.environ, "BENTOML_HOME": str(root / "home")}
    command = [sys.executable, "-m", "ekiben.cli", "render", *args]
    done = subprocess.run(command, cwd=root, env=env, text=True, capture_output=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_yaml_and_json_say_the_same_and_it_is_valid(root: Path) -> None:
    args = ("digits", "--env", "staging", "--bento", "bento.json")
    documents = list(yaml.safe_load_all(render(root, *args)))
    check(documents)
    assert json.loads(render(root, *args, "--json"))["items"] == documents
    assert render(root, *args) == render(root, *args), "the same again: no times, no chance"


@pytest.mark.parametrize(
    "image", ["image.json", str(IMAGE), IMAGE.digest], ids=["a file", "a reference", "a digest in the repository"]
)
def test_an_image_is_named_in_three_ways(root: Path, image: str) -> None:
    args = ("--slot", "green", "--image", image, *(() if image.endswith("json") else ("--bento", "bento.json")))
    documents = list(yaml.safe_load_all(render(root, "digits", "--env", "production", *args)))
    assert [(d["kind"], d["metadata"]["name"]) for d in documents] == [
        ("Deployment", "digits-green"),
        ("HorizontalPodAutoscaler", "digits-green"),
        ("PodDisruptionBudget", "digits-green"),
    ]
    assert documents[0]["spec"]["template"]["spec"]["containers"][0]["image"] == str(IMAGE)


def test_several_services_without_a_release_have_no_deployments(root: Path) -> None:
    documents = list(yaml.safe_load_all(render(root, "digits", "digits_cnn", "--env", "production")))
    assert {d["metadata"]["labels"]["ekiben.dev/service"] for d in documents} == {"digits", "digits-cnn"}
    assert "Deployment" not in {d["kind"] for d in documents}


def test_create_prints_the_services_as_they_are_first_made(root: Path) -> None:
    documents = list(yaml.safe_load_all(render(root, "digits", "--env", "production", "--create")))
    assert [d["spec"]["selector"]["ekiben.dev/slot"] for d in documents] == ["blue", "green"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("digits", "--env", "prod"), 3, "staging"),
        (("digit", "--env", "production"), 3, "one of digits, digits_cnn"),
        (("digits", "--env", "production", "--bento", "bento.json"), 2, "runtime_image"),
        (("digits_cnn", "--env", "staging", "--bento", "bento.json"), 2, "no Bento of digits_cnn"),
        (("digits", "digits_cnn", "--env", "staging", "--bento", "bento.json"), 2, "no other"),
        (("digits", "--env", "staging", "--bento", "digits"), 3, "ekiben build"),
        (("digits", "--env", "staging", "--bento", "none.json"), 3, "none.json"),
        (("digits", "--env", "staging", "--bento", "image.json"), 2, "BentoRef"),
        (("digits", "--env", "staging", "--bento", "pyproject.toml"), 3, "no Bento"),
        (("digits", "--env", "production", "--image", IMAGE.digest), 2, "--bento"),
        (("digits", "--env", "production", "--image", "registry.example/digits:v3"), 3, "sha256"),
        (("digits", "--env", "production", "--create", "--slot", "blue"), 2, "--create"),
    ],
)
def test_what_is_missing_is_said(root: Path, args: tuple[str, ...], code: int, said: str) -> None:
    assert said in render(root, *args, code=code)


def test_services_that_would_share_an_object_are_refused(root: Path) -> None:
    (root / "bentos" / "digits-preview").mkdir()
    (root / "bentos" / "digits-preview" / "recipe.py").touch()
    said = render(root, "digits", "digits-preview", "--env", "production", code=2)
    assert "digits and digits-preview would both have a Service digits-preview" in said


def test_two_hundred_services_in_one_command(root: Path) -> None:
    names = [f"service{number}" for number in range(200)]
    for name in names:
        (root / "bentos" / name).mkdir()
        (root / "bentos" / name / "recipe.py").touch()
    begun = time.monotonic()
    rendered = render(root, *names, "--env", "production")
    assert rendered.count("\nkind: Service\n") == 400
    assert time.monotonic() - begun < 20, "2 s alone; the machine may be busy"


def test_no_heavy_module_is_imported(root: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = ['render', 'digits', '--env', 'staging', '--bento', 'bento.json']\n"
        "from ekiben.cli import app\n"
        "app(standalone_mode=False)\n"
        "print({'bentoml', 'wandb', 'lightkube', 'numpy', 'httpx'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, capture_output=True, check=True)
    assert done.stderr.strip() == "set()"
