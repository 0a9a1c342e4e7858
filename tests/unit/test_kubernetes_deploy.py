"""A whole deploy with its judges, on the fake API server: what is kept, what is taken back, what it costs in calls, and
what is said when something is wrong."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from ekiben.errors import EkibenError, UnavailableError, UsageError
from ekiben.loadtest.golden import Golden
from ekiben.platforms.kubernetes.deliver import deliver
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.kubernetes.watch import watch
from ekiben.platforms.manifests.names import Target
from ekiben.types import Outcome, Slot, Verdict
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes_platform import bento, platform, release, set_up, target

GOLDEN = Golden.model_validate(
    {"version": 1, "route": "/predict", "examples": [{"request": {"x": n}, "response": {"y": n}} for n in (1, 2, 3, 4)]}
)
WATCH = {"seconds": 60, "min_requests": 100, "error_percent": 1.0, "p99_ms": 500}


class Model:
    """What a pod answers: the golden answers, and /metrics of `rate` requests/s from when it was live."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.rate, self.seconds = 20.0, 0.02
        self.failing: Callable[[], float] = lambda: 0.0  # share
        self.wrong = False
        self.counted: dict[str, tuple[float, float, float]] = {}  # by pod: at, requests, failed

    def backend(self, pod: Any) -> Any:
        name = pod["metadata"]["name"]

        def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
            if path == "/metrics":
                return 200, {"Content-Type": "text/plain"}, self._metrics(name).encode()
            if path != "/predict":
                return 404, {}, b"no such endpoint"
            return 200, {}, json.dumps({"y": json.loads(body)["x"] + self.wrong}).encode()

        return answer

    def _metrics(self, name: str) -> str:
        now = self.cluster.clock.seconds
        at, requests, failed = self.counted.get(name, (now, 0.0, 0.0))
        more = (now - at) * self.rate
        requests, failed = requests + more, failed + more * self.failing()
        self.counted[name] = (now, requests, failed)
        line = 'bentoml_service_request_total{{endpoint="{}",http_response_code="{}",service_version="b1"}} {}\n'
        text = line.format("/predict", 200, requests - failed) + line.format("/predict", 500, failed)
        text += line.format("/readyz", 503, now)
        bucket = 'bentoml_service_request_duration_seconds_bucket{{endpoint="/predict",le="{}"}} {}\n'
        for bound in ("0.01", "0.1", "1.0", "+Inf"):
            text += bucket.format(bound, requests if float(bound) >= self.seconds else 0)
        return text


@pytest.fixture
def wanted() -> Target:
    return target(watch=WATCH)


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


def deployed(place: KubernetesPlatform, number: int, *, hold: bool = False) -> Verdict:
    return deliver(
        place,
        bento(number),
        release(place, number),
        lambda slot: smoke(place, slot, GOLDEN),
        lambda: watch(place, place.hold.live_slot(), lambda line: None),
        hold=hold,
    )


def live(cluster: Cluster) -> str:
    notes = cluster.get("services", "digits")["metadata"]["annotations"]
    version: str = json.loads(notes["ekiben.dev/live"])[-1]["bento"]["version"]
    return version


def replicas(cluster: Cluster, slot: Slot) -> int:
    wanted: int = cluster.get("deployments", f"digits-{slot}")["spec"]["replicas"]
    return wanted


def test_what_passes_is_kept_and_costs_few_calls(cluster: Cluster, wanted: Target, model: Model) -> None:
    assert deployed(platform(cluster, wanted), 1).passed
    place = platform(cluster, wanted)
    seen = release(place, 2)
    cluster.log.clear()
    verdict = deliver(
        place,
        bento(2),
        seen,
        lambda slot: smoke(place, slot, GOLDEN),
        lambda: Verdict(outcome=Outcome.PASS),
    )
    assert verdict.passed
    assert (live(cluster), replicas(cluster, "green"), replicas(cluster, "blue")) == ("b2", 2, 0)
    made = {key: count for key, count in cluster.counts().items() if not key.startswith("watch ")}
    assert sum(made.values()) <= 30, made
    assert deployed(place, 2).passed, "live already"


