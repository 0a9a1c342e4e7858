"""A canary on the fake API server: its share as the endpoints have it, what becomes of it, and what it leaves behind
when it is cut off.

It stands on this: a Service whose selector names the shared label alone sends new connections to the ready pods of both
colours alike, so the share is the share of the pods.
"""

import json
from typing import Any

import pytest

from ekiben.errors import ConflictError, UnavailableError, UsageError
from ekiben.platforms.kubernetes.canary import pods
from ekiben.platforms.kubernetes.deliver import Trial, deliver
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.route import Route
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.kubernetes.watch import watch
from ekiben.platforms.manifests import groups
from ekiben.platforms.manifests.names import Target
from ekiben.rollout import show
from ekiben.types import Outcome, Slot, Verdict
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes_platform import bento, deploy, platform, release, set_up, target
from tests.unit.test_kubernetes_deploy import GOLDEN, QUOTA, WATCH, Model, live, replicas

SHARED = {"ekiben.dev/service": "digits"}
PASS = Verdict(outcome=Outcome.PASS)


@pytest.fixture
def wanted() -> Target:
    return target(watch=WATCH, replicas={"min": 9, "max": 20})


@pytest.fixture
def cluster(wanted: Target) -> Cluster:
    cluster = Cluster(custom=["httproutes"])
    set_up(cluster, wanted)
    return cluster


@pytest.fixture
def model(cluster: Cluster) -> Model:
    model = Model(cluster)
    cluster.kubelet.behave("", backend=model.backend)
    return model


def selector(cluster: Cluster) -> dict[str, str]:
    found: dict[str, str] = cluster.get("services", "digits")["spec"]["selector"]
    return found


def notes(cluster: Cluster) -> dict[str, str]:
    found: dict[str, str] = cluster.get("services", "digits")["metadata"]["annotations"]
    return found


def ready(cluster: Cluster, slot: Slot) -> int:
    (found,) = cluster.objects("endpointslices", labels="kubernetes.io/service-name=digits")
    names = [end["targetRef"]["name"] for end in found["endpoints"] if end["conditions"]["ready"]]
    return sum(name.startswith(f"digits-{slot}-") for name in names)


def tried(place: KubernetesPlatform, number: int, judge: Any = None, percent: int = 10) -> Verdict:
    return deliver(
        place,
        bento(number),
        release(place, number),
        lambda slot: smoke(place, slot, GOLDEN),
        lambda: PASS,
        trial=Trial(percent, judge or (lambda slot: watch(place, slot, lambda line: None))),
    )


def widened(place: KubernetesPlatform, number: int) -> str:
    """A canary under way, by somebody who then does nothing more."""
    place.share(10)
    place.stage(bento(number), "test")
    token = place.widen(release(place, number), 10)
    place.share_seen(token)
    return token


@pytest.mark.parametrize(("percent", "old", "new"), [(10, 9, 1), (10, 2, 1), (10, 20, 2), (25, 9, 3), (50, 7, 7)])
def test_the_share_is_the_nearest_that_is_not_above(percent: int, old: int, new: int) -> None:
    assert pods(percent, old) == new
    assert 100 * (new + 1) / (new + 1 + old) > percent


def test_a_canary_that_passes_is_made_as_big_and_then_live(cluster: Cluster, wanted: Target, model: Model) -> None:
    assert tried(platform(cluster, wanted), 1).passed, "the first of all has nothing to share with"
    lines: list[str] = []
    place = platform(cluster, wanted, say=lines.append)
    seen: dict[str, Any] = {}

    def judge(slot: Slot) -> Verdict:
        seen.update(
            selector=selector(cluster), note=json.loads(notes(cluster)["ekiben.dev/canary"]), live=live(cluster)
        )
        seen.update(
            ready=(ready(cluster, "green"), ready(cluster, "blue")),
            told=show.status(platform(cluster, wanted).observe(), "url"),
        )
        scaler = cluster.get("horizontalpodautoscalers", "digits-green")["spec"]
        seen.update(bounds=(scaler["minReplicas"], scaler["maxReplicas"]))
        verdict = watch(place, slot, lambda line: None)
        seen.update(later=ready(cluster, "green"))
        return verdict

    assert tried(place, 2, judge).passed
    assert (seen["selector"], seen["live"]) == (SHARED, "b1")
    assert (seen["ready"], seen["later"], seen["bounds"]) == ((1, 9), 1, (1, 1))
    note = {"percent": 10, "from": "blue", "to": "green", "route": ""}
    assert {key: seen["note"][key] for key in note} == note and "anna" in seen["note"]["by"] and seen["note"]["token"]
    assert "green: canary: asked 10 %, 1 of 10 pods = 10 %" in lines
    assert "canary   green has a share, as both colours are selected: 10 % asked for by anna" in seen["told"]
    assert "green    canary  ready" in seen["told"]

    assert selector(cluster) == {**SHARED, "ekiben.dev/slot": "green"}
    assert (live(cluster), replicas(cluster, "green"), replicas(cluster, "blue")) == ("b2", 9, 0)
    assert "ekiben.dev/canary" not in notes(cluster)
    scaler = cluster.get("horizontalpodautoscalers", "digits-green")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (9, 20)
    assert [r.bento.version for r in place.history()] == ["b1", "b2"]


