"""KEDA sizes the colours: the idle one stays at 0, the live one is never paused, through deploys and rollbacks.

It stands on KEDA 2: a ScaledObject's target below minReplicaCount is scaled to it, also from 0; with the annotation
autoscaling.keda.sh/paused-replicas it is kept at that size instead, and has no HPA.
"""

from ekiben.types import Slot
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes_platform import bento, deploy, platform, release, set_up, target

PAUSED = "autoscaling.keda.sh/paused-replicas"


def keda(cluster: Cluster) -> None:
    """What its operator does at each look."""
    for each in cluster.objects("scaledobjects"):
        paused = each["metadata"].get("annotations", {}).get(PAUSED)
        found = cluster.get("deployments", each["spec"]["scaleTargetRef"]["name"])
        now = found["spec"]["replicas"]
        size = int(paused) if paused is not None else max(now, each["spec"]["minReplicaCount"])
        if size != now:
            found["spec"]["replicas"] = size
            found["metadata"]["generation"] += 1
            cluster.store.put(cluster.resource("deployments"), found)


def test_idle_at_zero_and_live_at_its_size() -> None:
    wanted = target(autoscaling={"kind": "keda"}, prometheus="http://prometheus.example:9090")
    cluster = Cluster(["scaledobjects"])
    set_up(cluster, wanted)

    def sleep(seconds: float) -> None:
        cluster.advance(seconds)
        if len(cluster.objects("deployments")) == 2:
            keda(cluster)

    def state(slot: Slot) -> tuple[int, str | None]:
        scaler = cluster.get("scaledobjects", f"digits-{slot}")
        size = cluster.get("deployments", f"digits-{slot}")["spec"]["replicas"]
        return size, scaler["metadata"].get("annotations", {}).get(PAUSED)

    def rest() -> None:
        for _ in range(20):
            sleep(15)

    place = platform(cluster, wanted, sleep=sleep)
    deploy(place, 1)
    deploy(place, 2)
    rest()
    assert (state("green"), state("blue")) == ((2, None), (0, "0"))

    later = platform(cluster, wanted, sleep=sleep)
    assert later.rollback("bob").bento == bento(1)
    assert state("blue") == (2, None)
    later.retire()
    rest()
    assert (state("blue"), state("green")) == ((2, None), (0, "0"))

    # A pause that comes late finds another version.
    late = later._colours.keda("green")
    assert late
    again = platform(cluster, wanted, sleep=sleep)
    again.stage(bento(3), "test")
    assert not later._colours.pause(late)
    assert state("green") == (2, None)
    again.switch(release(again, 3))
    again.retire()
    rest()
    assert (state("green"), state("blue")) == ((2, None), (0, "0"))
