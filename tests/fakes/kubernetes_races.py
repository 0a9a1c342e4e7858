"""Deployers as the product has them, that race over one service in one fake cluster, one API call at a time.

Each runs in a greenlet of its own, which rests before every request and while it waits for time to pass. Whoever steers
the world says who goes on, what becomes of its request, and how much time passes; and what must hold is checked after
every single step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Literal

import greenlet
import httpx2

from ekiben.errors import EkibenError
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.deliver import Trial, deliver
from ekiben.platforms.kubernetes.hold import CLAIM_SECONDS
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.state import View, bento_in
from ekiben.platforms.manifests.names import Target
from ekiben.rollout.plan import Live, Retired, Serving
from ekiben.types import SLOTS, Check, Outcome, Release, Slot, Verdict
from tests.fakes.kubernetes.clock import EPOCH
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import transport
from tests.fakes.kubernetes_platform import bento, config, set_up

Fate = Literal["", "lost", "reset", "late", "error"]
"""What becomes of a request: nothing; carried out, but the answer is lost; lost itself; carried out at some later time,
when its sender has long given up; answered with a 500 without being carried out."""
FAILS_CANARY, FAILS_SMOKE, FAILS_WATCH = 6, 7, 8
"""Bentos of these numbers are refused by the judge of that name."""


class Killed(BaseException):
    """No `except` of the product sees it."""


class RacingCluster(Cluster):
    def advance(self, seconds: float) -> None:
        """A deployer that waits lets others go on; only the world lets time pass."""
        me = greenlet.getcurrent()
        if isinstance(me, Deployer):
            me.rest(self.clock.seconds + max(seconds, 1.0))
        else:
            super().advance(seconds)


class Deployer(greenlet.greenlet):
    def __init__(self, world: "World", name: str, act: Callable[[KubernetesPlatform], None], skew: float) -> None:
        super().__init__(self._work)
        self.world, self.name, self.act = world, name, act
        self.wakes, self.fate, self.gone = 0.0, "", False
        self.requests, self.skew = 0, timedelta(seconds=skew)
        self.asks = ""  # its next request: method and path
        self.outcome: Exception | None = None
        self.refused: Release | None = None  # what its watch refused

    def _work(self) -> None:
        try:
            self.act(self.world.platform(self))
        except EkibenError as error:
            self.outcome = error
        except Killed:
            pass

    def rest(self, until: float = 0.0) -> None:
        if not self.gone:
            self.wakes = until
            self.parent.switch()
        if self.gone:
            raise Killed

    def killed(self) -> None:
        """As by kill -9: whatever it would still do in `finally` reaches nobody."""
        self.gone = True
        if self:
            self.switch()


class _Transport(httpx2.BaseTransport):
    """Rests before every request, then sees to its fate."""

    def __init__(self, world: "World", deployer: Deployer) -> None:
        self.world, self.deployer = world, deployer
        self._inner = transport(world.cluster)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.deployer.asks = f"{request.method} {request.url.path}"
        self.deployer.rest()
        fate, self.deployer.fate = self.deployer.fate, ""
        self.world.calls += 1
        self.deployer.requests += 1
        if fate == "late" and request.method != "GET":
            self.world.late.append(lambda: self._inner.handle_request(request).status_code)
        if fate in ("reset", "late"):
            raise httpx2.ReadTimeout("timed out", request=request)
        if fate == "error":
            return httpx2.Response(500, json={"kind": "Status", "code": 500, "message": "etcd: timed out"})
        answer: httpx2.Response = self._inner.handle_request(request)
        if fate == "lost":
            raise httpx2.RemoteProtocolError("server disconnected", request=request)
        return answer


@dataclass
class Truth:
    """What the cluster holds at one moment."""

    view: View
    ready: dict[Slot, int]  # ready pods of each colour

    @property
    def live(self) -> int | None:
        active = self.view.state.active
        return int(active.bento.version[1:]) if active else None


class World:
    def __init__(self, wanted: Target, live: list[int], seed: int = 0) -> None:
        self.target = wanted
        self.cluster = RacingCluster(["httproutes"], seed)
        set_up(self.cluster, wanted)
        self.late: list[Callable[[], object]] = []
        self.deployers: list[Deployer] = []
        self.calls = self._names = 0
        self.truth = self._look()
        for number in live:
            self.deploys(number)
            self.finish(self.deployers[0])

    # What a test lets happen

    def deploys(self, number: int, skew: float = 0.0, percent: int = 0) -> None:
        """`skew`: how far the deployer's clock is ahead: it takes others' claims for expired while they work.
        `percent`: share that the release gets first."""

        def act(place: KubernetesPlatform) -> None:
            me = greenlet.getcurrent()
            assert isinstance(me, Deployer)
            time = EPOCH + timedelta(seconds=self.cluster.clock.seconds, microseconds=self._names)
            release = Release(service="digits", slot="blue", bento=bento(number), time=time, by=me.name)

            def watch(good: bool) -> Verdict:
                for _ in range(3):
                    self.cluster.advance(2)
                    place.hold.renew()
                if not good:
                    me.refused = release
                return _verdict(good)

            deliver(
                place,
                bento(number),
                release,
                lambda slot: _verdict(number != FAILS_SMOKE),
                lambda: watch(number != FAILS_WATCH),
                trial=Trial(percent, lambda slot: watch(number != FAILS_CANARY)) if percent else None,
            )

        self._enter(act, skew)

    def rolls_back(self) -> None:
        self._enter(lambda place: place.rollback("bob") and None)

    def retires(self, skew: float = 0.0) -> None:
        self._enter(lambda place: place.retire(), skew)

    def _enter(self, act: Callable[[KubernetesPlatform], None], skew: float = 0.0) -> None:
        self._names += 1
        self.deployers.append(Deployer(self, f"run-{self._names}", act, skew))

    def go_on(self, who: int, steps: int = 1, fate: str = "") -> None:
        """Lets one deployer make so many requests; the first of them meets its fate."""
        deployer = self.deployers[who % len(self.deployers)]
        deployer.fate = fate
        for _ in range(steps):
            if deployer.wakes > self.cluster.clock.seconds or deployer.dead:
                return
            self._resume(deployer)

    def _resume(self, deployer: Deployer) -> None:
        deployer.switch()
        self.check()
        if deployer.dead:
            self.deployers.remove(deployer)
            if deployer.refused and deployer.outcome is None:
                live = self.truth.view.state.active
                assert live is None or live != deployer.refused or len(self.truth.view.state.live) == 1

    def kill(self, who: int) -> None:
        deployer = self.deployers.pop(who % len(self.deployers))
        deployer.killed()

    def passes(self, seconds: float) -> None:
        self.cluster.advance(seconds)
        self.check()

    def arrives(self, which: int) -> None:
        """A late request is carried out."""
        self.late.pop(which % len(self.late))()
        self.check()

    def noise(self, slot: Slot) -> None:
        """Something of no importance is written, and the resource version moves."""
        found = self.cluster.store.get(("apps", "deployments"), "default", f"digits-{slot}")
        if found:
            notes = {**found["metadata"].get("annotations", {}), "noise": str(self.cluster.store.version)}
            changed = {**found, "metadata": {**found["metadata"], "annotations": notes}}
            self.cluster.store.put(self.cluster.resource("deployments"), changed)

    def until(self, deployer: Deployer, asks: str) -> None:
        """Lets it go on until its next request ends so."""
        for _ in range(2000):
            if deployer.asks.endswith(asks):
                return
            if deployer.wakes > self.cluster.clock.seconds:
                self.passes(deployer.wakes - self.cluster.clock.seconds)
            self._resume(deployer)
        raise AssertionError(f"{deployer.name} never asks {asks}")

    def finish(self, deployer: Deployer) -> None:
        for _ in range(2000):
            if deployer.dead:
                return
            if deployer.wakes > self.cluster.clock.seconds:
                self.passes(deployer.wakes - self.cluster.clock.seconds)
            self._resume(deployer)
        raise AssertionError(f"{deployer.name} does not come to an end")

    # What must hold

    def check(self) -> None:
        before, self.truth = self.truth, self._look()
        view, was = self.truth.view, before.view
        if view.service is None:
            return
        state = view.state
        selector, canary = view.service["spec"].get("selector") or {}, state.canary
        assert selector.get("ekiben.dev/service") == "digits", "a selector of whatever is there"
        assert selector.get("ekiben.dev/slot") in SLOTS or canary, "selector without a colour, and no canary"
        assert view.epoch in (was.epoch, was.epoch + 1)
        assert view.epoch != was.epoch or not was.service or canary == was.state.canary, (
            "a share moved, the epoch did not"
        )
        if canary:
            held = view.deployments[canary.slot]
            assert held and held["spec"]["replicas"] > 0, "a canary was scaled to 0"
            assert bento_in(held) == ((was.state.canary and bento_in(was.deployments[canary.slot])) or bento_in(held))
            assert self.truth.ready[canary.slot] > 0, "a canary has no ready pods"
            assert bento_in(held) != bento(FAILS_SMOKE), "a canary though its smoke test failed"
        if view.epoch != was.epoch and (
            canary or (was.service and was.state.canary and state.active == was.state.active)
        ):
            assert state.history == was.state.history and state.selector == was.state.selector
            assert bool(canary) != bool(was.state.canary), "a share is given, or taken back"
        elif view.epoch != was.epoch:
            assert len(state.history) == min(len(was.state.history if was.service else ()) + 1, 20)
            assert state.active == state.history[-1]
        else:
            assert state.selector == was.state.selector or was.service is None
        for route in self.cluster.store.every(("gateway.networking.k8s.io", "httproutes")):
            (rule,) = route["spec"]["rules"]
            share = rule["backendRefs"][1]["weight"]
            assert not share or canary, "a share by weight that nobody accounts for"
        if state.selector and state.active:
            held = view.deployments[state.selector]
            assert held and held["spec"]["replicas"] > 0, "what is live was scaled to 0"
            assert bento_in(held) == state.active.bento, "what is live was overwritten"
            assert self.truth.ready[state.selector] > 0, "what is live has no ready pods"
        assert self.truth.live != FAILS_SMOKE, "live though its smoke test failed"
        assert self.truth.live != FAILS_CANARY, "live though its canary failed"

    def _look(self) -> Truth:
        get = self.cluster.store.get
        found = {slot: get(("apps", "deployments"), "default", f"digits-{slot}") for slot in SLOTS}
        view = View(self.target, get(("", "services"), "default", "digits"), found)
        ready: dict[Slot, int] = dict.fromkeys(SLOTS, 0)
        for pod in self.cluster.store.every(("", "pods")):
            fine = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
            if fine and "deletionTimestamp" not in pod["metadata"]:
                ready[pod["metadata"]["labels"]["ekiben.dev/slot"]] += 1
        return Truth(view, ready)

    def converges(self, percent: int = 0) -> None:
        """Once all are dead and their claims have run out, one deploy gets its release live; their last requests arrive
        only then, and change nothing; and then there is no more to do."""
        while self.deployers:
            self.kill(0)
        self.passes(3 * CLAIM_SECONDS + 1)  # also those of clocks that were ahead
        self.deploys(9, percent=percent)
        last = self.deployers[0]
        self.finish(last)
        assert last.outcome is None, last.outcome
        self.passes(60)
        state = self.truth.view.state
        assert self.truth.live == 9
        assert state.canary is None
        assert state.selector and self.truth.ready[state.selector] >= 2
        assert self.truth.ready[state.idle] == 0
        scaler = self.cluster.store.get(
            ("autoscaling", "horizontalpodautoscalers"), "default", f"digits-{state.selector}"
        )
        if scaler:
            assert scaler["spec"]["minReplicas"] == self.target.settings.replicas.min
            assert "ekiben.dev/floor" not in scaler["metadata"].get("annotations", {})
        while self.late:
            self.arrives(0)
        self.passes(60)
        assert self.truth.live == 9
        release = state.live[-1]
        self._enter(lambda place: self._nothing_left(place, release))
        self.finish(self.deployers[0])
        if state.previous:
            self.rolls_back()
            last = self.deployers[0]
            self.finish(last)
            assert last.outcome is None, last.outcome
            assert self.truth.view.state.active
            assert self.truth.view.state.active.bento == state.previous.bento

    def _nothing_left(self, place: KubernetesPlatform, release: Release) -> None:
        for goal in (Live(release, "x"), Retired("x"), Serving()):
            assert place.plan(goal) == []

    def platform(self, deployer: Deployer) -> KubernetesPlatform:
        def now() -> datetime:
            return EPOCH + timedelta(seconds=self.cluster.clock.seconds) + deployer.skew

        api = Api(config(), _Transport(self, deployer), self.cluster.advance)
        return KubernetesPlatform(api, self.target, now=now, sleep=self.cluster.advance)


def _verdict(good: bool) -> Verdict:
    outcome = Outcome.PASS if good else Outcome.FAIL
    return Verdict.of([Check(name="judge", outcome=outcome, seen="it", wanted="better")])


def race(wanted: Target, seed: int) -> World:
    """One schedule, by chance. In most of them one deployer is held up for long, and some clocks are wrong."""
    chance = Random(seed)
    world = World(wanted, chance.sample(range(1, 5), chance.randint(0, 2)), seed)
    held_up: Deployer | None = None
    for _ in range(chance.randint(2, 6)):
        if len(world.deployers) < 3:
            kind, skew = chance.random(), chance.choice([0.0, 2 * CLAIM_SECONDS])
            if kind < 0.6:
                percent = chance.choice([0, 10, 50])
                refused = [FAILS_SMOKE, FAILS_WATCH, *([FAILS_CANARY] if percent and world.truth.live else [])]
                world.deploys(chance.choice([1, 2, 3, 4, *refused]), skew, percent)
            elif kind < 0.85:
                world.rolls_back()
            else:
                world.retires(skew)
        if held_up not in world.deployers or chance.random() < 0.3:
            held_up = chance.choice([*world.deployers, None])
        for _ in range(chance.randint(5, 60)):
            awake = [number for number, deployer in enumerate(world.deployers) if deployer is not held_up]
            if not awake:
                break
            who, event = chance.choice(awake), chance.random()
            if event < 0.01:
                world.kill(who)
            elif event < 0.12:
                world.go_on(who, chance.randint(1, 3), chance.choice(["lost", "reset", "late", "late", "error"]))
            elif event < 0.3:
                world.passes(chance.choice([0.1, 1.0, 3.0, 6.0]))
            elif event < 0.31:
                world.passes(CLAIM_SECONDS + 1)
            elif event < 0.35:
                world.noise(chance.choice(SLOTS))
            elif event < 0.37 and world.late:
                world.arrives(chance.randrange(5))
            else:
                world.go_on(who, chance.randint(1, 8))
    world.converges(chance.choice([0, 10]))
    return world