def test_a_canary_beside_fewer_pods_than_there_should_be_ends_with_all_of_them(cluster: Cluster, model: Model) -> None:
    """Whoever rolled back to a canary's few pods, or scaled what is live by hand, left it below `replicas.min`."""
    wanted = target(watch=WATCH, replicas={"min": 4, "max": 20}, autoscaling={"kind": "none"})
    deploy(platform(cluster, wanted), 1)
    small = cluster.get("deployments", "digits-blue")
    small["spec"]["replicas"], small["metadata"]["generation"] = 1, small["metadata"]["generation"] + 1
    cluster.store.put(cluster.resource("deployments"), small)
    cluster.advance(10)
    assert tried(platform(cluster, wanted), 2, lambda slot: PASS).passed
    assert (live(cluster), replicas(cluster, "green")) == ("b2", 4)


def test_a_share_that_cannot_be_so_small_is_said(cluster: Cluster, model: Model) -> None:
    wanted = target(watch=WATCH)
    deploy(platform(cluster, wanted), 1)
    lines: list[str] = []
    assert tried(platform(cluster, wanted, say=lines.append), 2).passed
    assert "green: canary: asked 10 %, 1 of 3 pods = 33 %" in lines


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_a_canary_that_does_not_pass_is_taken_back(
    cluster: Cluster, wanted: Target, model: Model, outcome: Outcome
) -> None:
    deploy(platform(cluster, wanted), 1)
    place = platform(cluster, wanted)
    model.failing = lambda: 0.5 if outcome is Outcome.FAIL else 0.0
    model.rate = 20.0 if outcome is Outcome.FAIL else 0.1
    assert tried(place, 2).outcome is outcome
    assert selector(cluster) == {**SHARED, "ekiben.dev/slot": "blue"}
    assert (live(cluster), replicas(cluster, "blue"), replicas(cluster, "green")) == ("b1", 9, 0)
    assert [r.bento.version for r in place.history()] == ["b1"]
    assert not {"ekiben.dev/canary", "ekiben.dev/claim-green"} & notes(cluster).keys()


def test_both_ways_cost_one_patch_of_the_service_each(cluster: Cluster, wanted: Target, model: Model) -> None:
    deploy(platform(cluster, wanted), 1)
    place = platform(cluster, wanted)
    place.share(10)
    place.stage(bento(2), "test")
    cluster.log.clear()
    token = place.widen(release(place, 2), 10)
    assert (selector(cluster), notes(cluster)["ekiben.dev/epoch"]) == (SHARED, "2")
    place.narrow(token, "test")
    assert (selector(cluster), notes(cluster)["ekiben.dev/epoch"]) == ({**SHARED, "ekiben.dev/slot": "blue"}, "3")
    assert len([c for c in cluster.log if (c.verb, c.resource) == ("patch", "services")]) == 2


def test_while_it_has_its_share_nobody_else_takes_or_stops_either_colour(
    cluster: Cluster, wanted: Target, model: Model
) -> None:
    deploy(platform(cluster, wanted), 1)
    widened(platform(cluster, wanted), 2)
    for other in (platform(cluster, wanted), platform(cluster, wanted)):
        with pytest.raises(ConflictError, match="green of digits is the canary of test"):
            other.stage(bento(3), "bob")
        other.retire()
    for slot in ("blue", "green"):
        with pytest.raises(ConflictError):
            platform(cluster, wanted).hold.take(slot, "bob")
    assert (selector(cluster), ready(cluster, "blue"), ready(cluster, "green")) == (SHARED, 9, 1)


