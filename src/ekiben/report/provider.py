"""Which CI a command runs in, and how a report is shown there. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SUMMARY_LIMIT = 1024 * 1024
"""Bytes that GitHub takes as one step's summary; it drops all of a larger one."""


@dataclass(frozen=True)
class Provider:
    """`summary` is the file that a GitHub step's summary is read from; '' elsewhere, and in steps without one."""

    name: Literal["github", "gitlab", "none"]
    summary: str = ""


def detect(environment: Mapping[str, str]) -> Provider:
    """GitHub Actions (Gitea's and Forgejo's runners are alike), GitLab CI, or none."""
    if environment.get("GITHUB_ACTIONS") == "true" or environment.get("GITHUB_STEP_SUMMARY"):
        return Provider("github", environment.get("GITHUB_STEP_SUMMARY", ""))
    if environment.get("GITLAB_CI") == "true":
        return Provider("gitlab")
    return Provider("none")


def gitlab_job(junit: str, markdown: str) -> str:
    """What a job in .gitlab-ci.yml needs, so that its merge request shows the test cases and keeps the Markdown."""
    return f"artifacts:\n  when: always\n  paths: [{markdown}]\n  reports:\n    junit: {junit}\n"
