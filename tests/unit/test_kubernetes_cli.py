"""The commands as a person calls them, against the fake API server on a socket."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ekiben.config import Project
from ekiben.platforms.manifests.names import Target
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.fakes.kubernetes_platform import bento, set_up
from tests.unit.test_kubernetes_deploy import GOLDEN, Model

PROJECT = """
[tool.ekiben.environments.staging]
context = "fake"
runtime_image = "registry.example/runtime:1"
watch = {seconds = 1, min_requests = 10}
[tool.ekiben.environments.elsewhere]
context = "no-such-context"
runtime_image = "registry.example/runtime:1"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "bentos" / "digits").mkdir(parents=True)
    (tmp_path / "bentos" / "digits" / "recipe.py").touch()
    (tmp_path / "golden.json").write_text(GOLDEN.model_dump_json())
    for number in (1, 2):
        (tmp_path / f"bento{number}.json").write_text(bento(number).model_dump_json())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cluster(root: Path) -> Iterator[Cluster]:
    cluster = Cluster()
    set_up(cluster, Target("digits", "staging", Project(root).environment("staging", "digits")))
    model = Model(cluster)
    cluster.kubelet.behave("", backend=model.backend, start_s=20)
    with served(cluster, speed=20) as url:
        write_kubeconfig(root / "kubeconfig", url)
        yield cluster


def ekiben(root: Path, *args: str, code: int = 0) -> tuple[str, str]:
    """What it wrote to stdout and stderr."""
    env = {**os.environ, "KUBECONFIG": str(root / "kubeconfig"), "BENTOML_HOME": str(root / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "ekiben.cli", *args], cwd=root, env=env, text=True, capture_output=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


STAGING = ("digits", "--env", "staging")


def deploy(root: Path, number: int, *more: str, code: int = 0) -> tuple[str, str]:
    given = ("--bento", f"bento{number}.json", "--golden", "golden.json", "--no-alias")
    return ekiben(root, "deploy", *STAGING, *given, *more, code=code)


def test_from_nothing_to_a_second_release(root: Path, cluster: Cluster) -> None:
    planned, _ = deploy(root, 1, "--dry-run")
    assert planned.splitlines()[-1] == "switch to blue (digits:b1), if the epoch is still 0"
    assert cluster.objects("services") == [], "a dry run writes nothing"
    assert ekiben(root, "status", *STAGING)[0] == "digits: nothing is live\n"

    out, err = deploy(root, 1, "--report", "reports/1.json")
    assert out.splitlines()[-1] == "digits:b1 is live in blue"
    assert "blue: digits:b1, 2 pods" in err

    told = json.loads(deploy(root, 2, "--json")[0])
    assert (told["verdict"]["outcome"], told["live"]["bento"]["version"], told["live"]["slot"]) == (
        "PASS",
        "b2",
        "green",
    )
    status = json.loads(ekiben(root, "status", *STAGING, "--json")[0])
    assert (status["selector"], status["epoch"], status["ready"]) == ("green", 2, ["green"])
    history = json.loads(ekiben(root, "history", *STAGING, "--json")[0])
    assert [(r["bento"]["version"], r["load_report"]) for r in history] == [("b1", "reports/1.json"), ("b2", "")]
    assert deploy(root, 2, "--dry-run")[0] == "digits:b2 is live already: nothing to do\n"


def test_the_way_back_is_shown_before_it_is_gone(root: Path, cluster: Cluster) -> None:
    deploy(root, 1, "--report", "reports/1.json")
    deploy(root, 2)
    head, first, second = ekiben(root, "history", *STAGING)[0].splitlines()
    assert head.split() == ["time", "(UTC)", "slot", "Bento", "model", "by", "load", "report"]
    assert (first.split()[-1], second.split()[-1]) == ("reports/1.json", "-")
    for command, verb in (("rollback", "switch back to"), ("switch", "switch to")):
        planned = ekiben(root, command, *STAGING, "--dry-run")[0].splitlines()
        assert planned[-2].startswith("start blue again with the digits:b1"), planned
        assert planned[-1] == f"{verb} blue (digits:b1), if the epoch is still 2"
    assert json.loads(ekiben(root, "status", *STAGING, "--json")[0])["selector"] == "green"
    assert ekiben(root, "rollback", *STAGING, "--no-alias")[0] == "digits:b1 is live again, in blue\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("status", "digits", "--env", "elsewhere"), 2, "no context 'no-such-context'"),
        (("status", "digits", "--env", "nowhere"), 3, "no environment 'nowhere'"),
        (("status", "digit", "--env", "staging"), 3, "no service 'digit'"),
        (("rollback", *STAGING), 3, "no release before the first"),
        (("switch", *STAGING), 3, "was never live"),
        (("deploy", *STAGING, "--bento", "bento1.json", "--golden", "none.json"), 3, "none.json"),
    ],
)
def test_what_cannot_be_done_is_said(root: Path, cluster: Cluster, args: tuple[str, ...], code: int, said: str) -> None:
    assert said in ekiben(root, *args, code=code)[1]
    assert cluster.objects("deployments") == []


def test_a_cluster_that_is_not_there(root: Path) -> None:
    write_kubeconfig(root / "kubeconfig", "http://127.0.0.1:1")
    _, err = ekiben(root, "status", *STAGING, code=4)
    assert "http://127.0.0.1:1 cannot be reached" in err
    (root / "kubeconfig").unlink()
    assert "no kubeconfig" in ekiben(root, "status", *STAGING, code=2)[1]


def test_a_canary_by_option(root: Path, cluster: Cluster) -> None:
    deploy(root, 1)
    planned, _ = deploy(root, 2, "--canary", "10%", "--dry-run")
    assert planned.splitlines()[-2:] == [
        "give green (digits:b2) 10 % as well, if the epoch is still 1",
        "switch to green (digits:b2), if the epoch is still 2",
    ]
    out, err = deploy(root, 2, "--canary", "10%")
    assert "green: canary: asked 10 %, 1 of 3 pods = 33 %" in err
    assert out.splitlines()[-1] == "digits:b2 is live in green"
    assert "'60%' is not a share from 0% to 50%" in deploy(root, 1, "--canary", "60%", code=2)[1]
