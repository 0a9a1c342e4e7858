"""The main job, end to end and for real: data to live traffic, twice, with bad models, bad luck and kill -9 between.

One story in one order, because each chapter starts from the state that the one before left: that is the point.
"""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ekiben.processes import free_port

pytestmark = pytest.mark.journey

ROOT = Path(__file__).parents[2]
SLO = """
[load]
rate = 150
arrivals = "poisson"
warm_up = "1s"
duration = "6s"
timeout = "5s"
seed = 1

[slo]
p99 = "1s"
error_rate = "1%"
achieved_rate = "90%"
"""


COMMANDS = re.findall(r"^\$ (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
"""Every command of the README. The story runs them; what it left out is run at its end."""


class Client:
    """Asks the service for as long as the story goes on, each time on a new connection."""

    def __init__(self, port: int) -> None:
        self.port, self.answered, self.failures = port, 0, list[str]()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        body = json.dumps({"rows": [[0] * 64]})
        while not self._stopped.wait(0.02):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200, f"{answer.status} {answer.read()!r}"
                assert len(json.loads(answer.read())["classes"]) == 1
                connection.close()
                self.answered += 1
            except Exception as error:
                self.failures.append(repr(error))

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


class Project:
    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.left = [command for command in COMMANDS if not command.startswith("make ")]
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "EKIBEN_"))},
            "BENTOML_HOME": str(root.parent / "bentoml"),
            "EKIBEN_PORT": str(self.port),
            "EKIBEN_WATCH_SECONDS": "2",
        }
        for name in ("bentos", "service", "workflows", "loadtests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("bentofile.yaml", "pyproject.toml"):
            shutil.copy(ROOT / name, root)
        (root / "loadtests" / "slo.toml").write_text(SLO)

    def start(self, *args: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "ekiben.cli", *args]
        return subprocess.Popen(
            command, cwd=self.root, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def ekiben(self, *args: str) -> tuple[int, str, str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=180)
        return process.returncode, out, err

    def run(self, *args: str) -> tuple[int, dict[str, Any], str]:
        code, out, err = self.ekiben("run", "--json", *args)
        assert out, err
        return code, json.loads(out.splitlines()[-1]), err

    def readme(self, beginning: str) -> dict[str, Any]:
        """Run the README's next command that begins so; the summary that the latest run has left."""
        command = next(command for command in self.left if command.startswith(beginning))
        self.left.remove(command)
        line, _, expected = command.partition("# exits with ")
        words = line.split()
        words[0] = str(Path(sys.executable).parent / words[0])
        done = subprocess.run(words, cwd=self.root, env=self.env, text=True, capture_output=True, timeout=180)
        assert done.returncode == int(expected or 0), f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, command
        latest = max((self.root / ".ekiben" / "runs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
        told: dict[str, Any] = json.loads(latest.read_text())
        return told

    def predict(self, row: list[float]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/predict", json.dumps({"rows": [row]}), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())

    def live(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.ekiben("status", "--json")[1])
        return state


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("journey") / "project"
    root.mkdir()
    made = Project(root)
    yield made
    code, _, err = made.ekiben("down")
    assert code == 0, err


@pytest.fixture(scope="module")
def first(project: Project) -> dict[str, Any]:
    code, told, err = project.run()
    assert code == 0, err
    return told


@pytest.fixture(scope="module")
def client(project: Project, first: dict[str, Any]) -> Iterator[Client]:
    asking = Client(project.port)
    yield asking
    asking.stop()


def test_the_first_run_goes_from_data_to_live_traffic(project: Project, first: dict[str, Any]) -> None:
    assert first["outcome"] == "PASS"
    assert first["model"]["path"] == "local/ekiben/digits:v0"
    assert len(first["model"]["digest"]) == 32
    assert first["bento"].startswith("digits:v0-")
    assert [step["name"] for step in first["steps"]] == [
        "train", "gate", "package", "load-test", "deploy", "watch", "onExit.conclude",
    ]  # fmt: skip
    assert {step["outcome"] for step in first["steps"]} == {"Succeeded"}
    assert first["active"] == "blue"
    assert first["url"] == f"http://127.0.0.1:{project.port}"
    page = Path(first["report"])
    assert json.loads(page.with_suffix(".json").read_text())["verdict"]["outcome"] == "PASS"
    assert page.stat().st_size < 1_000_000
    assert page.with_suffix(".md").is_file()

    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    answers = [project.predict(image.tolist())["classes"][0] for image in images[:20]]
    assert sum(answer == label for answer, label in zip(answers, labels, strict=False)) >= 18


def test_a_bad_model_is_stopped_by_the_gate(project: Project, client: Client) -> None:
    told = project.readme("ekiben run --param label_noise=0.6    # exits with 10")
    assert told["outcome"] == "FAIL"
    assert "accuracy 0." in told["verdict"]["line"]
    assert "≥ 0.96" in told["verdict"]["line"]
    outcomes = {step["name"]: step["outcome"] for step in told["steps"]}
    assert outcomes["gate"] == "Failed"
    assert outcomes["package"] == outcomes["load-test"] == outcomes["deploy"] == "Omitted"
    assert told["active"] == "blue", "the old version is still live"
    assert told["bento"] is None, "nothing was built"
    assert project.live()["selector"] == "blue"


def test_an_slo_that_cannot_be_met_stops_after_the_load_test(project: Project, client: Client) -> None:
    code, told, _ = project.run("--slo", "p99=0.1ms")
    assert code == 10, told["verdict"]
    assert "p99" in told["verdict"]["line"]
    outcomes = {step["name"]: step["outcome"] for step in told["steps"]}
    assert outcomes["load-test"] == "Failed"
    assert outcomes["deploy"] == "Omitted"
    assert project.live()["selector"] == "blue"


@pytest.mark.parametrize("step", ["package", "load-test"])
def test_kill_9_before_the_switch_leaves_the_old_version_live(project: Project, client: Client, step: str) -> None:
    killed_in(project, step, delay=0.7)
    assert project.live()["selector"] == "blue"


def test_kill_9_right_after_the_switch_leaves_the_new_version_live(project: Project, client: Client) -> None:
    process = project.start("run")
    state = project.root / ".ekiben" / "local" / "digits" / "state.json"
    _eventually(lambda: json.loads(state.read_text())["selector"] == "green")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert project.live()["selector"] == "green"


def test_the_next_run_succeeds_on_the_other_colour_without_a_failed_request(project: Project, client: Client) -> None:
    told = project.readme("ekiben run --param C=0.05")
    assert told["active"] == "blue"
    assert told["probe"]["failed"] == 0, told["probe"]
    assert told["probe"]["requests"] >= 1_000
    assert told["bento"] != json.loads(project.ekiben("history", "--json")[1])[0]["bento"]["version"]


def test_rollback_and_switch_go_back_and_forth(project: Project, client: Client) -> None:
    project.readme("ekiben rollback")
    assert project.live()["selector"] == "green"
    project.readme("ekiben switch")
    assert project.live()["selector"] == "blue"


def test_nobody_noticed_any_of_it(client: Client) -> None:
    assert client.answered > 1_000
    assert client.failures == []


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["run", "nobody"], 3, "no recipe 'nobody'"),
        (["run", "--param", "colour=red"], 2, "no parameter 'colour'"),
        (["run", "--param", "C=red"], 2, "C='red'"),
        (["run", "--param", "C"], 2, "not name=value"),
        (["run", "--slo", "p99=fast"], 2, "p99"),
        (["run", "--workflow", "nothing"], 3, "no workflow 'nothing'"),
        (["status", "nobody"], 3, "nobody"),
    ],
)
def test_mistakes_are_told_before_anything_starts(project: Project, args: list[str], code: int, said: str) -> None:
    found, _, err = project.ekiben(*args)
    assert (found, said in err) == (code, True), err
    assert "Traceback" not in err


def killed_in(project: Project, step: str, delay: float) -> None:
    process = project.start("run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[2:4] == [step, "started"]:
            break
    else:
        pytest.fail(f"{step} never started: {process.communicate()[1]}")
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _eventually(seen: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_the_other_commands_of_the_readme_do_what_they_say(project: Project, client: Client) -> None:
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert made, ".ci/run runs these: this test is part of what they do"
    assert set(made) <= set(targets)
    client.stop()  # `ekiben down` is among them
    assert len(project.left) > 8
    while project.left:
        project.readme("")


def test_the_readme_names_every_command_and_every_exit_code() -> None:
    readme = (ROOT / "README.md").read_text()
    from typer.main import get_command

    from ekiben import errors
    from ekiben.cli import app

    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"ekiben {name}" in readme, f"README.md does not speak of `ekiben {name}`"
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    for code in {kind.exit_code for kind in kinds}:  # type: ignore[attr-defined]
        assert re.search(rf"^\| .*\b{code}\b.* \|", readme, re.MULTILINE), f"exit code {code} is not in README.md"
