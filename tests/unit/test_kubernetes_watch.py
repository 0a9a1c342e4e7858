"""The watch of a new colour by what its pods tell of themselves, on the fake cluster's virtual clock.

It stands on these facts: the switch sends new connections to the new colour at once; BentoML counts a request when it
was answered, and one that never is only as in progress; /metrics is read through the API server's pods/proxy, and
golden requests go through services/proxy of the preview Service, which no client uses.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from ekiben.platforms.kubernetes.deliver import deliver
from ekiben.platforms.kubernetes.look import look_at_live
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.kubernetes.watch import POLL_SECONDS, watch
from ekiben.types import Outcome, Verdict
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes_platform import bento, platform, release, set_up, target
from tests.fakes.pod_metrics import Clients
from tests.unit.test_kubernetes_deploy import GOLDEN, live, replicas

WATCH = {"seconds": 60, "min_requests": 100, "error_percent": 1.0, "p99_ms": 500}

PLANNED_ANEW = 0.5
"""A stamp on the old colour's Deployment raises its generation (annotations do); until its controller has seen that, it
does not count as settled, and the rollback waits for up to 0.3 s and plans anew. The poll has ended by then."""


class World:
    """A service whose first release is live, and clients."""

    def __init__(self, rate: float, token: str = "", **more: Any) -> None:
        self.cluster, self.wanted = Cluster(), target(watch={**WATCH, **more})
        set_up(self.cluster, self.wanted)
        if token:
            self.cluster.tokens[token] = service_account("default", self.wanted.deployer)
        self.token, self.lines = token, list[str]()
        self.clients = Clients(self.cluster, rate or 100)
        assert self.deploy(1).passed
        self.clients.sleep(60)
        self.clients.rate = rate
        self.cluster.log.clear()

    def deploy(self, number: int) -> Verdict:
        clients = self.clients
        place = platform(
            self.cluster, self.wanted, sleep=clients.sleep, before=lambda *_: clients.settle(), token=self.token
        )
        made, since = release(place, number), look_at_live(place)
        return deliver(
            place,
            bento(number),
            made,
            lambda slot: smoke(place, slot, GOLDEN),
            lambda: watch(place, place.hold.live_slot(), self.lines.append, since=since, golden=GOLDEN),
        )

    def first_look(self) -> float:
        """When the new colour's counters were read first."""
        return next(c.at for c in self.cluster.log if c.resource == "pods/proxy" and "-green-" in c.path)

    def switched_back(self) -> float:
        at, slot = self.clients.moved[-1]
        assert slot == "blue"
        return at


def new(answer: Callable[[int, float], int]) -> Callable[[int, float, str], int]:
    """Only the new colour answers so."""
    return lambda number, at, pod: answer(number, at) if "-green-" in pod else 200


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([4.0, 15.0, 40.0]), st.floats(1, 45), st.sampled_from([1, 2, 5, 20]))
@example(15.0, 33.0, 20)
def test_errors_after_the_switch_take_it_back_within_a_poll_of_crossing_the_limit(
    rate: float, begins: float, each: int
) -> None:
    world = World(rate)
    begin = world.cluster.clock.seconds + begins
    world.clients.code = new(lambda number, at: 500 if at >= begin and number % each == 0 else 200)
    verdict = world.deploy(2)
    failed, crossed = 0, 0.0
    seen = [r for r in world.clients.sent if "-green-" in r.pod and r.at > world.first_look()]
    for number, request in enumerate(seen, 1):
        failed += request.code >= 500
        if failed <= 0.01 * max(number, 100):
            crossed = 0.0  # it was above the limit for less than a poll, which no look need have seen
        elif not crossed:
            crossed = request.at
        elif request.at >= crossed + POLL_SECONDS:
            break
    assume(crossed and crossed < world.first_look() + 60)
    assert verdict.outcome is Outcome.FAIL, str(verdict)
    assert "requests failed (5xx), wanted ≤ 1 % of at least 100" in str(verdict)
    assert crossed <= world.switched_back() <= crossed + POLL_SECONDS + PLANNED_ANEW
    assert (live(world.cluster), replicas(world.cluster, "blue"), replicas(world.cluster, "green")) == ("b1", 2, 0)
    assert world.cluster.get("horizontalpodautoscalers", "digits-blue")["spec"]["minReplicas"] == 2


def test_what_is_slower_than_before_is_taken_back_though_within_the_limit() -> None:
    world = World(40)
    world.clients.seconds = lambda pod: 0.4 if "-green-" in pod else 0.02
    verdict = world.deploy(2)
    assert verdict.outcome is Outcome.FAIL
    assert "took longer than 100 ms, wanted ≤ 1 %: p99 was 25 ms" in str(verdict)
    assert live(world.cluster) == "b1"
    assert any("requests before, p99 25 ms" in line for line in world.lines), world.lines