def test_a_rollback_ends_it_and_its_deployer_does_not_bring_it_back(
    cluster: Cluster, wanted: Target, model: Model
) -> None:
    deploy(platform(cluster, wanted), 1)
    deploy(platform(cluster, wanted), 2)
    place = platform(cluster, wanted)

    def judge(slot: Slot) -> Verdict:
        assert platform(cluster, wanted).rollback("bob").bento == bento(2), "what was live before the canary"
        return PASS

    with pytest.raises(ConflictError, match="somebody ended this canary"):
        tried(place, 3, judge)
    assert selector(cluster) == {**SHARED, "ekiben.dev/slot": "green"}
    assert (live(cluster), replicas(cluster, "green"), replicas(cluster, "blue")) == ("b2", 9, 0)


@pytest.mark.parametrize("again", ["deploy", "rollback", "switch", "retire"])
def test_cut_off_with_its_share_the_next_command_ends_it(
    cluster: Cluster, wanted: Target, model: Model, again: str
) -> None:
    deploy(platform(cluster, wanted), 1)
    deploy(platform(cluster, wanted), 2)
    widened(platform(cluster, wanted), 1)
    cluster.advance(121)  # its claim runs out
    later = platform(cluster, wanted)
    if again == "deploy":
        assert tried(later, 3, lambda slot: PASS).passed
    elif again == "rollback":
        later.rollback("bob")
    elif again == "switch":
        later.stage(bento(1), "bob")
        later.switch(release(later, 1, "bob"))
    else:
        later.retire()
    now = {"deploy": ("blue", "b3"), "switch": ("blue", "b1")}.get(again, ("green", "b2"))
    assert (selector(cluster)["ekiben.dev/slot"], live(cluster)) == now
    assert replicas(cluster, now[0]) == 9  # type: ignore[arg-type]


def test_no_room_for_the_full_size_ends_it(cluster: Cluster, wanted: Target, model: Model) -> None:
    deploy(platform(cluster, wanted), 1)
    cluster.create({**QUOTA, "spec": {"hard": {"pods": "12"}}})
    with pytest.raises(UnavailableError, match="exceeded quota"):
        tried(platform(cluster, wanted), 2, lambda slot: PASS)
    assert selector(cluster) == {**SHARED, "ekiben.dev/slot": "blue"}
    assert (live(cluster), replicas(cluster, "blue"), replicas(cluster, "green")) == ("b1", 9, 0)


def test_a_watch_that_breaks_off_ends_it(cluster: Cluster, wanted: Target, model: Model) -> None:
    deploy(platform(cluster, wanted), 1)

    def judge(slot: Slot) -> Verdict:
        raise UnavailableError("Prometheus is away")

    verdict = tried(platform(cluster, wanted), 2, judge)
    assert verdict.outcome is Outcome.ERROR and "Prometheus is away" in str(verdict)
    assert (selector(cluster)["ekiben.dev/slot"], live(cluster)) == ("blue", "b1")


def test_a_selector_without_a_colour_that_nobody_accounts_for_is_refused(cluster: Cluster, wanted: Target) -> None:
    deploy(platform(cluster, wanted), 1)
    service = cluster.get("services", "digits")
    cluster.store.put(cluster.resource("services"), {**service, "spec": {**service["spec"], "selector": SHARED}})
    with pytest.raises(UsageError, match="names no colour, and no canary is noted"):
        platform(cluster, wanted).observe()


def test_the_shipped_role_is_enough(cluster: Cluster, wanted: Target, model: Model) -> None:
    cluster.tokens["t"] = service_account("default", wanted.deployer)
    for number in (1, 2):
        assert tried(platform(cluster, wanted, token="t"), number, lambda slot: PASS).passed
    assert live(cluster) == "b2"


# ---- by an HTTPRoute


@pytest.fixture
def routed(cluster: Cluster) -> Target:
    by_route = {"http_route": "digits-web", "gateway": "infra/public", "hostnames": ["digits.example"]}
    wanted = target(watch=WATCH, replicas={"min": 9, "max": 20}, **by_route)
    for manifest in groups.setup(wanted):
        if manifest["kind"] == "Role":
            role = cluster.get("roles", wanted.deployer)
            cluster.store.put(cluster.resource("roles"), {**role, "rules": manifest["rules"]})
        if manifest["kind"] == "HTTPRoute":
            cluster.create(manifest)
    return wanted


