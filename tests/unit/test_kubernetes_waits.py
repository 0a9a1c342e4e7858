"""Why a colour is not ready yet, from pods' statuses as kubelets write them (1.30 to 1.36)."""

from typing import Any

import pytest

from ekiben.errors import UnavailableError
from ekiben.platforms.kubernetes.rollout import Wait, waits
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes_platform import deploy, platform, set_up, target

Json = dict[str, Any]
DEPLOYMENT: Json = {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {"observedGeneration": 2}}


def pod(name: str = "digits-green-5d8f-x7k2p", template: str = "5d8f", **status: Any) -> Json:
    return {"metadata": {"name": name, "labels": {"pod-template-hash": template}}, "status": status}


def container(name: str = "bento", **more: Any) -> Json:
    return {"name": name, "image": "registry.example/runtime:1", "restartCount": 0, "ready": False, **more}


def waiting(reason: str, message: str = "") -> Json:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(reason: str, code: int, message: str = "") -> Json:
    return {"terminated": {"reason": reason, "exitCode": code, **({"message": message} if message else {})}}


def of(*pods: Json, conditions: list[Json] | None = None) -> Wait:
    return waits({**DEPLOYMENT, "status": {**DEPLOYMENT["status"], "conditions": conditions or []}}, pods)


READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    "reason",
    [
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
    ],
)
def test_images(reason: str) -> None:
    seen = of(pod(containerStatuses=[container(**waiting(reason, "it is said why"))]))
    assert seen.hopeless and "cannot pull registry.example/runtime:1: it is said why" in seen.reason
    assert ("image_pull_policy" if reason == "ErrImageNeverPull" else "image_pull_secrets") in seen.mend


@pytest.mark.parametrize(
    ("statuses", "said", "mend", "hopeless"),
    [
        ([container(**waiting("CrashLoopBackOff"), restartCount=3) | {"lastState": ended("OOMKilled", 137)}],
         "crashed 3 times (OOMKilled, exit code 137)", "raise resources.memory", True),
        ([container(**waiting("CrashLoopBackOff"), restartCount=2) | {"lastState": ended("Error", 143)}],
         "crashed 2 times (Error, exit code 143)", "raise start_seconds", True),
        ([container(state={"running": {}}, restartCount=1) | {"lastState": ended("Error", 1)}],
         "crashed 1 times (Error, exit code 1)", "mend that", False),
        ([container(**waiting("CrashLoopBackOff"), restartCount=2)
          | {"lastState": ended("StartError", 128, 'exec: "python": executable file not found in $PATH')}],
         'exit code 128: exec: "python": executable file not found', "mend that", True),
        ([container(state=ended("Error", 3))], "crashed 1 times (Error, exit code 3)", "mend that", False),
    ],
)  # fmt: skip
def test_crashes(statuses: list[Json], said: str, mend: str, hopeless: bool) -> None:
    seen = of(pod(containerStatuses=statuses))
    assert said in seen.reason and mend in seen.mend
    assert (seen.hopeless, seen.crashed) == (hopeless, ("digits-green-5d8f-x7k2p", "bento"))


def test_an_init_container_that_ended_well_is_no_crash() -> None:
    inits = [container("fetch", state=ended("Completed", 0))]
    seen = of(pod(initContainerStatuses=inits, containerStatuses=[container(**waiting("PodInitializing"))]))
    assert (seen.crashed, seen.quiet) == (None, "digits-green-5d8f-x7k2p")


def test_a_pod_that_is_ready_now_holds_nothing_up_whatever_it_went_through() -> None:
    crashed = container(state={"running": {}}, restartCount=5, ready=True) | {"lastState": ended("Error", 1)}
    slow = pod("digits-green-5d8f-other", containerStatuses=[container(**waiting("ContainerCreating"))])
    seen = of(pod(conditions=READY, containerStatuses=[crashed]), slow)
    assert (seen.hopeless, seen.reason) == (False, "digits-green-5d8f-other is starting")


def test_what_its_node_has_ended_is_said_but_nothing_of_an_older_template() -> None:
    gone: Json = {"phase": "Failed", "reason": "Evicted"}
    full = 'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".'
    now = pod("digits-green-5d8f-new", containerStatuses=[container(**waiting("ContainerCreating"))])
    assert full in of(pod(**gone, message=full), now).reason
    assert of(pod(template="old1", **gone, message=full), now).reason == "digits-green-5d8f-new is starting"
    assert full in of(pod(**gone, message=full)).reason


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ('pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3',
         "raise the ResourceQuota"),
        ('pods "x" is forbidden: failed quota: team: must specify limits.cpu for: bento,fetch', "resources.cpu_limit"),
        ('pods "x" is forbidden: [maximum memory usage per Container is 512Mi, but limit is 1Gi]', "settings"),
    ],
)  # fmt: skip
def test_pods_that_are_not_created(said: str, mend: str) -> None:
    seen = of(conditions=[{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}])
    assert seen.hopeless and said in seen.reason and mend in seen.mend


def test_what_no_status_tells_is_told_by_events_and_the_log() -> None:
    wanted, lines = target(start_seconds=30), list[str]()
    cluster = Cluster()
    set_up(cluster, wanted)
    cluster.kubelet.behave("", never_ready=True, log="loading weights\n")
    why = "Startup probe failed: HTTP probe failed with statuscode: 503"
    place = platform(cluster, wanted, say=lines.append)

    def noted(line: str) -> None:
        lines.append(line)
        with cluster.store.changed:
            for each in cluster.objects("pods"):
                cluster.controllers.event(each, "Warning", "Unhealthy", why, "kubelet")

    place.hold.say = noted
    with pytest.raises(UnavailableError) as raised:
        deploy(place, 1)
    assert f"is starting: Unhealthy: {why}" in str(raised.value)
    assert "loading weights" in str(raised.value)
    assert any(why in line for line in lines)
    asked = [call for call in cluster.log if call.resource == "events"]
    assert asked and asked[0].at > 20, "not while it may be just starting"
