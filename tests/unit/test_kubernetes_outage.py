"""What a cluster does now and then: its API server restarts, answers are lost, endpoints come late, somebody else has
objects under our names."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ekiben.errors import ConflictError, EkibenError, NotFoundError, UnavailableError, UsageError
from ekiben.platforms.kubernetes.api import OUTAGE_SECONDS, AbsentError, Api
from ekiben.platforms.kubernetes.deliver import deliver
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.kubernetes.watch import watch
from ekiben.platforms.manifests.names import Target
from ekiben.types import Verdict
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import transport
from tests.fakes.kubernetes_platform import bento, config, platform, release, set_up, target
from tests.unit.test_kubernetes_deploy import GOLDEN, WATCH, Model, live, replicas

Json = dict[str, Any]


@pytest.fixture
def wanted() -> Target:
    return target(watch={**WATCH, "seconds": 300})


@pytest.fixture
def cluster(wanted: Target) -> Cluster:
    cluster = Cluster()
    set_up(cluster, wanted)
    return cluster


@pytest.fixture
def model(cluster: Cluster) -> Model:
    model = Model(cluster)
    cluster.kubelet.behave("", backend=model.backend)
    return model


def deployed(
    cluster: Cluster, wanted: Target, number: int, before: Callable[[str, str], None] | None = None
) -> Verdict:
    place = platform(cluster, wanted, before=before)
    return deliver(
        place,
        bento(number),
        release(place, number),
        lambda slot: smoke(place, slot, GOLDEN),
        lambda: watch(place, place.hold.live_slot(), lambda line: None, golden=GOLDEN),
    )


# ---- the API server is away


def refusing(cluster: Cluster, begins: float, seconds: float) -> Callable[[str, str], None]:
    """Connections are refused for so long."""

    def before(method: str, path: str) -> None:
        if begins <= cluster.clock.seconds < begins + seconds:
            raise httpx2.ConnectError("[Errno 111] Connection refused")

    return before


@pytest.mark.parametrize("after", [0.5, 3.0, 5.5, 20.0, 100.0, 304.0])
def test_an_api_server_that_restarts_is_waited_for(
    cluster: Cluster, wanted: Target, model: Model, after: float
) -> None:
    """At any time of a deploy, its watch included: what is good goes live, and stays."""
    deployed(cluster, wanted, 1)
    cluster.advance(60)
    before = refusing(cluster, cluster.clock.seconds + after, OUTAGE_SECONDS / 2)
    assert deployed(cluster, wanted, 2, before).passed
    assert (live(cluster), replicas(cluster, "green")) == ("b2", 2)


def test_one_that_stays_away_is_not_waited_for_for_ever(cluster: Cluster, wanted: Target, model: Model) -> None:
    deployed(cluster, wanted, 1)
    begins = cluster.clock.seconds + 1
    with pytest.raises(UnavailableError, match="cannot be reached"):
        deployed(cluster, wanted, 2, refusing(cluster, begins, 10_000))
    assert cluster.clock.seconds < begins + 4 * OUTAGE_SECONDS
    assert live(cluster) == "b1"


def test_a_watch_that_cannot_take_back_what_it_refuses_says_what_is_live(
    cluster: Cluster, wanted: Target, model: Model
) -> None:
    deployed(cluster, wanted, 1)
    model.failing = lambda: 0.5 if live(cluster) == "b2" else 0.0

    def before(method: str, path: str) -> None:
        if method == "PATCH" and path.endswith("/services/digits") and live(cluster) == "b2":
            raise httpx2.ConnectError("[Errno 111] Connection refused")

    with pytest.raises(UnavailableError, match="digits:b2 is live though its watch refused it") as raised:
        deployed(cluster, wanted, 2, before)
    assert "requests failed" in raised.value.seen and "cannot be reached" in raised.value.seen
    assert "ekiben rollback digits --env test" in str(raised.value.next_step)


@pytest.mark.parametrize(("status", "retry_after"), [(429, 1), (429, None), (503, None), (504, None)])
def test_one_that_is_too_busy_is_waited_for(
    cluster: Cluster, wanted: Target, status: int, retry_after: int | None
) -> None:
    told: list[str] = []
    place = platform(cluster, wanted, say=told.append)
    place.observe()
    cluster.fail("get services", times=10, status=status, retry_after=retry_after)
    begun = cluster.clock.seconds
    place.observe()
    assert 5 < cluster.clock.seconds - begun < OUTAGE_SECONDS
    assert len(told) == 1 and told[0].endswith("; trying again, for 60 s at most")


def test_a_renewal_whose_answer_is_lost_takes_no_good_release_back(
    cluster: Cluster, wanted: Target, model: Model
) -> None:
    deployed(cluster, wanted, 1)
    lost: list[str] = []

    def before(method: str, path: str) -> None:
        renews = method == "PATCH" and path.endswith("/services/digits") and live(cluster) == "b2"
        if renews and len(lost) < 2:  # one that is carried out, and one that is not
            if not lost:
                cluster.fail("patch services .*/digits$", lost=True)
            else:
                cluster.fail("patch services .*/digits$", reset=True)
            lost.append(path)

    assert deployed(cluster, wanted, 2, before).passed
    assert (len(lost), live(cluster)) == (2, "b2")


@pytest.mark.parametrize("effect", [{"reset": True}, {"lost": True}, {"status": 503}], ids=str)
def test_nor_does_a_preview_that_is_aimed_late(
    cluster: Cluster, wanted: Target, model: Model, effect: dict[str, Any]
) -> None:
    """It is aimed while pods start; made twice, that patch is as good as once."""
    deployed(cluster, wanted, 1)
    cluster.fail("patch services .*/digits-preview", skip=1, times=6, **effect)  # after the apply
    assert deployed(cluster, wanted, 2).passed
    assert (live(cluster), cluster.faults[0].met > 7) == ("b2", True)


# ---- what it refuses


def api(cluster: Cluster) -> Api:
    return Api(config(), transport(cluster), cluster.advance)


THING: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
WHERE = "/api/v1/namespaces/default/configmaps/x"


@pytest.mark.parametrize("change", [{"dat": {}}, {"data": "text"}, {"data": {"a": 1}}], ids=str)
def test_an_apply_that_does_not_fit_the_schema_is_a_mistake_and_not_repeated(cluster: Cluster, change: Json) -> None:
    """It is answered with 500."""
    with pytest.raises(UsageError, match="failed to create typed patch object"):
        api(cluster).apply(WHERE, {**THING, **change})
    assert [call.status for call in cluster.log] == [500]


def test_custom_resources_that_are_not_installed(cluster: Cluster) -> None:
    with pytest.raises(NotFoundError, match=r"knows nothing of keda\.sh: 404 page not found") as raised:
        api(cluster).get("/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects/x")
    assert isinstance(raised.value, AbsentError)
    assert "keda.sh" in str(raised.value.wanted)


def answered(status: int, message: str, details: Json | None = None) -> EkibenError:
    body = {"kind": "Status", "code": status, "message": message, "details": details or {}}
    there = httpx2.MockTransport(lambda request: httpx2.Response(status, json=body))
    with pytest.raises(EkibenError) as raised:
        Api(config(), there, lambda seconds: None).patch(WHERE, [])
    return raised.value


def test_whose_fault_a_refusal_is() -> None:
    """A failed test of a patch says nothing else; webhooks choose their status, and policies answer 422 too."""
    assert isinstance(answered(422, "the server rejected our request due to an error in our request"), ConflictError)
    for status in (400, 403, 422):
        refused = answered(status, 'admission webhook "v.example" denied the request: no team label')
        assert isinstance(refused, UsageError) and "no team label" in refused.seen
    policy = "services \"digits\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"
    assert isinstance(answered(422, policy, {"causes": [{"message": policy}]}), UsageError)
    failing = answered(500, 'Internal error occurred: failed calling webhook "v.example": context deadline exceeded')
    assert isinstance(failing, UnavailableError) and "webhook" in str(failing.next_step)


# ---- endpoints


@pytest.mark.parametrize("lag", [0.0, 0.4, 3.0, 12.0])
def test_only_the_new_colour_is_asked_however_late_endpoints_are(
    cluster: Cluster, wanted: Target, model: Model, lag: float
) -> None:
    """The preview Service reached the other colour until now: for some time it still does."""
    deployed(cluster, wanted, 1)
    deployed(cluster, wanted, 2)
    asked: list[str] = []
    backend = model.backend

    def noting(pod: Json) -> Any:
        inner, name = backend(pod), pod["metadata"]["name"]

        def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
            asked.extend([name] * (path == "/predict"))
            return inner(method, path, headers, body)

        return answer

    cluster.kubelet.behave("", backend=noting)
    cluster.controllers.endpoints.lag = lag
    place = platform(cluster, wanted)
    place.stage(bento(3), "test")
    assert smoke(place, "blue", GOLDEN).passed
    assert len(asked) == 3 and all("-blue-" in name for name in asked)


def test_a_preview_that_never_reaches_the_colour(cluster: Cluster, wanted: Target, model: Model) -> None:
    deployed(cluster, wanted, 1)
    place = platform(cluster, wanted)
    cluster.controllers.endpoints.lag = 10_000
    place.stage(bento(2), "test")
    with pytest.raises(UnavailableError, match="endpoints of digits-preview do not follow"):
        smoke(place, "green", GOLDEN)


def test_pods_with_addresses_of_two_families_count_once(cluster: Cluster, wanted: Target, model: Model) -> None:
    """Their EndpointSlices are two; and a condition that is not there means ready."""
    deployed(cluster, wanted, 1)
    (found,) = cluster.objects("endpointslices", labels="kubernetes.io/service-name=digits")
    second = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "digits-ipv6", "labels": {"kubernetes.io/service-name": "digits"}},
        "addressType": "IPv6",
        "endpoints": [
            {"addresses": [f"fd00::{n}"], "targetRef": each["targetRef"]}
            for n, each in enumerate(found["endpoints"], 1)
        ],
        "ports": found["ports"],
    }
    cluster.create(second)
    traffic = platform(cluster, wanted).traffic
    assert len(traffic.ends()) == 4
    assert traffic.counts() == {"blue": 2, "green": 0}


# ---- somebody else's


@pytest.mark.parametrize("slot", ["blue", "green"])
def test_somebody_elses_deployment_under_our_name_is_left_alone(cluster: Cluster, wanted: Target, slot: str) -> None:
    labels = {"app": "theirs"}
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"digits-{slot}"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "registry.example/theirs:1"}]},
            },
        },
    }
    cluster.create(theirs)
    cluster.advance(10)
    before = cluster.get("deployments", f"digits-{slot}")
    with pytest.raises(UsageError, match=f"the Deployment digits-{slot} in default is not ekiben's"):
        deployed(cluster, wanted, 1)
    cluster.advance(60)
    assert cluster.get("deployments", f"digits-{slot}") == before
    assert not [call for call in cluster.log if call.verb not in ("get", "list")]
