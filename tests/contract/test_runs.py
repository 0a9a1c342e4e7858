"""Runs as scripts resume, edit, search and delete them."""

import secrets
from collections.abc import Callable
from typing import Any

Script = Callable[..., dict[str, Any]]


def test_resume_never_allow_and_must(script: Script) -> None:
    run = secrets.token_hex(4)
    assert run in script("resume", mode="must", run=run)["error"]
    assert script("resume", mode="allow", run=run) == {"resumed": False, "step": 1, "error": ""}
    assert script("resume", mode="must", run=run) == {"resumed": True, "step": 2, "error": ""}
    assert script("resume", mode="allow", run=run) == {"resumed": True, "step": 3, "error": ""}
    assert run in script("resume", mode="never", run=run)["error"]


def test_a_finished_run_is_edited_found_and_deleted(script: Script) -> None:
    seen = script("edit_run")
    one, other = seen["run"], seen["other"]
    assert (seen["notes"], seen["added"], seen["tags"]) == ("second", 1, ["kept"])
    assert (seen["judged"], seen["group"]) == ("good", "g")
    assert seen["user"] and seen["projects"] and seen["paged"]
    assert seen["by_group"] == seen["by_config"] == seen["by_tag"] == seen["by_regex"] == [one]
    assert seen["by_summary"] == [other]
    assert seen["by_loss"] == seen["newest"] == [other, one]
    assert (seen["last_step"], seen["sampled"]) == (0, [{"_step": 0, "loss": 0.25}])
    assert seen["deleted"]
