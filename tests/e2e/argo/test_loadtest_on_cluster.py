"""The distributed load test, with a master and two workers that are really carried out, each as a pod of its own.

A pod is here a process with a copy of the project of its own, its own clients' folders, and an address of its own on
the loopback. The engine is the local one; the tracker, the target and Locust are real.
"""

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ekiben.config import Project
from ekiben.pipeline import checks, definitions, document
from ekiben.pipeline.attempts import Attempt, Call, Processes
from ekiben.pipeline.local import Engine
from ekiben.pipeline.nodes import Event, Result
from ekiben.types import Outcome, Verdict
from tests.contract.conftest import KEY, client_environment, start_tracker
from tests.e2e.argo.fake import SLO
from tests.e2e.argo.world import ROOT, copied
from tests.e2e.loading import too_busy, write_golden
from tests.fakes.http_target import serving

NAME = "loadtest-run.ekiben-loadtest"  # of the master, by the headless Service
MASTER = "127.0.0.2"


class Cluster:
    """Performs each step as a pod. `down` are the steps whose pods have ended."""

    def __init__(self, folder: Path, tracker: str) -> None:
        self._tracker, self._folder = tracker, folder
        self._lock, self._number, self._running = threading.Lock(), 2, list[Processes]()

    def run(self, call: Call, line: Callable[[str], None]) -> Attempt:
        with self._lock:
            self._number += 1
            address = MASTER if call.name == "master" else f"127.0.0.{self._number}"
            name = f"{self._number:02}-{call.template.name}"
        project = copied(self._folder / name / "project")
        (project / "loadtests" / "slo.toml").write_text(SLO)
        write_golden(project / "loadtests")
        env = {**client_environment(self._folder / name / "client", self._tracker, KEY), "EKIBEN_POD_IP": address}
        (self._folder / name / "bentoml").mkdir()
        pod = Processes(project, {**env, "BENTOML_HOME": str(self._folder / name / "bentoml")})
        self._running.append(pod)
        inputs = {key: value.replace(NAME, MASTER) for key, value in call.inputs.items()}
        return pod.run(replace(call, inputs=inputs), line)

    def end(self) -> None:
        for pod in self._running:
            pod.end()

    def open(self) -> None: ...


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, url = start_tracker(tmp_path_factory.mktemp("tracker"))
    yield url
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def ran(
    folder: Path, tracker: str, tell: Callable[[Event], None] = lambda event: None, *, tries: int = 3, **given: Any
) -> Result:
    """The workflow with two workers; again where this machine was too busy to offer the load on time."""
    made = definitions.load(Project(ROOT), "loadtest")
    checks.require(made)
    parameters = {
        "examples": "loadtests/golden.json",
        "load": json.dumps({"rate": 60, "warm_up": "1s", "duration": "6s", "extend_to": "12s"}),
        **given,
    }
    engine = Engine(
        document.read(made), name="run", folder=folder / "run", state=folder / "state", parameters=parameters,
        steps=Cluster(folder / "pods", tracker), tell=tell,
    )  # fmt: skip
    result = engine.run()
    if too_busy(str(verdict(result))) and tries > 1:
        return ran(folder / "again", tracker, tell, tries=tries - 1, **given)
    return result


def verdict(result: Result) -> Verdict | None:
    text = next((node.outputs.get("verdict") for node in result.nodes if node.name == "master"), None)
    return Verdict.model_validate_json(text) if text else None


def phases(result: Result) -> dict[str, str]:
    return {node.name: node.phase for node in result.nodes}


