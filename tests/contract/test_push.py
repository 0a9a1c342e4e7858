"""What the tracker holds arrives at another W&B server: here a second tracker, by the real client."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ekiben.recipe import Evaluation
from ekiben.registry import Registry
from ekiben.tracker.export import export
from tests.contract.conftest import KEY, client_environment, start_tracker, stop


def _export(data: Path, out: Path) -> dict[str, list[dict[str, object]]]:
    export(data, out)
    found: dict[str, list[dict[str, object]]] = {}
    for line in out.read_text().splitlines():
        item = json.loads(line)
        found.setdefault(item["kind"], []).append(item)
    return found


def pushed(data: Path) -> str:
    """The last line of `ekiben tracker push`: the client keeps its first server for the life of a process."""
    command = [sys.executable, "-m", "ekiben.cli", "tracker", "push", "--data", str(data)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_runs_models_aliases_and_lineage_arrive_once(
    client_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    here, there = tmp_path / "here", tmp_path / "there"
    process, url = start_tracker(here)
    try:
        for key, value in client_environment(tmp_path / "client", url, KEY).items():
            monkeypatch.setenv(key, value)
        registry = Registry("vision")
        models = []
        for text, accuracy in (("one", 0.9), ("two", 0.95)):
            folder = tmp_path / text
            folder.mkdir()
            (folder / "weights").write_text(text)
            evaluation = Evaluation({"accuracy": accuracy}, {"confusion": (["a"], [[1]])})
            models.append(registry.log("digits", {"C": 1.0}, evaluation, folder, {}))
        registry.promote(models[1], instead_of=None)
        with wandb.init(project="vision", job_type="build") as run:
            run.use_artifact(str(models[1]))
            run.log({"x": 1})
            run.log({"x": 2})
    finally:
        stop(process)

    other, url = start_tracker(there)
    try:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert pushed(here) == "3 runs and 2 versions copied; 0 runs were there already"
        assert pushed(here) == "0 runs and 0 versions copied; 3 runs were there already"
    finally:
        stop(other)
    before, after = _export(here, tmp_path / "a.jsonl"), _export(there, tmp_path / "b.jsonl")
    for kind, keys in (
        ("run", ("project", "name", "job_type", "state")),
        ("version", ("collection", "version", "digest", "aliases", "metadata")),
        ("input", ("run", "version")),
        ("output", ("run", "version")),
    ):
        rows = [sorted(json.dumps([item[key] for key in keys]) for item in part[kind]) for part in (before, after)]
        assert rows[0] == rows[1], kind
    metrics = [json.loads(str(line["data"])).get("x") for line in after["line"] if line["stream"] == "history"]
    assert [x for x in metrics if x] == [1, 2]