def test_what_fails_more_than_before_is_taken_back_though_within_the_limit() -> None:
    world = World(40, error_percent=20.0)
    world.clients.code = new(lambda number, at: 500 if number and number % 6 == 0 else 200)
    verdict = world.deploy(2)
    assert (verdict.outcome, live(world.cluster)) == (Outcome.FAIL, "b1")
    assert "failed before" in str(verdict)


def test_what_never_answers_is_taken_back_by_what_is_in_progress() -> None:
    """It fails no request and is not slow by any histogram: only the gauge knows."""
    world = World(40)
    world.clients.code = new(lambda number, at: 0 if number and number % 4 == 0 else 200)
    verdict = world.deploy(2)
    assert (verdict.outcome, live(world.cluster)) == (Outcome.FAIL, "b1")
    assert "requests in progress a pod, wanted ≤ 4.0" in str(verdict)


def test_what_is_as_good_as_before_is_kept() -> None:
    """3 % of requests fail in both colours, and few of them are in progress."""
    world = World(40, error_percent=5.0)
    world.clients.code = lambda number, at, pod: 500 if number and number % 33 == 0 else 200
    assert world.deploy(2).passed, world.lines
    assert (live(world.cluster), replicas(world.cluster, "green"), replicas(world.cluster, "blue")) == ("b2", 2, 0)


def test_pods_that_tell_nothing_are_not_taken_for_good() -> None:
    world = World(40)
    world.clients.mute = lambda pod: "-green-" in pod
    verdict = world.deploy(2)
    assert (verdict.outcome, live(world.cluster)) == (Outcome.INCONCLUSIVE, "b1")
    assert "no metrics from digits-green-" in str(verdict)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_quiet_service_gets_its_verdict_by_golden_requests(rate: float) -> None:
    """With the shipped Role; they begin after half of the time, and are no more than needed."""
    world = World(rate, token="t")
    assert world.deploy(2).passed, world.lines
    assert live(world.cluster) == "b2"
    start = world.first_look()
    asked = [request for request in world.clients.asked if request.at > start]
    assert {request.pod.split("-")[1] for request in asked} == {"green"}
    assert start + 30 <= min(request.at for request in asked)
    own = sum("-green-" in request.pod and start < request.at <= start + 60 for request in world.clients.sent)
    assert 100 <= own + len(asked) <= 115


@pytest.mark.parametrize("seconds", [1, 2, 5, 8])
def test_so_does_one_that_is_watched_for_less_than_two_looks(seconds: int) -> None:
    world = World(0.0, token="t", seconds=seconds, min_requests=3)
    assert world.deploy(2).passed, world.lines


def test_a_busy_service_is_sent_none() -> None:
    world = World(20)
    assert world.deploy(2).passed
    assert all(request.at <= world.first_look() for request in world.clients.asked)


def test_golden_requests_are_bounded_in_their_rate() -> None:
    world = World(0.0, min_requests=5000)
    assert world.deploy(2).outcome is Outcome.INCONCLUSIVE
    asked = [request.at for request in world.clients.asked if request.at > world.first_look()]
    assert max(asked.count(at) for at in asked) <= 50
    assert len(asked) <= 300 + 50


def test_a_wrong_answer_to_a_golden_request_takes_it_back() -> None:
    world = World(0.0)
    begin = world.cluster.clock.seconds + 25
    world.clients.wrong = lambda pod: "-green-" in pod and world.cluster.clock.seconds > begin
    verdict = world.deploy(2)
    assert (verdict.outcome, live(world.cluster)) == (Outcome.FAIL, "b1")
    assert "wanted 1, got 2 (probe), wanted the golden answers" in str(verdict)


def test_errors_on_golden_requests_take_it_back() -> None:
    world = World(0.0)
    begin = world.cluster.clock.seconds + 25
    world.clients.code = new(lambda number, at: 500 if at > begin else 200)
    verdict = world.deploy(2)
    assert (verdict.outcome, live(world.cluster)) == (Outcome.FAIL, "b1")
    assert "requests failed (5xx)" in str(verdict)


def test_golden_requests_that_reach_nobody_leave_it_open() -> None:
    world = World(0.0)
    begin = world.cluster.clock.seconds + 25
    world.clients.code = new(lambda number, at: 503 if at > begin else 200)
    verdict = world.deploy(2)
    assert not verdict.passed
    assert live(world.cluster) == "b1"
