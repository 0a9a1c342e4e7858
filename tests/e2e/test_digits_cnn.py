"""The torch model from its recipe to live traffic, by real processes. Needs torch, which only its own Bento has."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch", reason="needs torch, which the base installation leaves out: make test-torch")

from bentos.digits_cnn.recipe import RECIPE
from ekiben.processes import free_port
from tests.e2e import golden
from tests.e2e.serving import IMPORT, ROOT, Packed, Server, answers, pack, python, serving, three_ways, wait_ready

PARAMS = RECIPE.with_params({})
SPLIT = RECIPE.data(PARAMS)
IMAGES = SPLIT.test_x


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return pack(tmp_path_factory.mktemp("cnn"), "digits_cnn", golden.weights("digits_cnn"))


@pytest.fixture(scope="module")
def servers(world: Packed) -> Iterator[dict[str, Server]]:
    with three_ways(world, "service.digits_cnn:DigitsCNN", "digits_cnn:v1") as started:
        yield started


@pytest.fixture(scope="module")
def server(servers: dict[str, Server]) -> Server:
    return servers["exported"]


def test_training_is_good_repeatable_and_stops_early() -> None:
    model = RECIPE.train(SPLIT, PARAMS)
    evaluation = RECIPE.evaluate(model, SPLIT)
    assert evaluation.metrics["accuracy"] >= 0.98
    losses = [epoch["validation_loss"] for epoch in evaluation.history]
    assert len(losses) < PARAMS["epochs"] and losses.index(min(losses)) == len(losses) - 1 - PARAMS["patience"]
    again = RECIPE.train(SPLIT, PARAMS)
    assert again.history == model.history
    pairs = zip(model.network.state_dict().values(), again.network.state_dict().values(), strict=True)
    assert all(one.equal(other) for one, other in pairs)


def test_answers_are_the_same_bit_for_bit_however_they_are_served_and_as_the_golden_file_has_them(
    servers: dict[str, Server],
) -> None:
    served = {answers(server, IMAGES) for server in servers.values()}
    assert len(served) == 1
    golden.check("digits_cnn", served.pop())


def test_answers_and_metrics_name_model_and_bento(servers: dict[str, Server], world: Packed) -> None:
    for way, tag in (("exported", world.tag), ("store", world.tag), ("source", "")):
        reply = servers[way].predict(IMAGES[:1].tolist())
        assert reply.headers["x-model-version"] == "digits_cnn:v1"
        assert reply.headers.get("x-bento-version", "") == tag
        metrics = servers[way].request("GET", "/metrics").body.decode()
        assert f'ekiben_model_info{{bento_version="{tag}",model_version="digits_cnn:v1"}} 1.0' in metrics


def test_requests_that_wait_for_a_slow_model_are_merged_and_each_gets_its_own_answer(
    world: Packed, tmp_path: Path
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
            return str(merging.request("POST", "/predict", bad).status)
        start, count = number % 300, 1 + number % 100
        reply = merging.predict(IMAGES[start : start + count].tolist())
        assert reply.json["classes"] == right[start : start + count].tolist()
        return str(reply.status)

    with serving(tmp_path, *arguments, cwd=world.project) as merging, ThreadPoolExecutor(40) as pool:
        wait_ready(merging)
        assert "requests that wait are merged" in merging.log.read_text()
        assert Counter(pool.map(ask, range(240))) == {"200": 220, "400": 20}
        metrics = merging.request("GET", "/metrics").body.decode()
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


def test_bento_holds_only_its_own_service_and_needs_what_runs_here(world: Packed) -> None:
    source = world.home / "bentos" / world.tag.replace(":", "/") / "src"
    held = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    described = yaml.safe_load((ROOT / "bentos/digits_cnn/bentofile.yaml").read_text())
    assert held - {"bentofile.yaml"} == set(described["include"])
    assert "service/digits.py" not in held
    packages = described["python"]["packages"]
    names = [package.partition("=")[0] for package in packages]
    assert packages == [f"{name}=={version(name).partition('+')[0]}" for name in names]


def test_gpu_is_used_where_there_is_one(server: Server) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert f"digits_cnn runs on {device}" in server.log.read_text()
    if device == "cpu":
        pytest.skip("torch finds no GPU here; the service said that it runs on the CPU")
    golden.check("digits_cnn", answers(server, IMAGES))


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
