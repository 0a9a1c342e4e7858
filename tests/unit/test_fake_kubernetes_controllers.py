"""The fake's controllers on the virtual clock: pkg/controller/{deployment,replicaset,endpointslice,podautoscaler}."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.samples import (
    DEPLOYMENTS,
    PODS,
    SERVICES,
    apply,
    autoscaler,
    deployment,
    patch,
    service,
)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def condition(thing: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in thing["status"]["conditions"] if each["type"] == kind)
    return found


def endpoints(cluster: Cluster, service: str = "web") -> list[dict[str, Any]]:
    (piece,) = cluster.objects("endpointslices", labels=f"kubernetes.io/service-name={service}")
    return list(piece["endpoints"] or [])


def events(cluster: Cluster) -> dict[str, str]:
    return {each["reason"]: each["message"] for each in cluster.objects("events")}


def test_nothing_happens_before_time_passes(cluster: Cluster) -> None:
    apply(cluster, DEPLOYMENTS, deployment())
    assert cluster.get("deployments", "blue")["status"] == {} and not cluster.objects("pods")
    cluster.advance(0)
    status = cluster.get("deployments", "blue")["status"]
    assert status["observedGeneration"] == 1 and status["unavailableReplicas"] == 3
    assert "readyReplicas" not in status  # omitempty
    cluster.advance(2)
    status = cluster.get("deployments", "blue")["status"]
    assert (status["updatedReplicas"], status["availableReplicas"], "unavailableReplicas" in status) == (3, 3, False)


def test_a_rolling_update_never_has_too_few_or_too_many(cluster: Cluster) -> None:
    """rolling.go: within maxSurge and maxUnavailable at each moment."""
    apply(cluster, DEPLOYMENTS, deployment(replicas=4))
    cluster.advance(5)
    apply(cluster, DEPLOYMENTS, deployment(replicas=4, image="web:2"))
    assert cluster.get("deployments", "blue")["status"]["observedGeneration"] == 1
    for _ in range(100):
        cluster.advance(0.1)
        pods = [p for p in cluster.objects("pods") if "deletionTimestamp" not in p["metadata"]]
        ready = [
            p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"]["conditions"])
        ]
        assert len(pods) <= 5 and len(ready) >= 3
    done = cluster.get("deployments", "blue")
    assert done["status"]["updatedReplicas"] == done["status"]["replicas"] == 4
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    assert {p["spec"]["containers"][0]["image"] for p in cluster.objects("pods")} == {"web:2"}
    sizes = {each["metadata"]["name"]: each["spec"]["replicas"] for each in cluster.objects("replicasets")}
    assert sorted(sizes.values()) == [0, 4]
    # Back again: the old ReplicaSet is taken up, with a new revision.
    apply(cluster, DEPLOYMENTS, deployment(replicas=4))
    cluster.advance(30)
    assert len(cluster.objects("replicasets")) == 2
    assert cluster.get("deployments", "blue")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_recreate_waits_until_the_old_pods_have_gone(cluster: Cluster) -> None:
    apply(cluster, DEPLOYMENTS, deployment(strategy={"type": "Recreate"}))
    cluster.advance(5)
    apply(cluster, DEPLOYMENTS, deployment(image="web:2", strategy={"type": "Recreate"}))
    for _ in range(60):
        cluster.advance(0.1)
        assert len({p["spec"]["containers"][0]["image"] for p in cluster.objects("pods")}) < 2
    assert cluster.get("deployments", "blue")["status"]["availableReplicas"] == 3


def test_progress_deadline(cluster: Cluster) -> None:
    cluster.kubelet.behave("web:", never_ready=True)
    apply(cluster, DEPLOYMENTS, deployment(progressDeadlineSeconds=30))
    cluster.advance(29)
    assert condition(cluster.get("deployments", "blue"), "Progressing")["status"] == "True"
    cluster.advance(5)
    failed = condition(cluster.get("deployments", "blue"), "Progressing")
    assert (failed["status"], failed["reason"]) == ("False", "ProgressDeadlineExceeded")


def test_min_ready_seconds(cluster: Cluster) -> None:
    apply(cluster, DEPLOYMENTS, deployment(minReadySeconds=10))
    cluster.advance(5)
    status = cluster.get("deployments", "blue")["status"]
    assert status["readyReplicas"] == 3 and "availableReplicas" not in status
    cluster.advance(10)
    assert cluster.get("deployments", "blue")["status"]["availableReplicas"] == 3


def test_an_image_that_cannot_be_pulled(cluster: Cluster) -> None:
    cluster.kubelet.behave("web:2", pull_error="not found")
    apply(cluster, DEPLOYMENTS, deployment(image="web:2"))
    reasons = set()
    for _ in range(40):
        cluster.advance(0.5)
        for pod in cluster.objects("pods"):
            waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
            reasons.add(waiting["reason"])
    assert reasons == {"ContainerCreating", "ErrImagePull", "ImagePullBackOff"}
    assert "web:2" in events(cluster)["BackOff"] and "status" in cluster.get("deployments", "blue")
    name = cluster.objects("pods")[0]["metadata"]["name"]
    log = cluster.request("GET", f"{PODS}/{name}/log")
    assert log.status == 400 and "is waiting to start" in log.body["message"]
    cluster.kubelet.behave("web:2")
    cluster.advance(5)
    assert cluster.get("deployments", "blue")["status"]["availableReplicas"] == 3


def test_a_crash_loop_with_its_log(cluster: Cluster) -> None:
    cluster.kubelet.behave(
        "", crash_after_s=0.5, ready_s=9, log="one\ntwo\nModuleNotFoundError: no module\n", exit_code=3
    )
    apply(cluster, DEPLOYMENTS, deployment(replicas=1))
    cluster.advance(2)
    (pod,) = cluster.objects("pods")
    (container,) = pod["status"]["containerStatuses"]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff" and container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 3
    path = f"{PODS}/{pod['metadata']['name']}/log"
    assert (
        cluster.request("GET", path, {"previous": "true", "tailLines": "1"}).body == "ModuleNotFoundError: no module\n"
    )
    assert cluster.request("GET", path).headers["Content-Type"] == "text/plain"
    cluster.advance(60)
    assert cluster.objects("pods")[0]["status"]["containerStatuses"][0]["restartCount"] > 2
    assert "availableReplicas" not in cluster.get("deployments", "blue")["status"]


def test_no_node_takes_it(cluster: Cluster) -> None:
    cluster.kubelet.behave("", unschedulable="1 Insufficient nvidia.com/gpu")
    apply(cluster, DEPLOYMENTS, deployment(replicas=1))
    cluster.advance(1)
    placed = condition(cluster.objects("pods")[0], "PodScheduled")
    assert (placed["status"], placed["reason"]) == ("False", "Unschedulable")
    assert events(cluster)["FailedScheduling"].startswith("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    cluster.kubelet.behave("")
    cluster.advance(3)
    assert cluster.get("deployments", "blue")["status"]["availableReplicas"] == 1


def test_quota_and_service_account(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    made = cluster.create(quota)
    apply(cluster, DEPLOYMENTS, deployment())
    cluster.advance(5)
    blue = cluster.get("deployments", "blue")
    failed = condition(blue, "ReplicaFailure")
    assert failed["reason"] == "FailedCreate" and blue["status"]["availableReplicas"] == 2
    assert failed["message"].endswith(
        "is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"
    )
    assert events(cluster)["FailedCreate"] == f"Error creating: {failed['message']}"
    cluster.writer.delete(cluster.resource("resourcequotas"), made, {})
    cluster.advance(20)
    assert "ReplicaFailure" not in str(cluster.get("deployments", "blue")["status"])
    lonely = deployment("green")
    lonely["spec"]["template"]["spec"]["serviceAccountName"] = "ghost"
    apply(cluster, DEPLOYMENTS, lonely)
    cluster.advance(1)
    message = condition(cluster.get("deployments", "green"), "ReplicaFailure")["message"]
    assert message.endswith('error looking up service account default/ghost: serviceaccount "ghost" not found')


def test_a_quota_of_which_nobody_knows_what_is_used_admits_nothing(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    cluster.create(quota)
    spec = {"containers": [{"name": "web", "image": "web:1"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    early = cluster.request("POST", PODS, body=pod)
    assert (early.status, early.body["message"]) == (
        403, 'pods "one" is forbidden: status unknown for quota: few, resources: pods',
    )  # fmt: skip
    cluster.advance(0)
    assert cluster.get("resourcequotas", "few")["status"] == {"hard": {"pods": "2"}, "used": {"pods": "0"}}
    assert cluster.request("POST", PODS, body=pod).status == 201
    cluster.advance(0)
    assert cluster.get("resourcequotas", "few")["status"]["used"] == {"pods": "1"}


def test_an_image_that_is_never_pulled(cluster: Cluster) -> None:
    cluster.kubelet.behave("", pull_error="connection refused")
    wanted = deployment(replicas=1)
    wanted["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    apply(cluster, DEPLOYMENTS, wanted)
    cluster.advance(60)
    waiting = cluster.objects("pods")[0]["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {
        "reason": "ErrImageNeverPull",
        "message": 'Container image "web:1" is not present with pull policy of Never',
    }


def test_the_restricted_profile(cluster: Cluster) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    patch(cluster, "/api/v1/namespaces/default", {"metadata": {"labels": label}}, "merge")
    apply(cluster, DEPLOYMENTS, deployment(replicas=1))
    cluster.advance(1)
    message = condition(cluster.get("deployments", "blue"), "ReplicaFailure")["message"]
    assert (
        'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "web" must' in message
    )


def test_endpoints_follow_the_selector_and_the_pods(cluster: Cluster) -> None:
    cluster.create(service())
    cluster.advance(0)
    (empty,) = cluster.objects("endpointslices")
    assert empty["endpoints"] is None and empty["ports"] is None
    for name in ("blue", "green"):
        apply(cluster, DEPLOYMENTS, deployment(name, replicas=2))
    cluster.advance(1.5)
    assert [each["conditions"]["ready"] for each in endpoints(cluster)] == [False, False]
    cluster.advance(1)
    assert [each["conditions"]["ready"] for each in endpoints(cluster)] == [True, True]
    assert cluster.objects("endpointslices")[0]["ports"] == [{"name": "", "port": 3000, "protocol": "TCP"}]
    cluster.controllers.endpoints.lag = 0.25
    patch(cluster, f"{SERVICES}/web", {"spec": {"selector": {"slot": "green"}}}, "merge")
    cluster.advance(0.1)
    assert {each["targetRef"]["name"][:4] for each in endpoints(cluster)} == {"blue"}
    cluster.advance(0.2)
    assert {each["targetRef"]["name"][:5] for each in endpoints(cluster)} == {"green"}
    cluster.kubelet.set_ready(endpoints(cluster)[0]["targetRef"]["name"], False)
    cluster.advance(1)
    assert [each["conditions"]["ready"] for each in endpoints(cluster)] == [False, True]
    cluster.request("DELETE", f"{SERVICES}/web")
    cluster.advance(1)
    assert cluster.objects("endpointslices") == []


def test_termination_takes_the_pre_stop_sleep(cluster: Cluster) -> None:
    stopped: list[float] = []
    cluster.kubelet.behave(
        "", backend=lambda pod: "http://x", stopped=lambda pod: stopped.append(cluster.clock.seconds)
    )
    thing = deployment(replicas=1)
    thing["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
    cluster.create(service())
    apply(cluster, DEPLOYMENTS, thing)
    cluster.advance(10)
    patch(cluster, f"{DEPLOYMENTS}/blue/scale", {"spec": {"replicas": 0}}, "merge")
    cluster.advance(1)
    assert endpoints(cluster)[0]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    assert cluster.get("deployments", "blue")["status"]["terminatingReplicas"] == 1
    cluster.advance(3)
    assert not stopped and cluster.objects("pods")
    cluster.advance(2)
    assert stopped == [15.0] and not cluster.objects("pods")


def test_deletion_takes_what_it_owns(cluster: Cluster) -> None:
    for name, policy, left in (("blue", "Background", 0), ("green", "Foreground", 0), ("red", "Orphan", 1)):
        apply(cluster, DEPLOYMENTS, deployment(name))
        cluster.advance(5)
        cluster.request("DELETE", f"{DEPLOYMENTS}/{name}", body={"propagationPolicy": policy})
        assert (policy == "Background") is (cluster.request("GET", f"{DEPLOYMENTS}/{name}").status == 404)
        cluster.advance(40)
        assert cluster.request("GET", f"{DEPLOYMENTS}/{name}").status == 404
        assert len(cluster.objects("replicasets")) == left and len(cluster.objects("pods")) == 3 * left


def test_a_namespace_ends_with_all_in_it(cluster: Cluster) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "own"}})
    cluster.create(deployment(), "own")
    cluster.advance(5)
    cluster.request("DELETE", "/api/v1/namespaces/own")
    late = cluster.request("POST", "/api/v1/namespaces/own/services", body=service())
    assert late.status == 403 and "because it is being terminated" in late.body["message"]
    cluster.advance(60)
    assert cluster.request("GET", "/api/v1/namespaces/own").status == 404
    assert not cluster.objects("pods", None) and not cluster.objects("replicasets", None)


def test_the_autoscaler(cluster: Cluster) -> None:
    """horizontal.go: ceil(current x ratio) within limits, +100 % or 4 pods per 15 s, down after 300 s, off at 0."""
    apply(cluster, DEPLOYMENTS, deployment(replicas=1))
    cluster.create(autoscaler(least=2, most=10))

    def size() -> int:
        return int(cluster.get("deployments", "blue")["spec"]["replicas"])

    def active() -> str:
        return str(condition(cluster.get("horizontalpodautoscalers", "blue"), "ScalingActive")["reason"])

    cluster.advance(1)
    assert size() == 2  # the minimum needs no metric
    cluster.advance(20)
    assert active() == "FailedGetResourceMetric" and size() == 2
    cluster.controllers.autoscaler.metrics["blue"] = 300.0
    sizes = []
    for _ in range(3):
        cluster.advance(15)
        sizes.append(size())
    assert sizes == [6, 10, 10] and active() == "ValidMetricFound"
    cluster.controllers.autoscaler.metrics["blue"] = 52.0
    cluster.advance(400)
    assert size() == 10  # within the tolerance
    cluster.controllers.autoscaler.metrics["blue"] = 10.0
    cluster.advance(250)
    assert size() == 10  # the highest recommendation of 300 s holds
    cluster.advance(100)
    assert size() == 2
    patch(cluster, f"{DEPLOYMENTS}/blue/scale", {"spec": {"replicas": 0}}, "merge")
    cluster.advance(60)
    assert size() == 0 and active() == "ScalingDisabled"


def test_proxying_without_sockets(cluster: Cluster) -> None:
    asked = []

    def backend(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked.append((method, path, body))
        return 200, {"Content-Type": "text/plain"}, b"up"

    cluster.create(service())
    apply(cluster, DEPLOYMENTS, deployment(replicas=1))
    new = cluster.request("GET", f"{SERVICES}/web:80/proxy/metrics")
    assert (new.status, new.body["message"]) == (404, 'endpoints "web" not found')
    cluster.advance(0)
    nobody = cluster.request("GET", f"{SERVICES}/web:80/proxy/metrics")
    assert nobody.status == 503 and nobody.body["message"] == 'no endpoints available for service "web"'
    cluster.kubelet.behave("", backend=lambda pod: backend)
    apply(cluster, DEPLOYMENTS, deployment(replicas=1, image="web:2"))
    cluster.advance(10)
    (pod,) = cluster.objects("pods")
    path = f"{PODS}/{pod['metadata']['name']}:3000/proxy/metrics"
    assert cluster.request("GET", path, {"a": "b c"}).body == b"up"
    assert cluster.request("POST", f"{SERVICES}/web:80/proxy/predict", body=b"{}").body == b"up"
    assert asked == [("GET", "/metrics?a=b+c", b""), ("POST", "/predict", b"{}")]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_was_done_the_controllers_come_to_rest_and_the_rollout_completes(data: st.DataObject) -> None:
    cluster = Cluster(seed=data.draw(st.integers(0, 9)))
    cluster.kubelet.behave("web:bad", pull_error="not found")
    cluster.kubelet.behave("web:crash", crash_after_s=1, ready_s=0.5)
    path = f"{DEPLOYMENTS}/blue"
    rolling = {"maxSurge": data.draw(st.sampled_from([0, 1, "50%"])), "maxUnavailable": 1}
    by_roll = {"type": "RollingUpdate", "rollingUpdate": rolling}
    strategy = data.draw(st.sampled_from([{"type": "Recreate"}, by_roll]))
    apply(cluster, DEPLOYMENTS, deployment(replicas=data.draw(st.integers(0, 5)), strategy=strategy))
    for _ in range(data.draw(st.integers(1, 8))):
        match data.draw(st.sampled_from(["scale", "image", "pause", "delete", "crash"])):
            case "scale":
                size = {"spec": {"replicas": data.draw(st.integers(0, 6))}}
                assert patch(cluster, f"{path}/scale", size, "merge").status == 200
            case "image":
                image = data.draw(st.sampled_from(["web:1", "web:2", "web:bad", "web:crash"]))
                thing = deployment(replicas=None, image=image, strategy=strategy)
                assert apply(cluster, DEPLOYMENTS, thing, force="true").status == 200
            case "pause":
                patch(cluster, path, {"spec": {"paused": data.draw(st.booleans())}}, "merge")
            case "delete" if cluster.objects("pods"):
                name = data.draw(st.sampled_from(cluster.objects("pods")))["metadata"]["name"]
                assert cluster.request("DELETE", f"{PODS}/{name}").status == 200
            case "crash":
                running = [pod for pod in cluster.objects("pods") if pod["status"]["phase"] == "Running"]
                for pod in running[:1]:
                    cluster.kubelet.crash(pod["metadata"]["name"])
        cluster.advance(data.draw(st.sampled_from([0, 0.3, 2, 20])))
    apply(cluster, DEPLOYMENTS, deployment(replicas=None, image="web:9", strategy=strategy), force="true")
    patch(cluster, path, {"spec": {"paused": False}}, "merge")
    cluster.advance(600)
    blue = cluster.get("deployments", "blue")
    wanted, status = blue["spec"]["replicas"], blue["status"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    assert counts == {wanted} and status["observedGeneration"] == blue["metadata"]["generation"]
    assert len(cluster.objects("pods")) == wanted
