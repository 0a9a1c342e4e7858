"""Deployers race over one service, and die, between any two steps that are atomic on a real platform.

The fake platform keeps what a real one keeps: the state (changed atomically), what each slot's folder holds, what each
slot runs, and a lock per slot that dies with its holder. A deployer goes on by one step at a time, in an order that a
seed or hypothesis chooses; some are killed, and some are taken for dead though they live.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ekiben.errors import ConflictError, NotFoundError
from ekiben.rollout.plan import (
    Action,
    Claim,
    Live,
    Retired,
    RolledBack,
    Serving,
    Stage,
    Staged,
    Start,
    Stop,
    Switch,
    Unclaim,
    Wanted,
    plan,
)
from ekiben.rollout.state import Observed, ServiceState
from ekiben.types import SLOTS, BentoRef, ModelVersion, Release, Slot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Steps = Iterator[None]


def bento(number: int) -> BentoRef:
    model = ModelVersion.parse(f"acme/vision/digits:v{number}")
    return BentoRef(name="digits", version=f"b{number}", digest="0" * 64, model=model)


def release(number: int) -> Release:
    return Release(service="digits", slot="blue", bento=bento(number), time=NOW, by="anna")


@dataclass
class FakePlatform:
    state: ServiceState = field(default_factory=lambda: ServiceState(service="digits"))
    runs: dict[Slot, BentoRef | None] = field(default_factory=lambda: dict.fromkeys(SLOTS))
    locks: dict[Slot, str] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)

    def observe(self) -> Observed:
        running = frozenset(slot for slot in SLOTS if self.runs[slot])
        ready = frozenset(slot for slot in running if self.state.slots[slot].up)
        held = frozenset(slot for slot in SLOTS if self.state.slots[slot].claim in self.alive)
        return Observed(**dict(self.state), running=running, ready=ready, held=held)

    def apply(self, action: Action, who: str) -> Steps:
        """Each `yield` is a point where others may act, or this deployer may die."""
        match action:
            case Claim(slot, claim, instead_of):
                self.state = self.state.claimed(slot, claim, instead_of)
            case Unclaim(claim):
                self.state = self.state.unclaimed(claim)
            case Switch(release, epoch, back, keep):
                self.state = self.state.switched(release, epoch, back=back, keep=keep)
            case Stage(slot, wanted, claim, epoch):
                yield from self._lock(slot, who)
                self.state = self.state.staging(slot, claim, epoch)
                yield
                self.runs[slot] = None
                yield
                self.runs[slot] = wanted
                yield
                self.state = self.state.staged(slot, claim, wanted, "127.0.0.1:1")
            case Start(slot, wanted):
                yield from self._lock(slot, who)
                self.state = self.state.holding(slot, wanted)
                yield
                self.runs[slot] = self.runs[slot] or wanted
                yield
                self.state = self.state.started(slot, wanted, "127.0.0.1:1")
            case Stop(slot, claim, epoch):
                yield from self._lock(slot, who)
                self.state = self.state.stopping(slot, claim, epoch)
                yield
                self.runs[slot] = None

    def _lock(self, slot: Slot, who: str) -> Steps:
        while self.locks.get(slot, who) != who:
            yield
        self.locks[slot] = who

    def unlock(self, who: str) -> None:
        self.locks = {slot: holder for slot, holder in self.locks.items() if holder != who}


class Deployer:
    """What LocalPlatform does for a command, one step at a time."""

    def __init__(self, platform: FakePlatform, name: str, goals: list[Wanted]) -> None:
        self.platform, self.name = platform, name
        self.goal: Wanted | None = None
        self.outcome: Exception | None = None
        platform.alive.add(name)
        self._steps = self._run(goals)

    def step(self) -> bool:
        """False when it has ended."""
        try:
            next(self._steps)
            return True
        except StopIteration:
            pass
        except (ConflictError, NotFoundError) as error:
            self.outcome = error
        self.die()
        return False

    def finish(self) -> None:
        while self.step():
            pass

    def die(self) -> None:
        self.platform.unlock(self.name)
        self.platform.alive.discard(self.name)

    def _run(self, goals: list[Wanted]) -> Steps:
        for self.goal in goals:
            yield from self._reach(self.goal)

    def _reach(self, goal: Wanted) -> Steps:
        for attempt in range(3):
            actions = plan(self.platform.observe(), goal)
            yield
            try:
                for action in actions:
                    yield from self.platform.apply(action, self.name)
                    self.platform.unlock(self.name)
                    yield
                return
            except ConflictError:
                self.platform.unlock(self.name)
                if attempt == 2:
                    raise


class World:
    """Deployers over one platform, and what must hold after every single step of any of them."""

    def __init__(self, live: list[int]) -> None:
        self.platform = FakePlatform()
        self.deployers: list[Deployer] = []
        self._names = 0
        for number in live:
            self.enter(lambda name, number=number: Live(release(number), name))  # type: ignore[misc]
            self.run(0, 100)

    @property
    def live(self) -> int | None:
        active = self.platform.state.active
        return int(active.bento.version[1:]) if active else None

    def enter(self, *goals: Callable[[str], Wanted]) -> None:
        self._names += 1
        name = f"run-{self._names}"
        self.deployers.append(Deployer(self.platform, name, [goal(name) for goal in goals]))

    def deploys(self, number: int, test_first: bool, watch: bool) -> None:
        goals: list[Callable[[str], Wanted]] = [lambda name: Live(release(number), name)]
        if test_first:
            goals.insert(0, lambda name: Staged(bento(number), name))
        self.enter(*goals, *[Retired] * watch)

    def rolls_back(self, number: int | None) -> None:
        self.enter(lambda name: RolledBack(bento(number) if number else None, "bob", NOW, name))

    def run(self, who: int, steps: int) -> None:
        for _ in range(steps):
            if not self.deployers:
                return
            deployer = self.deployers[who % len(self.deployers)]
            before = self.platform.state
            # Whoever is taken for dead while it stops a slot may end that, under the slot's lock; all others wait.
            ran = dict(self.platform.runs) if deployer.name in self.platform.alive else {}
            going_on = deployer.step()
            self.check(before, ran, deployer)
            if not going_on:
                self.deployers.remove(deployer)
                return

    def kill(self, who: int) -> None:
        self.deployers.pop(who % len(self.deployers)).die()

    def take_for_dead(self, who: int) -> None:
        """Though it lives and will go on: its claim counts for nothing, the locks that it has are still its own."""
        self.platform.alive.discard(self.deployers[who % len(self.deployers)].name)

    def check(self, before: ServiceState, ran: Mapping[Slot, BentoRef | None], deployer: Deployer) -> None:
        state, goal = self.platform.state, deployer.goal
        if state.epoch != before.epoch:
            assert state.epoch == before.epoch + 1
            assert state.active
            assert state.history == (*before.history, state.active)
            if isinstance(goal, Live):
                assert state.active.bento == goal.release.bento
                assert state.live == (*before.live, state.active)
            else:
                assert isinstance(goal, RolledBack)
                assert before.active
                assert before.previous
                assert goal.bento in (None, before.active.bento), "rolled back what was not meant"
                assert state.active.bento == before.previous.bento
                assert state.live == (*before.live[:-2], state.active)
        else:
            assert (state.selector, state.live) == (before.selector, before.live)
        if state.selector:
            assert state.active
            assert state.slots[state.selector].up
            assert state.slots[state.selector].bento == state.active.bento
            assert self.platform.runs[state.selector] == state.active.bento, "what is live does not run"
            assert state.active.slot == state.selector
        for slot in SLOTS:
            holder = before.slots[slot].claim
            if holder in self.platform.alive - {deployer.name}:
                assert state.slots[slot].bento == before.slots[slot].bento, f"{slot} was taken from {holder}"
                assert self.platform.runs[slot] or not ran.get(slot), f"{slot} was stopped under {holder}"

    def converges(self) -> None:
        """Once all others are dead, each command reaches its end and then has no more to do."""
        for deployer in self.deployers:
            deployer.die()
        self.deployers.clear()
        self.deploys(9, test_first=False, watch=True)
        last = self.deployers[0]
        self.run(0, 100)
        assert (self.deployers, last.outcome) == ([], None)
        state = self.platform.state
        assert state.active
        assert state.active.bento == bento(9)
        assert self.platform.runs[state.idle] is None
        for goal in (Live(release(9), last.name), Retired(last.name), Serving()):
            assert plan(self.platform.observe(), goal) == []
        if state.previous:
            self.rolls_back(9)
            self.run(0, 100)
            assert self.platform.state.active
            assert self.platform.state.active.bento == state.previous.bento


def race(seed: int) -> None:
    chance = Random(seed)
    world = World(chance.sample(range(1, 5), chance.randint(0, 3)))
    held_up = None
    for _ in range(chance.randint(2, 8)):
        for _ in range(chance.randint(1, 2)):
            kind = chance.random()
            if kind < 0.5:
                world.deploys(chance.randint(1, 4), chance.random() < 0.5, chance.random() < 0.5)
            elif kind < 0.8:
                world.rolls_back(chance.choice([None, 1, 2, 3, 4]) if chance.random() < 0.3 else world.live)
            else:
                world.enter(Retired)
        # One of them may be held up for long: what it planned for is then long gone.
        if held_up not in world.deployers or chance.random() < 0.3:
            held_up = chance.choice(world.deployers)
        for _ in range(chance.randint(5, 60)):
            awake = [number for number, deployer in enumerate(world.deployers) if deployer is not held_up]
            if not awake:
                break
            who, event = chance.choice(awake), chance.random()
            if event < 0.02:
                world.kill(who)
            elif event < 0.04:
                world.take_for_dead(who)
            else:
                world.run(who, chance.randint(1, 3))
    world.converges()


@pytest.mark.parametrize("hundred", range(20))
def test_in_no_schedule_does_a_race_break_anything(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 100):
        try:
            race(seed)
        except Exception as error:
            error.add_note(f"race({seed})")
            raise


def test_a_rollback_that_was_held_up_does_not_undo_a_later_release() -> None:
    world = World([1, 2])
    world.rolls_back(2)
    held_up = world.deployers[0]
    world.run(0, 1)  # it has planned
    world.rolls_back(2)
    world.run(1, 100)
    world.deploys(4, test_first=False, watch=False)
    world.run(1, 100)
    assert world.live == 4
    held_up.finish()
    assert (world.live, held_up.outcome) == (4, None), "2 is not live any more: nothing was left to do"


@pytest.mark.soak
def test_nor_in_very_many() -> None:
    for seed in range(2_000, 50_000):
        race(seed)


class Races(RuleBasedStateMachine):
    """The same world, steered by hypothesis: what it finds comes out short."""

    @initialize(live=st.lists(st.integers(1, 4), max_size=3, unique=True))
    def begin(self, live: list[int]) -> None:
        self.world = World(live)

    @precondition(lambda self: len(self.world.deployers) < 3)
    @rule(number=st.integers(1, 4), test_first=st.booleans(), watch=st.booleans())
    def deploys(self, number: int, test_first: bool, watch: bool) -> None:
        self.world.deploys(number, test_first, watch)

    @precondition(lambda self: len(self.world.deployers) < 3)
    @rule(number=st.none() | st.integers(1, 4))
    def rolls_back(self, number: int | None) -> None:
        self.world.rolls_back(number)

    @precondition(lambda self: len(self.world.deployers) < 3)
    @rule()
    def retires(self) -> None:
        self.world.enter(Retired)

    @precondition(lambda self: self.world.deployers)
    @rule(who=st.integers(0, 2), steps=st.integers(1, 8))
    def goes_on(self, who: int, steps: int) -> None:
        self.world.run(who, steps)

    @precondition(lambda self: self.world.deployers)
    @rule(who=st.integers(0, 2))
    def is_killed(self, who: int) -> None:
        self.world.kill(who)

    @precondition(lambda self: self.world.deployers)
    @rule(who=st.integers(0, 2))
    def is_taken_for_dead(self, who: int) -> None:
        self.world.take_for_dead(who)

    @precondition(lambda self: not self.world.deployers)
    @rule()
    def idle_process_dies(self) -> None:
        """On its own. One that a deployer is about to switch to is out of anybody's hands."""
        self.world.platform.runs[self.world.platform.state.idle] = None

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.converges()


Races.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestRaces = Races.TestCase
