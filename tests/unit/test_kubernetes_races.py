"""Deployers race over one service, and die, between any two of their API calls; see tests/fakes/kubernetes_races.py
for what is checked after each of them."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ekiben.errors import ConflictError
from ekiben.platforms.kubernetes.hold import CLAIM_SECONDS
from ekiben.platforms.kubernetes.state import KEPT_RELEASES
from ekiben.types import SLOTS, Slot
from tests.fakes.kubernetes_platform import bento, target
from tests.fakes.kubernetes_races import FAILS_CANARY, FAILS_SMOKE, FAILS_WATCH, World, race

WITHOUT = target(autoscaling={"kind": "none"})
ROUTED = target(autoscaling={"kind": "none"}, http_route="digits", gateway="public")
WITH = target(autoscaling={"kind": "cpu"})
NUMBERS = st.sampled_from([1, 2, 3, 4, FAILS_SMOKE, FAILS_WATCH])
WHO = st.integers(0, 2)


def _races(first: int, last: int) -> None:
    for seed in range(first, last):
        try:
            race((WITH, WITHOUT, ROUTED)[seed % 3], seed)
        except Exception as error:
            error.add_note(f"race seed {seed}")
            raise


@pytest.mark.parametrize("ten", range(3))
def test_no_race_breaks_anything(ten: int) -> None:
    _races(ten * 10, ten * 10 + 10)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("thousand", range(10))
def test_nor_do_ten_thousand(thousand: int) -> None:
    _races(1000 * (thousand + 1), 1000 * (thousand + 2))


@pytest.mark.parametrize("fate", ["dies", "lost", "late", "error"])
def test_a_deploy_may_break_off_at_any_call(fate: str) -> None:
    """… or lose the answer to it, or be answered with an error, and live goes what should; in every twelfth place."""
    _break_off(fate, stride=12)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fate", ["dies", "lost", "late", "error", "reset"])
def test_a_deploy_may_really_break_off_at_any_call(fate: str) -> None:
    _break_off(fate, stride=1)


def _break_off(fate: str, stride: int) -> None:
    """For a first, a second and a third deploy, and a rollback."""
    acts: list[tuple[list[int], Callable[[World], None]]] = [
        ([], lambda world: world.deploys(3)),
        ([1], lambda world: world.deploys(3)),
        ([1, 2], lambda world: world.deploys(3)),
        ([1], lambda world: world.deploys(FAILS_WATCH)),
        ([1, 2], lambda world: world.rolls_back()),
        ([1], lambda world: world.deploys(3, percent=10)),
        ([1, 2], lambda world: world.deploys(FAILS_CANARY, percent=50)),
    ]
    for number, (live, act) in enumerate(acts):
        for at in range(number, 80, stride):
            world = World(WITHOUT, live)
            act(world)
            deployer = world.deployers[0]
            for _ in range(400):
                if deployer.dead or deployer.requests >= at:
                    break
                if deployer.wakes > world.cluster.clock.seconds:
                    world.passes(deployer.wakes - world.cluster.clock.seconds)
                world.go_on(0)
            if deployer.dead:
                break
            if fate == "dies":
                world.kill(0)
            else:
                world.go_on(0, fate=fate)
                if not deployer.dead:
                    world.finish(deployer)
                assert deployer.outcome is None, (live, at, deployer.outcome)
            world.converges()


class Races(RuleBasedStateMachine):
    """The same world, steered by hypothesis: what it finds comes out short."""

    @initialize(live=st.lists(st.integers(1, 4), max_size=2, unique=True), autoscaled=st.booleans())
    def begin(self, live: list[int], autoscaled: bool) -> None:
        self.world = World(WITH if autoscaled else WITHOUT, live)

    @precondition(lambda self: len(self.world.deployers) < 3)
    @rule(number=NUMBERS, percent=st.sampled_from([0, 0, 10, 50]))
    def deploys(self, number: int, percent: int) -> None:
        self.world.deploys(number, percent=percent)

    @precondition(lambda self: len(self.world.deployers) < 3)
    @rule()
    def rolls_back(self) -> None:
        self.world.rolls_back()

    @precondition(lambda self: len(self.world.deployers) < 3)
    @rule()
    def retires(self) -> None:
        self.world.retires()

    @precondition(lambda self: self.world.deployers)
    @rule(who=WHO, steps=st.integers(1, 8), fate=st.sampled_from(["", "", "lost", "reset", "late", "error"]))
    def goes_on(self, who: int, steps: int, fate: str) -> None:
        self.world.go_on(who, steps, fate)

    @precondition(lambda self: self.world.deployers)
    @rule(who=WHO)
    def goes_on_long(self, who: int) -> None:
        deployer = self.world.deployers[who % len(self.world.deployers)]
        if deployer.wakes > self.world.cluster.clock.seconds:
            self.world.passes(deployer.wakes - self.world.cluster.clock.seconds)
        self.world.go_on(who, 25)

    @precondition(lambda self: self.world.deployers)
    @rule(who=WHO)
    def is_killed(self, who: int) -> None:
        self.world.kill(who)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 121.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.passes(seconds)

    @rule(slot=st.sampled_from(SLOTS))
    def something_else_is_written(self, slot: Slot) -> None:
        self.world.noise(slot)

    @precondition(lambda self: self.world.late)
    @rule(which=st.integers(0, 5))
    def a_late_request_arrives(self, which: int) -> None:
        self.world.arrives(which)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.converges()


Races.TestCase.settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
TestRaces = Races.TestCase


@pytest.mark.parametrize("live", [[], [1, 2]], ids=["that creates", "that overwrites"])
def test_an_apply_that_arrives_when_another_is_live_there_is_refused(live: list[int]) -> None:
    world = World(WITHOUT, live)
    world.deploys(3)
    late = world.deployers[0]
    if live:  # the first patch of a Deployment that is there is the stamp
        world.until(late, "PATCH /apis/apps/v1/namespaces/default/deployments/digits-blue")
        world.go_on(0)
    world.until(late, "PATCH /apis/apps/v1/namespaces/default/deployments/digits-blue")
    world.go_on(0, fate="late")
    world.kill(0)
    world.passes(CLAIM_SECONDS + 1)
    world.deploys(4)
    world.finish(world.deployers[0])
    assert (world.truth.live, world.truth.view.state.selector) == (4, "blue")
    world.arrives(0)
    world.passes(60)
    assert world.truth.live == 4


@pytest.mark.parametrize("fate", ["lost", "late"])
def test_a_switch_whose_answer_is_lost_is_not_made_again_after_a_rollback(fate: str) -> None:
    world = World(WITHOUT, [1])
    world.deploys(2)
    slow = world.deployers[0]
    world.until(slow, "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
    world.go_on(0)
    world.until(slow, "PATCH /api/v1/namespaces/default/services/digits")
    world.go_on(0, fate=fate)
    if fate == "late":
        world.go_on(0, 3)  # it has looked: nothing is switched yet
        world.arrives(0)
    assert world.truth.live == 2
    world.rolls_back()
    world.finish(world.deployers[1])
    assert world.truth.live == 1
    world.finish(slow)
    assert world.truth.live == 1


def test_no_rollback_leads_to_what_a_watch_refused_when_another_was_live_by_then() -> None:
    world = World(WITHOUT, [1])
    world.deploys(FAILS_WATCH)
    watching = world.deployers[0]
    world.until(watching, "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
    world.go_on(0)
    world.until(watching, "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
    assert world.truth.live == FAILS_WATCH
    world.deploys(3, skew=2 * CLAIM_SECONDS)
    world.finish(world.deployers[1])
    assert world.truth.live == 3
    world.finish(watching)
    world.rolls_back()
    world.finish(world.deployers[0])
    assert world.truth.live == 1


def _trying(number: int) -> World:
    """b1 is live, and a canary has its share."""
    world = World(WITHOUT, [1])
    world.deploys(number, percent=10)
    for _ in range(400):
        if world.truth.view.state.canary:
            return world
        if world.deployers[0].wakes > world.cluster.clock.seconds:
            world.passes(world.deployers[0].wakes - world.cluster.clock.seconds)
        world.go_on(0)
    raise AssertionError("never a canary")


@pytest.mark.parametrize("fate", ["", "lost", "late"])
def test_a_canary_that_was_rolled_back_stays_so(fate: str) -> None:
    """Its deployer had the wish under way, or does not know what became of it."""
    world = World(WITHOUT, [1])
    world.deploys(2, percent=10)
    slow = world.deployers[0]
    world.until(slow, "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
    world.go_on(0)
    world.until(slow, "PATCH /api/v1/namespaces/default/services/digits")
    world.go_on(0, fate=fate)
    if fate == "late":
        world.arrives(0)
    assert world.truth.view.state.canary
    world.rolls_back()
    world.finish(world.deployers[1])
    world.finish(slow)
    assert isinstance(slow.outcome, ConflictError)
    assert (world.truth.live, world.truth.view.state.canary) == (1, None)
    world.converges()


def test_a_late_wish_for_a_share_comes_to_nothing_once_it_was_given_and_taken_back() -> None:
    world = World(WITHOUT, [1])
    world.deploys(FAILS_CANARY, percent=10)
    slow = world.deployers[0]
    world.until(slow, "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
    world.go_on(0)
    world.until(slow, "PATCH /api/v1/namespaces/default/services/digits")
    world.go_on(0, fate="late")
    world.finish(slow)
    assert (world.truth.live, world.truth.view.state.canary) == (1, None)
    world.arrives(0)
    assert world.truth.view.state.canary is None
    world.converges(percent=10)


def test_one_who_takes_its_claim_for_expired_ends_it_first() -> None:
    world = _trying(2)
    first = world.deployers[0]
    world.deploys(3, skew=2 * CLAIM_SECONDS, percent=10)
    world.finish(world.deployers[1])
    assert world.truth.live == 3
    world.finish(first)
    assert world.truth.live == 3
    world.converges()


def test_the_history_is_bounded() -> None:
    world = World(WITHOUT, [])
    for number in range(KEPT_RELEASES + 3):
        world.deploys(1 + number % 2)
        world.finish(world.deployers[0])
    state = world.truth.view.state
    assert (state.epoch, len(state.history), len(state.live)) == (KEPT_RELEASES + 3, KEPT_RELEASES, KEPT_RELEASES)
    assert state.active and state.active.bento == bento(1 + (KEPT_RELEASES + 2) % 2)
    assert sum(map(len, world.truth.view.service["metadata"]["annotations"].values())) < 64_000  # type: ignore[index]