def weights(cluster: Cluster) -> tuple[int, ...]:
    (rule,) = cluster.get("httproutes", "digits-web")["spec"]["rules"]
    assert [ref["name"] for ref in rule["backendRefs"]] == ["digits", "digits-preview"]
    return tuple(ref["weight"] for ref in rule["backendRefs"])


def test_a_route_shares_by_weights_and_the_selector_stays(cluster: Cluster, routed: Target, model: Model) -> None:
    cluster.tokens["t"] = service_account("default", routed.deployer)
    lines: list[str] = []
    assert tried(platform(cluster, routed, token="t"), 1).passed
    place = platform(cluster, routed, token="t", say=lines.append)
    seen: dict[str, Any] = {}

    def judge(slot: Slot) -> Verdict:
        preview = cluster.get("services", "digits-preview")["spec"]["selector"]
        seen.update(weights=weights(cluster), selector=selector(cluster), preview=preview, live=live(cluster))
        return PASS

    assert tried(place, 2, judge).passed
    blue, green = ({**SHARED, "ekiben.dev/slot": slot} for slot in ("blue", "green"))
    assert seen == {"weights": (90, 10), "selector": blue, "preview": green, "live": "b1"}
    assert "green: canary: asked 10 %, weights 90:10 of HTTPRoute digits-web" in lines
    assert (weights(cluster), selector(cluster), live(cluster)) == ((100, 0), green, "b2")
    assert tried(place, 3, lambda slot: Verdict(outcome=Outcome.FAIL)).outcome is Outcome.FAIL
    assert (weights(cluster), selector(cluster), live(cluster)) == ((100, 0), green, "b2")


@pytest.mark.parametrize("again", ["deploy", "rollback"])
def test_cut_off_with_weights_the_next_command_takes_them_back(
    cluster: Cluster, routed: Target, model: Model, again: str
) -> None:
    deploy(platform(cluster, routed), 1)
    widened(platform(cluster, routed), 2)
    assert weights(cluster) == (90, 10)
    cluster.advance(121)
    if again == "deploy":
        cluster.kubelet.behave(lambda pod: "-green-" in pod["metadata"]["name"], never_ready=True)
        with pytest.raises(UnavailableError):
            tried(platform(cluster, routed), 3)
    else:
        platform(cluster, routed).rollback("bob")
    assert (weights(cluster), live(cluster)) == ((100, 0), "b1")


def test_weights_that_come_late_come_to_nothing(cluster: Cluster, routed: Target, model: Model) -> None:
    """Whoever asked for them was rolled back in between."""
    deploy(platform(cluster, routed), 1)
    place = platform(cluster, routed)
    fence = Route(place.hold, "digits-web").fence()
    token = widened(place, 2)
    platform(cluster, routed).rollback("bob")
    with pytest.raises(ConflictError):
        Route(place.hold, "digits-web").share(10, fence, token)
    assert weights(cluster) == (100, 0)


def test_an_answer_that_is_lost_leaves_the_weights_as_asked(cluster: Cluster, routed: Target, model: Model) -> None:
    deploy(platform(cluster, routed), 1)
    cluster.fail("patch httproutes", lost=True)
    widened(platform(cluster, routed), 2)
    assert weights(cluster) == (90, 10)


def test_a_route_without_the_preview_service_is_refused(cluster: Cluster, routed: Target, model: Model) -> None:
    deploy(platform(cluster, routed), 1)
    route = cluster.get("httproutes", "digits-web")
    (rule,) = route["spec"]["rules"]
    spec = {**route["spec"], "rules": [{**rule, "backendRefs": rule["backendRefs"][:1]}]}
    cluster.store.put(cluster.resource("httproutes"), {**route, "spec": spec})
    with pytest.raises(UsageError, match="digits and digits-preview in the backendRefs"):
        tried(platform(cluster, routed), 2)
    assert (live(cluster), replicas(cluster, "green")) == ("b1", 0)


def test_a_gateway_needs_the_routes_name() -> None:
    with pytest.raises(ValueError, match="a gateway needs the name of the HTTPRoute"):
        target(gateway="infra/public")
