"""How the command behaves to who calls it: interrupted, with nobody reading, in a project where nothing ever ran."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Project:
    root: Path
    env: dict[str, str]

    def start(self, *args: str, **settings: Any) -> "subprocess.Popen[str]":
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.env, **settings}
        return subprocess.Popen([sys.executable, "-m", "ekiben.cli", *args], cwd=self.root, text=True, **settings)

    def ekiben(self, *args: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*args, env={**self.env, **env})
        out, err = process.communicate(timeout=180)
        return process.returncode, out, err

    def processes(self) -> dict[int, list[str]]:
        """What runs for this project, by its environment."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get("BENTOML_HOME", "").startswith(str(self.root.parent)):
                    found[process.pid] = process.cmdline()
            except (psutil.Error, OSError):
                continue
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("cli") / "project"
    for name in ("bentos", "service", "workflows", "loadtests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bentofile.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "EKIBEN_"))}
    made = Project(root, {**kept, "BENTOML_HOME": str(root.parent / "bentoml"), "EKIBEN_PORT": "0"})
    yield made
    assert made.ekiben("down")[0] == 0


def test_a_project_that_never_ran_has_nothing_live(project: Project) -> None:
    assert project.ekiben("status") == (0, "digits: nothing is live\n", "")
    code, out, err = project.ekiben("status", "--json")
    assert (code, json.loads(out)["selector"], err) == (0, None, "")
    code, out, _ = project.ekiben("history", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert not (project.root / ".ekiben").exists(), "who only looks leaves nothing"


@pytest.mark.parametrize("args", [("history",), ("history", "--json"), ("workflow", "export"), ("run", "x", "--json")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_gone_is_no_reason_for_a_traceback(
    project: Project, args: tuple[str, ...], unbuffered: str
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    env = {**project.env, "PYTHONUNBUFFERED": unbuffered}
    process = project.start(*args, stdout=writes, env=env)
    os.close(writes)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err and "Exception ignored" not in err and "BrokenPipe" not in err
    closed = [sys.executable, "-m", "ekiben.cli", *args]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *closed], cwd=project.root, env=env, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (3 if args[0] == "run" else 0), done.stderr


@pytest.mark.parametrize(
    ("args", "env", "kind", "code", "seen"),
    [
        (["run", "nobody"], {}, "NotFoundError", 3, "no recipe 'nobody'"),
        (["run", "--param", "colour=red"], {}, "UsageError", 2, "no parameter 'colour'"),
        (["run", "--param", "C"], {}, "UsageError", 2, "'C' is not name=value"),
        (["run", "--slo", "p99=fast"], {}, "UsageError", 2, "p99"),
        (["run", "--workflow", "nothing"], {}, "NotFoundError", 3, "no workflow 'nothing'"),
        (["run"], {"WANDB_MODE": "offline"}, "UsageError", 2, "WANDB_MODE=offline: nothing would be tracked"),
        (["run"], {"WANDB_MODE": "disabled"}, "UsageError", 2, "WANDB_MODE=disabled: nothing would be tracked"),
        (["run"], {"EKIBEN_PORT": "many"}, "UsageError", 2, "port"),
        (["status", "nobody"], {}, "NotFoundError", 3, "no recipe 'nobody'"),
    ],
)
def test_a_mistake_is_told_to_machines_as_json_and_to_people_on_standard_error(
    project: Project, args: list[str], env: dict[str, str], kind: str, code: int, seen: str
) -> None:
    found, out, err = project.ekiben(*args, "--json", **env)
    (line,) = out.splitlines()
    error = json.loads(line)["error"]
    assert set(error) == {"kind", "seen", "wanted", "next_step", "exit_code"}
    assert (error["kind"], error["exit_code"], found) == (kind, code, code)
    assert seen in error["seen"]
    assert seen in err and "Traceback" not in err
    assert project.ekiben(*args, **env)[1] == "", "who did not ask for JSON gets none"


def test_a_workflow_that_is_not_there_is_answered_with_those_that_are(project: Project) -> None:
    for name in ("nope", "steps", "on_cluster"):
        code, out, err = project.ekiben("workflow", "export", name)
        assert (code, out) == (3, "")
        assert f"no workflow '{name}'" in err
        names = "loadtest, promote, release, release_on_cluster, retrain, rollback_on_cluster, runtime_on_cluster"
        assert f"wanted: one of {names}\n" in err


@pytest.mark.parametrize("step", ["train", "load-test"])
def test_an_interrupted_run_exits_with_130_and_leaves_nothing_behind(project: Project, step: str) -> None:
    process = project.start("run", start_new_session=True)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.split()[2:4] == [step, "started"]:
            break
    else:
        pytest.fail(f"{step} never started: {said} {process.communicate()[1]}")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert project.ekiben("status")[1] == "digits: nothing is live\n"
    daemons = {"ekiben.tracker", "ekiben.platforms.switch"}  # `ekiben down` ends them
    deadline = time.monotonic() + 10
    while left := [command for command in project.processes().values() if not daemons & set(command)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert project.ekiben("down")[0] == 0
    assert project.processes() == {}