def test_a_master_and_two_workers_pass_and_wandb_has_the_report(
    tmp_path: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(delay_ms=5) as url:
        result = ran(tmp_path, tracker, address=url, slo='["p99=2s", "error_rate=5%"]')
    found = verdict(result)
    assert found and found.outcome is Outcome.PASS, found
    assert phases(result) == dict.fromkeys(["prepare", "master", "worker(0:0)", "worker(1:1)"], "Succeeded")
    path = next(node.outputs["report"] for node in result.nodes if node.name == "master")
    for key, value in client_environment(tmp_path / "reader", tracker, KEY).items():
        monkeypatch.setenv(key, value)
    import wandb

    wandb.Api().artifact(path, type="load-report").download(root=str(tmp_path / "report"))
    wandb.teardown()  # else processes that other tests start would share this one's service
    report = json.loads((tmp_path / "report" / "report.json").read_text())["report"]
    assert report["workers"] == 2
    assert report["settings"]["rate"] == 60.0


def test_a_slow_service_fails(tmp_path: Path, tracker: str) -> None:
    with serving(delay_ms=300) as url:
        result = ran(tmp_path, tracker, address=url, slo='["p99=50ms", "error_rate=5%"]')
    found = verdict(result)
    assert found and found.outcome is Outcome.FAIL
    master = next(node for node in result.nodes if node.name == "master")
    assert (master.phase, master.exit_code) == ("Failed", Outcome.FAIL.exit_code)
    assert result.phase == "Failed"
    assert phases(result)["worker(0:0)"] == "Succeeded"


def test_a_worker_that_is_lost_half_way_is_no_verdict_on_the_service(tmp_path: Path, tracker: str) -> None:
    killed: list[int] = []

    def tell(event: Event) -> None:
        if event.task == "master" and "measuring" in event.text and not killed:
            killed.append(_kill("work"))

    with serving(delay_ms=5) as url:
        result = ran(tmp_path, tracker, tell, address=url, slo='["p99=2s", "error_rate=5%"]')
    assert killed
    master = next(node for node in result.nodes if node.name == "master")
    found = verdict(result)
    assert found and found.outcome is Outcome.ERROR and "was lost" in str(found)
    assert (master.phase, master.exit_code) == ("Failed", Outcome.ERROR.exit_code)
    assert sorted(phase for name, phase in phases(result).items() if "worker(" in name) == ["Error", "Succeeded"]
    assert result.phase in ("Failed", "Error")


@pytest.mark.soak
def test_a_master_that_is_lost_comes_again_and_so_do_its_workers(tmp_path: Path, tracker: str) -> None:
    killed: list[int] = []

    def tell(event: Event) -> None:
        if event.task == "master" and "measuring" in event.text and not killed:
            killed.append(_kill("lead"))

    with serving(delay_ms=5) as url:
        result = ran(tmp_path, tracker, tell, address=url, slo='["p99=2s", "error_rate=5%"]')
    assert killed
    found = verdict(result)
    assert found
    assert found.outcome is Outcome.PASS
    assert set(phases(result).values()) == {"Succeeded"}
    assert {node.name: len(node.tries) for node in result.nodes} == {
        "prepare": 1, "master": 2, "worker(0:0)": 1, "worker(1:1)": 1,
    }  # fmt: skip


def _kill(step: str) -> int:
    """As a node takes its pod along: with everything in it, and without a word."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if f"workflows.loadtest:{step}" in process.cmdline():
                for each in [process, *process.children(recursive=True)]:
                    each.kill()
                return int(process.pid)
    raise AssertionError(f"{step} does not run")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slo": '["p98=2s"]'}, "'p98=2s' is not an objective"),
        ({"limit": "10s"}, "the load takes 13 s, and a pod may take 10s"),
    ],
)
def test_what_cannot_be_starts_no_worker(tmp_path: Path, tracker: str, given: dict[str, str], said: str) -> None:
    result = ran(tmp_path, tracker, address="http://127.0.0.1:1", **{"slo": '["p99=2s"]', **given})
    assert phases(result) == {
        "prepare": "Failed", "master": "Omitted", "worker": "Omitted"
    }  # fmt: skip
    assert result.nodes[0].exit_code == 2
    assert said in (tmp_path / "run/steps/prepare/attempt-0/log").read_text()
