"""The release pipeline itself, killed at the end of each of its steps and resumed each time: it ends as one that was
left alone, nothing is done twice, and nobody who asks the service notices.

Two projects make the same two releases; the second one's second release is the one that is killed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_journey import Client, Project

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]

STEPS = ["train", "gate", "package", "load-test", "deploy", "watch", "onExit.conclude"]
SECOND = ("--param", "C=0.05")


def project(folder: Path) -> Iterator[Project]:
    (folder / "project").mkdir()
    made = Project(folder / "project")
    # What is judged here is no service: on a busy machine it is enough that it answers.
    text = (made.root / "loadtests" / "slo.toml").read_text()
    for was, now in (
        ("rate = 150", "rate = 60"),
        ('"6s"', '"8s"'),
        ('p99 = "1s"', 'p99 = "4s"'),
        ('"1%"', '"5%"'),
        ('"90%"', '"50%"'),
    ):
        assert was in text
        text = text.replace(was, now)
    (made.root / "loadtests" / "slo.toml").write_text(text)
    yield made
    code, _, err = made.ekiben("down")
    assert code == 0, err


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    yield from project(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    yield from project(tmp_path_factory.mktemp("killed"))


def kill_after(project: Project, step: str, *args: str) -> list[str]:
    """Run until the step has ended, and then no further. The steps that began."""
    process, begun = project.start("run", *args), list[str]()
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        words = line.split()
        if words[3:4] == ["started"]:
            begun.append(words[2])
        if words[2:4] == [step, "succeeded"]:
            break
    else:
        pytest.fail(f"{step} did not end: {process.stderr.read()}", pytrace=False)
    process.kill()
    process.communicate()
    return begun


def ended(project: Project, told: dict[str, Any]) -> dict[str, Any]:
    """What a run came to, without times and names that are its own."""
    history = json.loads(project.ekiben("history", "--json")[1])
    return {
        "outcome": told["outcome"],
        "model": told["model"]["path"],  # a step that was done twice would have made one version more
        "steps": [(step["name"], step["outcome"]) for step in told["steps"]],
        "active": told["active"],
        "probe failed": told["probe"]["failed"],
        "history": [(each["slot"], each["bento"]["model"]["version"]) for each in history],
    }


def test_killed_at_the_end_of_every_step_and_resumed_it_ends_as_one_that_was_left_alone(
    alone: Project, killed: Project
) -> None:
    for each in (alone, killed):
        code, _, err = each.run()
        assert code == 0, err
    client = Client(killed.port)
    code, whole, err = alone.run(*SECOND)
    assert code == 0, err
    runs = killed.root / ".ekiben" / "runs"
    before = set(runs.iterdir())
    begun = kill_after(killed, STEPS[0], *SECOND)
    (run,) = set(runs.iterdir()) - before
    for step in STEPS[1:]:
        begun += kill_after(killed, step, "--resume", run.name)
    code, cut, err = killed.run("--resume", run.name)
    client.stop()
    assert code == 0, err
    assert ended(killed, cut) == ended(alone, whole)
    assert begun == STEPS, "each began once"
    assert client.answered > 100
    assert client.failures == []
    code, _, err = killed.ekiben("run", "--resume", run.name)
    assert code == 2
    assert "has ended: PASS" in err
