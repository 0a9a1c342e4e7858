"""W&B's alias goes where traffic goes: after a deploy, after the watch has taken one back, after a rollback by hand.

The real client and a real tracker, the command line in a process of its own, and the fake API server on a socket. It
stands on W&B: an alias is at one version of a collection, and whoever saves it last has it.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ekiben.config import Project
from ekiben.platforms.manifests.names import Target
from ekiben.types import BentoRef, ModelVersion
from tests.contract.conftest import ROOT, Server, client_environment
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.fakes.kubernetes_platform import set_up
from tests.unit.test_kubernetes_cli import PROJECT
from tests.unit.test_kubernetes_deploy import GOLDEN, Model, live


def test_the_alias_follows_traffic_there_and_back(
    server: Server,
    script: Callable[..., dict[str, Any]],
    collection: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [script("train", collection=collection, content=text, aliases=[]) for text in ("one", "two")]
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(f'[tool.ekiben]\nproject = "{server.project}"\n{PROJECT}')
    (tmp_path / "bentos" / "digits").mkdir(parents=True)
    (tmp_path / "bentos" / "digits" / "recipe.py").touch()
    (tmp_path / "golden.json").write_text(GOLDEN.model_dump_json())
    for number, each in enumerate(made, 1):
        model = ModelVersion.parse(each["name"], each["digest"])
        bento = BentoRef(name="digits", version=f"b{number}", digest=f"{number:064x}", model=model)
        (tmp_path / f"bento{number}.json").write_text(bento.model_dump_json())
    monkeypatch.chdir(tmp_path)
    cluster = Cluster()
    set_up(cluster, Target("digits", "staging", Project(tmp_path).environment("staging", "digits")))
    pods = Model(cluster)
    cluster.kubelet.behave("", backend=pods.backend)
    path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    env = client_environment(tmp_path / "client", server.url, server.key) | {"PYTHONPATH": path}
    env["KUBECONFIG"] = str(tmp_path / "kubeconfig")

    def ekiben(*args: str, code: int = 0, url: str = server.url) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ekiben.cli", *args, "--env", "staging"],
            cwd=tmp_path, env={**env, "WANDB_BASE_URL": url}, text=True, capture_output=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def deploy(number: int, *more: str, code: int = 0) -> None:
        ekiben("deploy", "digits", "--bento", f"bento{number}.json", "--golden", "golden.json", *more, code=code)

    def production() -> str:
        entity = made[0]["entity"]
        found = script("fetch", entity=entity, collection=collection, alias="production")
        return str(found["name"])

    with served(cluster, speed=20) as url:
        write_kubeconfig(tmp_path / "kubeconfig", url)
        deploy(1)
        assert production() == made[0]["name"]
        deploy(2)
        assert production() == made[1]["name"]

        ekiben("rollback", "digits")
        assert (live(cluster), production()) == ("b1", made[0]["name"])

        # Somebody promotes the model first, and its release does not pass its watch.
        script("promote", entity=made[0]["entity"], collection=collection, version=made[1]["version"],
               alias="production")  # fmt: skip
        pods.failing = lambda: 0.5 if live(cluster) == "b2" else 0.0
        deploy(2, code=10)
        assert (live(cluster), production()) == ("b1", made[0]["name"])

        pods.failing = lambda: 0.0
        deploy(2)
        said = ekiben("rollback", "digits", url="http://127.0.0.1:1")
        assert live(cluster) == "b1", "W&B is away, and traffic goes back all the same"
        assert "warning: " in said
        assert f"move the alias production to {made[0]['name']} by hand" in said
        assert production() == made[1]["name"]
