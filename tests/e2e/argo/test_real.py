"""How a world on a real cluster is had and given back, with the fake API server in its place: kubectl, but for its
port-forward, is the real one.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.argo import real, settings
from tests.e2e.kubernetes.admin import Refused
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.access import ADMIN
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.routing import Router

GIVEN = {"KUBECONFIG": "here", "EKIBEN_E2E_PIPELINE_IMAGE": "localhost/pipeline:1"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Cluster, dict[str, str]]]:
    made = fake.cluster()
    made.served += (Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),)
    made.router = Router(made.served)
    made.tokens["admin"] = ADMIN
    with served(made, speed=20) as url:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", url, token="admin")
        yield made, GIVEN | {"KUBECONFIG": str(kubeconfig)}


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = shutil.which("kubectl")
    if not there:
        pytest.skip("kubectl is not installed")
    stand_in = tmp_path / "bin" / "kubectl"
    stand_in.parent.mkdir()
    forwards = 'echo "Forwarding from 127.0.0.1:12345 -> 8080"; exec sleep 60'
    stand_in.write_text(f'#!/bin/sh\ncase "$*" in *port-forward*) {forwards};; esac\nexec {there} "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")


def spaces(cluster: Cluster) -> list[str]:
    return [each["metadata"]["name"] for each in cluster.objects("namespaces") if "e2e" in each["metadata"]["name"]]


def test_it_is_made_by_the_readme_and_nothing_stays(
    cluster: tuple[Cluster, dict[str, str]], kubectl: None, tmp_path: Path
) -> None:
    made, given = cluster
    (folder := tmp_path / "world").mkdir()
    with real.world(folder, settings.Settings.read(given)) as world:
        assert world.tracker == "http://127.0.0.1:12345"
        assert sorted(spaces(made)) == [world.models, world.pipelines]
        (tracker,) = made.objects("pods", world.pipelines)
        containers = [*tracker["spec"]["initContainers"], *tracker["spec"]["containers"]]
        assert {(each["image"], each["imagePullPolicy"]) for each in containers} == {("localhost/pipeline:1", "Never")}
        world.hire("user")
        assert world.users.keys() == {"admin", "user"}
        assert (folder / "admin.kubeconfig").stat().st_mode & 0o077 == 0
    assert spaces(made) == []


def test_nothing_stays_of_what_could_not_be_made(
    cluster: tuple[Cluster, dict[str, str]], kubectl: None, tmp_path: Path
) -> None:
    made, given = cluster
    made.fail("create rolebindings|patch rolebindings", status=403)
    (folder := tmp_path / "world").mkdir()
    with pytest.raises(Refused, match="403"), real.world(folder, settings.Settings.read(given)):
        pass
    assert spaces(made) == []


def test_without_being_asked_no_cluster_is_touched() -> None:
    assert settings.missing({"KUBECONFIG": "x"}) == (
        "no cluster: EKIBEN_E2E_PIPELINE_IMAGE not set (see tests/e2e/argo/settings.py)"
    )
    assert settings.missing({}).startswith("no cluster: KUBECONFIG and EKIBEN_E2E_PIPELINE_IMAGE not set")
    assert settings.missing(GIVEN) == ""


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"EKIBEN_E2E_PIPELINE_IMAGE": "pipeline"}, "wanted REPOSITORY:TAG"),
        ({"EKIBEN_E2E_PULL": "Maybe"}, "wanted one of Never, IfNotPresent, Always"),
    ],
)
def test_what_is_told_of_a_cluster_is_checked(given: dict[str, str], seen: str) -> None:
    with pytest.raises(ValueError, match=seen):
        settings.Settings.read(GIVEN | given)
