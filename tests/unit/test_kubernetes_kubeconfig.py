"""Which cluster, and as whom: kubeconfigs as kubectl takes them."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from ekiben.errors import UsageError
from ekiben.platforms.kubernetes.api import Api, configured
from tests.fakes.kubernetes.access import User
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def test_of_several_files_the_first_that_has_the_context_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        str(tmp_path / "not-there"),
        *(str(write_kubeconfig(tmp_path / each, f"http://{each}:1", context=each)) for each in ("one", "two")),
    ]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(names))
    assert configured("").cluster.server == "http://one:1", "current in the first file that names one"
    assert configured("two").cluster.server == "http://two:1"
    with pytest.raises(UsageError, match="no context 'three'"):
        configured("three")
    lacking = yaml.safe_load(Path(names[1]).read_text())
    lacking["current-context"] = "two"
    Path(names[1]).write_text(yaml.safe_dump(lacking))
    assert configured("").cluster.server == "http://two:1", "it may be in another file"


def test_none_of_several_files_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(["/nowhere/a", "/nowhere/b"]))
    with pytest.raises(UsageError, match="no kubeconfig: /nowhere/a:/nowhere/b"):
        configured("")


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_plugin_brings_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    cluster = Cluster()
    cluster.tokens = {"fresh": User("ada")}
    api = f"client.authentication.k8s.io/{version}"
    told = f'{{"apiVersion": "{api}", "kind": "ExecCredential", "status": {{"token": "fresh"}}}}'
    plugin = {
        "apiVersion": api,
        "command": sys.executable,
        "args": ["-c", f"print({told!r})"],
        "interactiveMode": "Never",
    }
    with served(cluster) as url:
        path = write_kubeconfig(tmp_path / "config", url)
        document = yaml.safe_load(path.read_text())
        document["users"][0]["user"] = {"exec": plugin}
        path.write_text(yaml.safe_dump(document))
        monkeypatch.setenv("KUBECONFIG", str(path))
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        assert Api(configured("")).create(REVIEWS, review)["status"]["userInfo"]["username"] == "ada"
