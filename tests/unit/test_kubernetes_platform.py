"""Blue-green on the fake API server: what a deploy, a rollback and a re-run leave behind."""

import pytest

from ekiben.platforms.manifests.names import Target
from ekiben.types import Slot
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes_platform import bento, deploy, platform, release, set_up, target


@pytest.fixture
def wanted() -> Target:
    return target()


@pytest.fixture
def cluster(wanted: Target) -> Cluster:
    cluster = Cluster()
    set_up(cluster, wanted)
    return cluster


def selected(cluster: Cluster) -> str:
    slot: str = cluster.get("services", "digits")["spec"]["selector"]["ekiben.dev/slot"]
    return slot


def size(cluster: Cluster, slot: Slot) -> tuple[int, int]:
    """Replicas that are wanted and that are available."""
    found = cluster.get("deployments", f"digits-{slot}")
    return found["spec"]["replicas"], found["status"].get("availableReplicas", 0)


def test_deploy_switch_and_roll_back(cluster: Cluster, wanted: Target) -> None:
    place = platform(cluster, wanted)
    deploy(place, 1)
    assert (selected(cluster), size(cluster, "blue")) == ("blue", (2, 2))
    deploy(place, 2)
    cluster.advance(60)
    assert (selected(cluster), size(cluster, "green"), size(cluster, "blue")) == ("green", (2, 2), (0, 0))

    later = platform(cluster, wanted)
    assert later.rollback("bob").bento == bento(1)
    assert (selected(cluster), size(cluster, "blue")) == ("blue", (2, 2))
    seen = later.observe()
    assert seen.active and seen.active.by == "bob" and seen.epoch == 3
    assert [r.bento.version for r in later.history()] == ["b1", "b2", "b1"]


def test_a_rollback_while_the_old_colour_runs_waits_for_nothing(cluster: Cluster, wanted: Target) -> None:
    place = platform(cluster, wanted)
    deploy(place, 1)
    place.stage(bento(2), "test")
    place.switch(release(place, 2))
    begun = cluster.clock.seconds
    for pod in cluster.objects("pods", labels="ekiben.dev/slot=green"):
        cluster.kubelet.set_ready(pod["metadata"]["name"], False)
    cluster.log.clear()
    platform(cluster, wanted).rollback("bob")
    assert (selected(cluster), cluster.clock.seconds - begun < 2) == ("blue", True)
    assert [c.resource for c in cluster.log if c.verb == "patch"] == ["services", "deployments", "services"]
