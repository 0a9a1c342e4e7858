"""What an administrator applied before the first deploy, and in which order, plays no part."""

import pytest

from ekiben.platforms.kubernetes.deliver import Trial, deliver
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.manifests import groups, shared
from ekiben.platforms.manifests.names import Manifest
from ekiben.types import Outcome, Verdict
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.samples import SERVICES, apply
from tests.fakes.kubernetes_platform import bento, deploy, platform, release, set_up, target
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


def delivered(place: KubernetesPlatform, number: int, *, share: int = 0, outcome: Outcome = Outcome.PASS) -> None:
    def told(slot: object = None) -> Verdict:
        return Verdict(outcome=outcome)

    trial = Trial(share, told) if share else None
    deliver(place, bento(number), release(place, number), lambda slot: Verdict(outcome=Outcome.PASS), told, trial=trial)


@pytest.mark.parametrize("share", [0, 10])
@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_what_is_applied_again_contradicts_nobody(cluster: Cluster, share: int, outcome: Outcome) -> None:
    """Though an autoscaler had made what was live bigger, and both colours were held at that size meanwhile."""
    deploy(platform(cluster, WANTED, token="t"), 1)
    cluster.controllers.autoscaler.metrics["digits-blue"] = 200.0
    cluster.advance(300)
    grown = cluster.get("deployments", "digits-blue")["spec"]["replicas"]
    assert grown > WANTED.settings.replicas.min
    cluster.log.clear()
    delivered(platform(cluster, WANTED, token="t"), 2, share=share, outcome=outcome)
    tokens, cluster.tokens = cluster.tokens, {}
    for each in groups.everything(WANTED, None):
        path, plural = each["apiVersion"], f"{each['kind'].lower()}s".replace("ys", "ies")
        root = f"/apis/{path}" if "/" in path else f"/api/{path}"
        answer = apply(cluster, f"{root}/namespaces/default/{plural}", each, "kubectl")
        assert answer.status in (200, 201), answer.body
    cluster.tokens = tokens