def test_wrong_answers_never_get_live(cluster: Cluster, wanted: Target, model: Model) -> None:
    deployed(platform(cluster, wanted), 1)
    model.wrong = True
    verdict = deployed(platform(cluster, wanted), 2)
    assert verdict.outcome is Outcome.FAIL
    assert "answer.y: wanted 1, got 2" in str(verdict)
    assert (live(cluster), replicas(cluster, "blue"), replicas(cluster, "green")) == ("b1", 2, 0)


@pytest.mark.parametrize("answer", [Outcome.PASS, Outcome.INCONCLUSIVE])
def test_what_was_rolled_back_by_hand_while_it_was_watched_has_not_passed(
    cluster: Cluster, wanted: Target, model: Model, answer: Outcome
) -> None:
    deployed(platform(cluster, wanted), 1)
    place = platform(cluster, wanted)

    def watched() -> Verdict:
        platform(cluster, wanted).rollback("bob")
        return Verdict(outcome=answer)

    verdict = deliver(place, bento(2), release(place, 2), lambda slot: smoke(place, slot, GOLDEN), watched)
    assert verdict.outcome is not Outcome.PASS
    assert live(cluster) == "b1"
    if answer is Outcome.PASS:
        assert "digits:b1 is live by now, wanted digits:b2" in str(verdict)


@pytest.mark.parametrize("lag", [0.0, 5.0])
def test_the_live_colour_does_not_answer_for_the_candidate(
    cluster: Cluster, wanted: Target, model: Model, lag: float
) -> None:
    """The preview Service reached the live one before, and its endpoints follow its selector late."""
    deployed(platform(cluster, wanted), 1)

    def broken(pod: Any) -> Any:
        def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
            return (200, {}, b'{"y": 99}') if path == "/predict" else model.backend(pod)(method, path, headers, body)

        return answer

    cluster.kubelet.behave(lambda pod: "-green-" in pod["metadata"]["name"], backend=broken)
    cluster.controllers.endpoints.lag = lag
    verdict = deployed(platform(cluster, wanted), 2)
    assert verdict.outcome is Outcome.FAIL
    assert "answer.y: wanted 1, got 99" in str(verdict)
    assert live(cluster) == "b1"


def test_a_smoke_test_that_reaches_nobody_says_what_may_be_in_the_way(
    cluster: Cluster, wanted: Target, model: Model
) -> None:
    cluster.fail("create services/proxy", times=100, status=503)
    verdict = deployed(platform(cluster, wanted), 1)
    assert verdict.outcome is Outcome.FAIL
    assert "network.from_addresses" in str(verdict)


def test_errors_after_the_switch_take_it_back_within_one_look(cluster: Cluster, wanted: Target, model: Model) -> None:
    deployed(platform(cluster, wanted), 1)
    place = platform(cluster, wanted)
    begins: list[float] = []

    def failing() -> float:
        begins.extend([cluster.clock.seconds + 20] * (not begins and place.last_seen().selector == "green"))
        return 0.5 if begins and cluster.clock.seconds > begins[0] else 0.0

    model.failing = failing
    verdict = deployed(place, 2)
    assert verdict.outcome is Outcome.FAIL
    assert "requests failed (5xx), wanted ≤ 1 % of at least 100" in str(verdict)
    assert (live(cluster), replicas(cluster, "blue"), replicas(cluster, "green")) == ("b1", 2, 0)
    moved = [c.at for c in cluster.log if (c.verb, c.resource, c.status) == ("patch", "services", 200)]
    assert [at for at in moved if begins[0] < at <= begins[0] + 10], "switched back at the first look or the second"
    assert [r.bento.version for r in place.history()] == ["b1", "b2", "b1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 0.1}, "of 12 requests"),
        ({"rate": 0.0}, "p99 unknown"),
        ({"seconds": 0.7}, "p99 991 ms, wanted ≤ 500 ms"),
    ],
)
def test_too_little_or_too_slow_is_not_kept(
    cluster: Cluster, wanted: Target, model: Model, change: dict[str, float], said: str
) -> None:
    deployed(platform(cluster, wanted), 1)
    vars(model).update(change)
    verdict = deployed(platform(cluster, wanted), 2)
    assert verdict.outcome is (Outcome.FAIL if "seconds" in change else Outcome.INCONCLUSIVE)
    assert said in str(verdict)
    assert live(cluster) == "b1"


