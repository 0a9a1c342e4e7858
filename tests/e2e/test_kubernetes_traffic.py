"""No request is lost while colours change: the product's deployer on the fake API server, real connections behind it.

Pods are HTTP servers on sockets. A Service is a TCP proxy that picks a pod when a connection opens and follows the
EndpointSlices late, as kube-proxy does; kept connections stay with their pod until it ends. Pods that end sleep in
their preStop hook, then accept no more and finish what they have. What it stands on was measured on a real node: kept
connections never move by themselves; without preStop, and without a pause between switch and scale-down,
some are lost.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from lightkube import KubeConfig
from lightkube.config.models import Cluster as KubeServer
from lightkube.config.models import User

from ekiben.platforms.kubernetes import platform as module
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.deliver import deliver
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.manifests import pod as pods
from ekiben.types import Outcome, Verdict
from tests.fakes.http_traffic import Load, PodServer, loaded, looping
from tests.fakes.kubernetes.clock import EPOCH
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served
from tests.fakes.kubernetes.traffic import ServiceProxy
from tests.fakes.kubernetes_platform import bento, release, set_up, target
from tests.unit.test_kubernetes_deploy import GOLDEN

SPEED = 50.0  # virtual seconds in a real one, at most
TICK_S = 0.005
LAG_S = 0.5  # virtual: how late a node learns of endpoints; measured were 0.16-0.26 s, and 1.3 s at worst
NO_AUTOSCALER = {"autoscaling": {"kind": "none"}}


@dataclass
class Stage:
    cluster: Cluster
    place: KubernetesPlatform
    load: Load

    def deploys(self, number: int) -> None:
        verdict = deliver(
            self.place,
            bento(number),
            release(self.place, number),
            lambda slot: smoke(self.place, slot, GOLDEN),
            lambda: Verdict(outcome=Outcome.PASS),
        )
        assert verdict.passed, str(verdict)

    def goes_on(self, requests: int = 60) -> None:
        """Until clients have seen so many more answers, or failures."""
        until, before = time.monotonic() + 20, self.load.good + len(self.load.failed)
        while self.load.good + len(self.load.failed) < before + requests:
            assert time.monotonic() < until, "clients get no answers"
            time.sleep(0.005)


def _drive(cluster: Cluster, stop: threading.Event) -> None:
    """Time passes in small steps, so that a busy machine slows the cluster down with its clients."""
    while not stop.wait(TICK_S):
        cluster.advance(TICK_S * SPEED)


@contextmanager
def _stage(lag_s: float = LAG_S) -> Iterator[Stage]:
    cluster, wanted = Cluster(), target(**NO_AUTOSCALER)
    set_up(cluster, wanted)
    servers: dict[str, PodServer] = {}
    stop = threading.Event()
    driver = threading.Thread(target=_drive, args=(cluster, stop), daemon=True)

    def now() -> datetime:
        return EPOCH + timedelta(seconds=cluster.clock.seconds)

    def sleep(seconds: float) -> None:
        until = cluster.clock.seconds + seconds
        while cluster.clock.seconds < until:
            time.sleep(TICK_S)

    with looping() as loop:

        def begins(pod: Any) -> str:
            name = pod["metadata"]["name"]
            servers[name] = PodServer(loop, name)
            return servers[name].url

        cluster.kubelet.behave(
            "", backend=begins, stopped=lambda pod: servers[pod["metadata"]["name"]].terminate(), exit_s=2.0
        )
        with served(cluster) as url:
            driver.start()
            config = KubeConfig.from_one(cluster=KubeServer(server=url), user=User()).get()
            assert config
            place = KubernetesPlatform(Api(config, None, sleep), wanted, now=now, sleep=sleep)
            stage = Stage(cluster, place, Load())
            try:
                stage.deploys(1)
                sleep(2 * lag_s + 1)
                with ServiceProxy(cluster, "digits", lag_s=lag_s) as proxy, loaded(loop, proxy.port) as stage.load:
                    stage.goes_on()
                    assert stage.load.failed == []
                    yield stage
            finally:
                stop.set()
                driver.join()
                for each in servers.values():
                    each.terminate()


def test_no_request_fails_in_a_hundred_switches_and_twenty_rollbacks() -> None:
    """Every fifth release is rolled back: to a colour that still runs, and in turn to one that was scaled down."""
    with _stage() as stage:
        for number in range(2, 102):
            before = stage.load.good
            if number % 10 == 5:
                stage.place.stage(bento(number), "anna")
                stage.place.switch(release(stage.place, number))
            else:
                stage.deploys(number)
            if number % 5 == 0:
                assert stage.place.rollback("bob").bento != bento(number)
                stage.place.retire()
            assert stage.load.good > before, "clients went on meanwhile"
            assert stage.load.failed == [], number
        stage.goes_on()
        load = stage.load
        history = stage.place.history()
    assert load.failed == []
    assert stage.place.last_seen().epoch == 121
    assert history[-1].by == "anna"
    assert len(load.by_pod) > 150, "old and new pods had their share"


def test_a_colour_that_is_not_ready_loses_them() -> None:
    """So the test above can fail: the selector moved by hand, before there are pods."""
    with _stage() as stage:
        where = stage.place.hold.path("v1", "services", "digits")
        to = [{"op": "replace", "path": "/spec/selector", "value": stage.place.target.selector("green")}]
        stage.place.hold.api.patch(where, to)
        stage.goes_on(300)
        assert any(each.startswith("new connection") for each in stage.load.failed)
        assert not any(each.startswith("kept") for each in stage.load.failed), "those stay where they are"


def test_an_old_colour_that_ends_at_once_loses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pause before the scale-down, and without preStop, nodes still send connections to pods that ended."""
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.0)
    made = pods.PRE_STOP_SECONDS
    monkeypatch.setattr(pods, "PRE_STOP_SECONDS", 1)
    assert made >= 5
    with _stage(lag_s=4.0) as stage:
        for number in range(2, 8):
            stage.deploys(number)
            stage.goes_on()
        assert any(each.startswith("new connection") for each in stage.load.failed)
