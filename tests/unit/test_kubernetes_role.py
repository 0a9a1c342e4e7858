"""The Role that `ekiben render` prints is what the commands use on the fake API server: every request recorded, nothing
granted that none makes but what is listed with its reason. And how many requests a deploy makes.

It stands on RBAC: a rule grants each of its verbs on each of its resources; what is created has no name yet; a
server-side apply of what is not there needs `create` besides `patch`.
"""

from typing import Any

import pytest

from ekiben.platforms.kubernetes.deliver import Trial, deliver
from ekiben.platforms.kubernetes.look import look_at_live
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.kubernetes.watch import watch
from ekiben.platforms.manifests.access import rules
from ekiben.platforms.manifests.names import Target
from ekiben.types import Outcome, Verdict
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.verbs import Verbs
from tests.fakes.kubernetes_platform import bento, platform, release, set_up, target
from tests.unit.test_kubernetes_deploy import GOLDEN, WATCH, Model

# Granted though no command makes such a request: for whoever looks with kubectl why a deploy does not go on.
FOR_PEOPLE = {
    *(("", "events", verb) for verb in ("get", "list", "watch")),
    *(("apps", "replicasets", verb) for verb in ("get", "list", "watch")),
    ("", "pods", "get"),
    ("", "pods", "watch"),
    ("apps", "deployments", "list"),
    ("discovery.k8s.io", "endpointslices", "get"),
    ("discovery.k8s.io", "endpointslices", "watch"),
    ("", "services/proxy", "get"),
    ("apps", "deployments/scale", "get"),
    ("apps", "deployments/scale", "patch"),
    ("policy", "poddisruptionbudgets", "get"),
    ("networking.k8s.io", "networkpolicies", "get"),
    ("monitoring.coreos.com", "servicemonitors", "get"),
    ("monitoring.coreos.com", "prometheusrules", "get"),
}


def whole(place: KubernetesPlatform, number: int, percent: int = 0) -> Verdict:
    since = look_at_live(place)
    return deliver(
        place,
        bento(number),
        release(place, number),
        lambda slot: smoke(place, slot, GOLDEN),
        lambda: watch(place, place.hold.live_slot(), lambda line: None, since=since, golden=GOLDEN),
        trial=Trial(percent, lambda slot: watch(place, slot, lambda line: None)) if percent else None,
    )


@pytest.mark.parametrize("settings", [{}, {"service_monitor": True}, {"autoscaling": {"kind": "none"}}], ids=str)
def test_the_role_grants_what_is_used_and_nothing_else(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = target(watch=WATCH, **settings)
    cluster = Cluster(["servicemonitors", "prometheusrules"])
    set_up(cluster, wanted)
    model = Model(cluster)
    cluster.kubelet.behave("", backend=model.backend)
    cluster.tokens["t"] = service_account("default", wanted.deployer)
    created: set[tuple[str, str, str]] = set()
    create = Verbs.create

    def recorded(self: Verbs, resource: Any, thing: Any, *more: Any, **named: Any) -> Any:
        created.add((resource.group, resource.plural, "create"))
        return create(self, resource, thing, *more, **named)

    monkeypatch.setattr(Verbs, "create", recorded)
    cluster.log.clear()

    def place() -> KubernetesPlatform:
        return platform(cluster, wanted, token="t")

    assert whole(place(), 1).passed
    assert whole(place(), 2).passed
    assert whole(place(), 3, percent=10).passed
    place().rollback("bob")
    assert place().observe().active
    assert place().history()
    cluster.kubelet.behave("", crash_after_s=0.5, exit_code=3, log="KeyError\n")
    with pytest.raises(Exception, match="KeyError"):
        whole(place(), 4)
    cluster.kubelet.behave("", backend=model.backend)
    model.failing = lambda: 0.5
    assert whole(place(), 5).outcome is Outcome.FAIL

    groups = {each.plural: each.group for each in cluster.served}
    used = {(groups[call.resource.partition("/")[0]], call.resource, call.verb) for call in cluster.log} | created
    assert not [call for call in cluster.log if call.status == 403]
    granted = {
        (group, resource, verb)
        for rule in rules(wanted)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used <= granted, used - granted
    assert granted - used <= FOR_PEOPLE, granted - used - FOR_PEOPLE


def made(cluster: Cluster) -> int:
    return sum(count for key, count in cluster.counts().items() if not key.startswith("watch "))


def quiet(place: KubernetesPlatform, number: int, percent: int = 0) -> Verdict:
    """As `whole`, without what the watches read: that depends on how long they take."""

    def good(slot: Any = None) -> Verdict:
        return Verdict(outcome=Outcome.PASS)

    there = release(place, number)
    return deliver(
        place, bento(number), there, lambda slot: smoke(place, slot, GOLDEN), good,
        trial=Trial(percent, good) if percent else None,
    )  # fmt: skip


def requests(wanted: Target) -> dict[str, int]:
    cluster = Cluster()
    set_up(cluster, wanted)
    cluster.kubelet.behave("", backend=Model(cluster).backend)
    counts = {}
    for name, act in (
        ("first deploy", lambda: quiet(platform(cluster, wanted), 1)),
        ("deploy", lambda: quiet(platform(cluster, wanted), 2)),
        ("canary and deploy", lambda: quiet(platform(cluster, wanted), 3, 10)),
        ("rollback to a stopped colour", lambda: platform(cluster, wanted).rollback("bob")),
    ):
        cluster.log.clear()
        act()
        counts[name] = made(cluster)
        cluster.advance(120)
    return counts


def test_how_many_requests_are_made() -> None:
    counts = requests(target())

    assert counts["first deploy"] <= 30, counts
    assert counts["deploy"] <= 30, counts
    assert counts["canary and deploy"] <= 55, counts
    assert counts["rollback to a stopped colour"] <= 20, counts
