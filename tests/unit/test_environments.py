"""The environments of pyproject.toml: what is refused and how it is said, and what one service has otherwise."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ekiben import environments
from ekiben.config import Project
from ekiben.environments import Environment
from ekiben.errors import NotFoundError, UsageError

PROJECT = """
[tool.ekiben.environments.production]
namespace = "models"
replicas = {min = 3, max = 30}
node_selector = {"kubernetes.io/arch" = "amd64"}
[tool.ekiben.environments.production.services.big]
resources = {gpu = 1}
replicas = {max = 4}
node_selector = {gpu = "h100"}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_service_has_what_its_environment_says_but_for_its_own_keys(root: Path) -> None:
    plain, big = (Project.here().environment("production", service) for service in ("digits", "big"))
    assert (plain.replicas.min, plain.replicas.max, plain.resources.gpu) == (3, 30, 0)
    assert (big.replicas.min, big.replicas.max, big.resources.gpu) == (3, 4, 1)
    assert big.node_selector == {"kubernetes.io/arch": "amd64", "gpu": "h100"}
    assert big.namespace == "models"


def test_an_environment_that_is_not_there_says_which_are(root: Path) -> None:
    with pytest.raises(NotFoundError, match="staging") as error:
        Project.here().environment("staging", "digits")
    assert "production" in error.value.wanted


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("replica = 1", r"environments\.production: unknown key replica; known: context, .*replicas"),
        ("watch = {window = 3}", r"environments\.production\.watch: unknown key window; known: seconds"),
        ("autoscaling = {kind = 'keda'}", "needs the address of Prometheus"),
        ("autoscaling = {kind = 'magic'}", "in-progress"),
        ("resources = {cpu = '500m', cpu_limit = '0.25'}", "cpu_limit 0.25 is below cpu 500m"),
        ("services.digits = {replicas = {min = 31}}", r"services\.digits\.replicas: min 31 is above max 30"),
        ("services.digits = {replica = 1}", r"services\.digits: unknown key replica; known"),
        ("services.digits = {services = {}}", r"services\.digits: unknown key services"),
        ("env = {WANDB_API_KEY = 'x'}", "wandb_secret"),
        ("tolerations = [{key = 'spot', value = 'true'}]", "Equal"),
        ("network = {from_addresses = ['10.0.0.1/8']}", "host bits"),
        ("node_selector = 3", "dictionary"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(root: Path, line: str, said: str) -> None:
    text = PROJECT.replace('node_selector = {"kubernetes.io/arch" = "amd64"}', line)
    (root / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=said) as error:
        _ = Project.here().settings
    assert "Value error" not in str(error.value)
    assert "validation error" not in str(error.value)


def test_an_unknown_key_of_the_project_names_the_known_ones(root: Path) -> None:
    (root / "pyproject.toml").write_text("[tool.ekiben]\nprot = 1\n")
    with pytest.raises(UsageError, match=r"unknown key prot; known: .*port"):
        _ = Project.here().settings


def test_an_environment_variable_that_is_no_json_is_no_traceback(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_ENVIRONMENTS", "production")
    with pytest.raises(UsageError, match="environments"):
        _ = Project.here().settings


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("namespace", ["", "Models", "-a", "a.b", "a" * 64, "a\n"]),
        ("image_repository", ["registry.example/Team", "a b", "x:latest@", "$(reboot)"]),
        ("runtime_image", ["a b", "x@sha256:1", "-x", 'x"'],),
        ("prometheus", ["prometheus:9090", "http://", "ftp://x", 'http://x/"}', "http://user:pw@x"]),
        ("http_route", ["a b", "A"]),
        ("canary_percent", [-1, 51]),
        ("start_seconds", [0, 3601]),
    ],
)  # fmt: skip
def test_what_would_break_a_manifest_is_refused(field: str, wrong: list[Any]) -> None:
    for value in wrong:
        with pytest.raises(ValidationError):
            Environment.model_validate({field: value})


def test_every_setting_is_documented() -> None:
    tables = [each for each in vars(environments).values() if isinstance(each, type) and issubclass(each, BaseModel)]
    for table in tables:
        for name, field in table.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, environments.Table)
            assert field.description or nested, f"{table.__name__}.{name}"
            if re.search("seconds", name):
                assert "in s" in str(field.description), f"{table.__name__}.{name} has no unit"
