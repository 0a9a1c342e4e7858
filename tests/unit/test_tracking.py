"""Which W&B server a project speaks to, and what is said, at once, when that cannot work."""

import os
import time
from pathlib import Path

import pytest

from ekiben import tracking
from ekiben.config import Project
from ekiben.errors import UnavailableError, UsageError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "bentofile.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def test_a_server_without_a_key_is_refused(project: Project) -> None:
    with pytest.raises(UsageError, match="WANDB_API_KEY is not set"):
        tracking.environment(project, {"WANDB_BASE_URL": "http://127.0.0.1:9"})


def test_a_server_that_is_down_is_said_at_once(project: Project) -> None:
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9 does not answer"):
        tracking.environment(project, {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "x" * 40})
    assert time.monotonic() - started < 10, "the client itself takes 19 s, and 90 s to begin a run"


def test_without_a_server_the_embedded_one_runs_once_and_is_reused(project: Project) -> None:
    given = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    try:
        first = tracking.environment(project, given)
        assert tracking.environment(project, given) == first
        assert first["WANDB_BASE_URL"].startswith("http://127.0.0.1:")
        assert len(first["WANDB_API_KEY"]) >= 40
        folders = [value for key, value in first.items() if key.endswith("_DIR")]
        assert len(folders) == 5
        assert all(Path(folder).is_relative_to(project.state) for folder in folders), "nothing in the user's home"
    finally:
        tracking.tracker(project).stop()


def test_what_the_user_has_set_wins(project: Project) -> None:
    given = {"WANDB_PROJECT": "theirs", "WANDB_DIR": "/elsewhere", "PATH": os.environ["PATH"]}
    try:
        made = tracking.environment(project, given)
        assert (made["WANDB_PROJECT"], made["WANDB_DIR"]) == ("theirs", "/elsewhere")
    finally:
        tracking.tracker(project).stop()
