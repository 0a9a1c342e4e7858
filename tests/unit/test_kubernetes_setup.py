"""What an administrator applied before the first deploy, and in which order, plays no part."""

import pytest

from ekiben.platforms.manifests import groups, shared
from ekiben.platforms.manifests.names import Manifest
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.samples import SERVICES, apply
from tests.fakes.kubernetes_platform import deploy, platform, release, set_up, target
from tests.unit.test_kubernetes_deploy import Model

WANTED = target()


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    set_up(cluster, WANTED)
    cluster.kubelet.behave("", backend=Model(cluster).backend)
    cluster.tokens["t"] = service_account("default", WANTED.deployer)
    return cluster


def applied(cluster: Cluster, *services: Manifest, **annotations: str) -> None:
    tokens, cluster.tokens = cluster.tokens, {}
    for each in services:
        thing = {**each, "metadata": {**each["metadata"], "annotations": annotations}} if annotations else each
        assert apply(cluster, SERVICES, thing, "kubectl").status in (200, 201)
    cluster.tokens = tokens


@pytest.mark.parametrize("notes", [{}, {"example.com/team": "vision"}], ids=["bare", "annotated"])
def test_services_that_were_applied_as_rendered_get_their_first_selector(
    cluster: Cluster, notes: dict[str, str]
) -> None:
    applied(cluster, *groups.common(WANTED)[:2], **notes)
    place = platform(cluster, WANTED, token="t")
    assert place.observe().active is None
    deploy(place, 1)
    deploy(platform(cluster, WANTED, token="t"), 2)
    service = cluster.get("services", "digits")
    assert service["spec"]["selector"] == WANTED.selector("green")
    assert notes.items() <= service["metadata"]["annotations"].items()
    applied(cluster, *groups.common(WANTED)[:2], **notes)
    assert cluster.get("services", "digits")["spec"]["selector"] == WANTED.selector("green"), "it belongs to the switch"


def test_services_that_were_created_and_applied_are_taken_as_they_are(cluster: Cluster) -> None:
    for each in shared.first_services(WANTED):
        cluster.create(each)
    applied(cluster, *groups.common(WANTED)[:2])
    deploy(platform(cluster, WANTED, token="t"), 1)
    assert cluster.get("services", "digits")["spec"]["selector"] == WANTED.selector("blue")


def test_two_who_begin_at_once_begin_once(cluster: Cluster) -> None:
    applied(cluster, *groups.common(WANTED)[:2])
    one, two = (platform(cluster, WANTED, token="t") for _ in range(2))
    assert one.observe().active is two.observe().active is None
    deploy(one, 1)
    made = release(two, 2)
    two.stage(made.bento, "bob")
    two.switch(made)
    assert [each.bento.version for each in two.history()] == ["b1", "b2"]