def test_held_what_was_seen_too_little_of_stays_with_both_colours(
    cluster: Cluster, wanted: Target, model: Model
) -> None:
    deployed(platform(cluster, wanted), 1)
    model.rate = 0.0
    assert deployed(platform(cluster, wanted), 2, hold=True).outcome is Outcome.INCONCLUSIVE
    assert (live(cluster), replicas(cluster, "blue"), replicas(cluster, "green")) == ("b2", 2, 2)


def test_a_crash_after_the_switch_takes_it_back(cluster: Cluster, wanted: Target, model: Model) -> None:
    deployed(platform(cluster, wanted), 1)
    cluster.kubelet.behave(lambda pod: "-green-" in pod["metadata"]["name"], backend=model.backend, crash_after_s=15)
    verdict = deployed(platform(cluster, wanted), 2)
    assert (verdict.outcome, live(cluster)) == (Outcome.FAIL, "b1")
    assert "restarts, wanted none" in str(verdict)


def test_an_autoscaled_service_keeps_its_size_through_switch_watch_and_rollback(cluster: Cluster, model: Model) -> None:
    """Neither the new colour before the switch nor the old one after it has traffic: both would shrink."""
    wanted = target(watch={**WATCH, "seconds": 900}, replicas={"min": 2, "max": 10})
    deployed(platform(cluster, wanted), 1)
    scaler = cluster.controllers.autoscaler
    load = 400.0  # percent of one pod's CPU

    def used(each: Any, to: Any) -> float:
        slot = cluster.get("services", "digits")["spec"]["selector"]["ekiben.dev/slot"]
        name = each["metadata"]["name"]
        return load / replicas(cluster, slot) if name.endswith(slot) else 1.0

    scaler.metrics.update({"digits-blue": used, "digits-green": used})
    cluster.advance(300)
    size = replicas(cluster, "blue")
    assert size == 7
    least: list[int] = []

    def failing() -> float:
        least.append(min(replicas(cluster, slot) for slot in ("blue", "green")))
        return 0.0

    model.failing = failing
    assert deployed(platform(cluster, wanted), 2).passed
    assert min(least) == size, "during the watch"
    assert cluster.get("horizontalpodautoscalers", "digits-green")["spec"]["minReplicas"] == 2
    model.failing = lambda: 0.5
    assert not deployed(platform(cluster, wanted), 3).passed
    assert (live(cluster), replicas(cluster, "green")) == ("b2", size)
    assert cluster.get("horizontalpodautoscalers", "digits-green")["spec"]["minReplicas"] == 2


QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "small"},
    "spec": {"hard": {"pods": "3"}},
}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"pull_error": "manifest unknown"}, r"cannot pull registry\.example/runtime:1: .*manifest unknown"),
        (
            {"crash_after_s": 0.5, "exit_code": 3, "log": "Traceback\nKeyError: 'weights'\n"},
            r"(?s)crashed \d times \(Error, exit code 3\).*KeyError: 'weights'",
        ),
        ({"unschedulable": "1 Insufficient nvidia.com/gpu"}, "no node takes .*Insufficient nvidia.com/gpu"),
        ({"never_ready": True}, "made no progress in time: .* is starting"),
        ("quota", "exceeded quota: small"),
    ],
)
def test_what_does_not_become_ready_is_explained_and_the_live_colour_untouched(
    cluster: Cluster, wanted: Target, model: Model, plan: Any, said: str
) -> None:
    deployed(platform(cluster, wanted), 1)
    before = cluster.get("deployments", "digits-blue")
    if plan == "quota":
        cluster.create(QUOTA)
    else:
        cluster.kubelet.behave(lambda pod: "-green-" in pod["metadata"]["name"], **plan)
    lines: list[str] = []
    with pytest.raises(UnavailableError, match=said) as raised:
        deployed(platform(cluster, wanted, say=lines.append), 2)
    assert "digits:b1 in blue is live as before" in str(raised.value)
    assert any(" of 2 ready; " in line for line in lines), lines
    assert replicas(cluster, "green") == 0
    after = cluster.get("deployments", "digits-blue")
    assert (live(cluster), after["spec"], after["metadata"]["annotations"]) == (
        "b1",
        before["spec"],
        before["metadata"]["annotations"],
    )


def test_a_service_of_somebody_else_is_left_alone(cluster: Cluster, wanted: Target) -> None:
    for name in ("digits", "digits-preview"):
        theirs = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
        }
        cluster.create(theirs)
        before = cluster.get("services", name)
        with pytest.raises(UsageError, match=f"Service {name} in default is not ekiben's"):
            deployed(platform(cluster, wanted), 1)
        assert cluster.get("services", name) == before
        cluster.request("DELETE", f"/api/v1/namespaces/default/services/{name}")
    assert cluster.objects("deployments") == []


def test_the_shipped_role_is_enough(cluster: Cluster, wanted: Target, model: Model) -> None:
    cluster.tokens["t"] = service_account("default", wanted.deployer)
    assert deployed(platform(cluster, wanted, token="t"), 1).passed
    assert deployed(platform(cluster, wanted, token="t"), 2).passed
    platform(cluster, wanted, token="t").rollback("bob")
    assert live(cluster) == "b1"


RULES = [
    ("deployments", "apps", "patch", "patch deployments.apps"),
    ("deployments", "apps", "get", "get deployments.apps"),
    ("services", "", "get", "get services"),
    ("services/proxy", "", "create", "create services/proxy"),
    ("pods", "", "list", "list pods"),
    ("endpointslices", "discovery.k8s.io", "list", "list endpointslices.discovery.k8s.io"),
]


@pytest.mark.parametrize(("resource", "group", "verb", "said"), RULES)
def test_a_missing_permission_is_named_with_the_rule_that_gives_it(
    cluster: Cluster, wanted: Target, model: Model, resource: str, group: str, verb: str, said: str
) -> None:
    deployed(platform(cluster, wanted), 1)
    role = cluster.store.get(("rbac.authorization.k8s.io", "roles"), "default", wanted.deployer)
    assert role
    rules = [
        {**rule, "verbs": [each for each in rule["verbs"] if each != verb]} if resource in rule["resources"] else rule
        for rule in role["rules"]
    ]
    cluster.store.put(cluster.resource("roles"), {**role, "rules": rules})
    cluster.tokens["t"] = service_account("default", wanted.deployer)
    try:
        told = str(deployed(platform(cluster, wanted, token="t"), 2))
    except EkibenError as error:
        assert error.exit_code == 2
        told = str(error)
    assert f"not allowed to {said} in default: " in told
    assert f"{{apiGroups: ['{group}'], resources: [{resource}], verbs: [{verb}]" in told
    assert live(cluster) == "b1"


def test_the_first_release_of_all_has_nothing_to_go_back_to(cluster: Cluster, wanted: Target, model: Model) -> None:
    model.failing = lambda: 0.5
    verdict = deployed(platform(cluster, wanted), 1)
    assert verdict.outcome is Outcome.ERROR
    assert "no release before digits:b1: it stays live" in str(verdict)
    assert (live(cluster), replicas(cluster, "blue")) == ("b1", 2)
