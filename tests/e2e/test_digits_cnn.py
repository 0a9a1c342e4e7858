"""The torch model from its recipe to live traffic, by real processes. Needs torch, which only its own Bento has."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="needs torch, which the base installation leaves out: make test-torch")

from bentos.digits_cnn.recipe import RECIPE, Model
from ekiben.processes import free_port
from tests.e2e.serving import (
    EXPORT,
    IMPORT,
    ROOT,
    Server,
    answers,
    build,
    python,
    serving,
    wait_ready,
)

PARAMS = RECIPE.with_params({})
SPLIT = RECIPE.data(PARAMS)
IMAGES = SPLIT.test_x


@dataclass(frozen=True)
class World:
    project: Path
    home: Path
    tag: str
    exported: Path
    model: Model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("cnn")
    project, home, files = folder / "project", folder / "home", folder / "files"
    for name in ("service", "bentos"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".env").write_text("secret")
    files.mkdir()
    home.mkdir()
    model = RECIPE.train(SPLIT, PARAMS)
    RECIPE.save(model, SPLIT, files)
    python(home, IMPORT, "digits_cnn:v1", str(files), "1" * 32)
    tag = build(home, project, "-f", "bentos/digits_cnn/bentofile.yaml")
    python(home, EXPORT, tag, str(folder / "exported"))
    return World(project, home, tag, folder / "exported", model)


@pytest.fixture(scope="module")
def servers(world: World) -> Iterator[dict[str, Server]]:
    def store(name: str) -> Path:
        return Path(shutil.copytree(world.home, world.home.parent / name))

    source = ("service.digits_cnn:DigitsCNN", "--arg", "model=digits_cnn:v1")
    with ExitStack() as stack:
        started = {
            "exported": stack.enter_context(serving(world.home.parent / "empty", str(world.exported), cwd=world.home)),
            "store": stack.enter_context(serving(store("by-tag"), world.tag, cwd=world.home)),
            "source": stack.enter_context(serving(store("by-source"), *source, cwd=world.project)),
        }
        for server in started.values():
            wait_ready(server)
        yield started


@pytest.fixture(scope="module")
def server(servers: dict[str, Server]) -> Server:
    return servers["exported"]


def test_training_is_good_repeatable_and_stops_early(world: World) -> None:
    evaluation = RECIPE.evaluate(world.model, SPLIT)
    assert evaluation.metrics["accuracy"] >= 0.98
    losses = [epoch["validation_loss"] for epoch in evaluation.history]
    assert len(losses) < PARAMS["epochs"] and losses.index(min(losses)) == len(losses) - 1 - PARAMS["patience"]
    again = RECIPE.train(SPLIT, PARAMS)
    assert again.history == world.model.history
    pairs = zip(world.model.network.state_dict().values(), again.network.state_dict().values(), strict=True)
    assert all(one.equal(other) for one, other in pairs)


def test_answers_are_the_same_bit_for_bit_however_they_are_served(
    servers: dict[str, Server], world: World, tmp_path: Path
) -> None:
    # The file is made here, by the model as it was trained: another processor may round otherwise.
    golden = tmp_path / "answers.json"
    rows = [IMAGES, *(image[None] for image in IMAGES)]
    golden.write_text(json.dumps([world.model.predict_proba(each).tolist() for each in rows]))
    served = {way: answers(server, IMAGES) for way, server in servers.items()}
    assert len(set(served.values())) == 1
    assert [json.loads(line)["probabilities"] for line in served["source"].splitlines()] == json.loads(
        golden.read_text()
    )


def test_answers_and_metrics_name_model_and_bento(servers: dict[str, Server], world: World) -> None:
    for way, tag in (("exported", world.tag), ("store", world.tag), ("source", "")):
        reply = servers[way].predict(IMAGES[:1].tolist())
        assert reply.headers["x-model-version"] == "digits_cnn:v1"
        assert reply.headers.get("x-bento-version", "") == tag
        metrics = servers[way].request("GET", "/metrics").body.decode()
        assert f'ekiben_model_info{{bento_version="{tag}",model_version="digits_cnn:v1"}} 1.0' in metrics


def test_requests_that_wait_for_a_slow_model_are_merged_and_each_gets_its_own_answer(
    world: World, tmp_path: Path
) -> None:
    model = RECIPE.train(SPLIT, RECIPE.with_params({"width": "64", "hidden": "4096", "epochs": "1"}))
    (tmp_path / "files").mkdir()
    RECIPE.save(model, SPLIT, tmp_path / "files")
    python(tmp_path, IMPORT, "digits_cnn:wide", str(tmp_path / "files"), "2" * 32)
    arguments = ("service.digits_cnn:DigitsCNN", "--arg", "model=digits_cnn:wide")
    right = model.predict(IMAGES)
    bad = json.dumps({"rows": [[float("nan")] * 64]})

    def ask(number: int) -> str:
        if number % 12 == 0:
            return str(server.request("POST", "/predict", bad).status)
        start, count = number % 300, 1 + number % 100
        reply = server.predict(IMAGES[start : start + count].tolist())
        assert reply.json["classes"] == right[start : start + count].tolist()
        return str(reply.status)

    with serving(tmp_path, *arguments, cwd=world.project) as server, ThreadPoolExecutor(40) as pool:
        wait_ready(server)
        assert "requests that wait are merged" in server.log.read_text()
        assert Counter(pool.map(ask, range(240))) == {"200": 220, "400": 20}
        metrics = server.request("GET", "/metrics").body.decode()
    requests, merged = (
        float(line.split()[-1])
        for name in ("sum", "count")
        for line in metrics.splitlines()
        if line.startswith(f"ekiben_batch_requests_{name}")
    )
    assert requests == 220 and merged < 220


def test_a_request_of_the_largest_size_is_answered(server: Server) -> None:
    assert len(server.predict([[0.0] * 64] * 1000).json["classes"]) == 1000


def test_the_log_holds_no_input_and_no_traceback(server: Server) -> None:
    server.request("POST", "/predict", json.dumps({"rows": [[777.125] * 64]}))
    log = server.log.read_text()
    assert "Traceback" not in log and "777.125" not in log


def test_bento_holds_only_its_own_service_and_needs_what_runs_here(world: World) -> None:
    source = world.home / "bentos" / world.tag.replace(":", "/") / "src"
    held = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    described = yaml.safe_load((ROOT / "bentos/digits_cnn/bentofile.yaml").read_text())
    assert held - {"bentofile.yaml", "bentos/digits_cnn/bentofile.yaml"} == set(described["include"])
    assert "service/digits.py" not in held
    packages = described["python"]["packages"]
    names = [package.partition("=")[0] for package in packages]
    assert packages == [f"{name}=={version(name).partition('+')[0]}" for name in names]


def test_gpu_is_used_where_there_is_one(server: Server, world: World) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert f"digits_cnn runs on {device}" in server.log.read_text()
    if device == "cpu":
        pytest.skip("torch finds no GPU here; the service said that it runs on the CPU")
    answer = server.predict(IMAGES.tolist()).json
    np.testing.assert_allclose(answer["probabilities"], world.model.predict_proba(IMAGES), rtol=0, atol=1e-5)


def test_journey_twice_the_same_training_is_the_same_release(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("bentos", "service", "workflows", "loadtests"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bentofile.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    slo = (project / "loadtests/slo.toml").read_text().replace("20s", "6s").replace("250ms", "1s").replace("0.5%", "1%")
    (project / "loadtests/slo.toml").write_text(slo)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "EKIBEN_"))}
    env |= {"BENTOML_HOME": str(tmp_path / "home"), "EKIBEN_PORT": str(free_port()), "EKIBEN_WATCH_SECONDS": "2"}

    def ekiben(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ekiben.cli", *arguments]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=180)

    def live() -> Any:
        return json.loads(ekiben("status", "digits_cnn", "--json").stdout)["live"]

    try:
        first = ekiben("run", "digits_cnn")
        assert first.returncode == 0, first.stdout + first.stderr
        assert "is live in blue\n" in first.stdout
        before = live()
        second = ekiben("run", "digits_cnn")
        assert second.returncode == 0, second.stdout + second.stderr
        assert "is live in blue, as it was before\n" in second.stdout
        assert live() == before and len(before) == 1
    finally:
        assert ekiben("down", "digits_cnn").returncode == 0
