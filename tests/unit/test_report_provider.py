import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ekiben.report import provider


@pytest.mark.parametrize(
    ("environment", "name", "summary"),
    [
        ({"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "/tmp/step"}, "github", "/tmp/step"),
        ({"GITHUB_ACTIONS": "true"}, "github", ""),
        ({"GITHUB_STEP_SUMMARY": "/tmp/step"}, "github", "/tmp/step"),
        ({"GITLAB_CI": "true", "CI": "true"}, "gitlab", ""),
        ({"CI": "true"}, "none", ""),
        ({"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": "", "GITLAB_CI": ""}, "none", ""),
        ({}, "none", ""),
    ],
)
def test_each_provider_is_known_by_its_variables(environment: dict[str, str], name: str, summary: str) -> None:
    assert provider.detect(environment) == provider.Provider(name, summary)  # type: ignore[arg-type]


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_any_environment_has_a_provider(environment: dict[str, str]) -> None:
    assert provider.detect(environment).name in ("github", "gitlab", "none")


def test_what_gitlab_is_told_is_yaml() -> None:
    job = yaml.safe_load(provider.gitlab_job("junit.xml", "report.md"))
    assert job == {"artifacts": {"when": "always", "paths": ["report.md"], "reports": {"junit": "junit.xml"}}}
