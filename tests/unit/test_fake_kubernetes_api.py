"""The fake API server answers as the real one does; each row says where the real one's behaviour is written down."""

from typing import Any

import pytest

from tests.fakes.kubernetes.access import ADMIN, service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.faults import Answer, ConnectionLost
from tests.fakes.kubernetes.samples import DEPLOYMENTS, PODS, SERVICES, autoscaler, deployment, patch, service
from tests.fakes.kubernetes.schema import canonical_quantity


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.create(service(epoch="1"))
    cluster.create(deployment())
    return cluster


def failure(answer: Answer) -> tuple[int, str, str]:
    assert answer.body["kind"] == "Status" and answer.body["code"] == answer.status
    return answer.status, answer.body.get("reason", ""), answer.body["message"]


NO_SUCH_PATH = (404, "NotFound", "the server could not find the requested resource")

# Each row: method, path, body, what is answered, where the real server says so (paths below k8s.io/kubernetes).
ERRORS: list[tuple[str, str, Any, tuple[int, str, str]]] = [
    # staging/src/k8s.io/apimachinery/pkg/api/errors: NewNotFound
    ("GET", f"{SERVICES}/x", None, (404, "NotFound", 'services "x" not found')),
    ("GET", f"{DEPLOYMENTS}/x", None, (404, "NotFound", 'deployments.apps "x" not found')),
    ("DELETE", f"{DEPLOYMENTS}/x", None, (404, "NotFound", 'deployments.apps "x" not found')),
    # … NewAlreadyExists
    ("POST", SERVICES, service(), (409, "AlreadyExists", 'services "web" already exists')),
    # admission plugin NamespaceLifecycle
    (
        "POST",
        "/api/v1/namespaces/nowhere/services",
        service(),
        (404, "NotFound", 'namespaces "nowhere" not found'),
    ),
    # apiserver/pkg/registry/rest: EnsureObjectNamespaceMatchesRequestNamespace
    (
        "POST",
        SERVICES,
        {**service(), "metadata": {"name": "y", "namespace": "other"}},
        (400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"),
    ),
    # Go's encoding/json through apiserver/pkg/endpoints/handlers: transformDecodeError
    (
        "POST",
        DEPLOYMENTS,
        deployment("green", replicas="3"),  # type: ignore[arg-type]
        (
            400,
            "BadRequest",
            'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into '
            "Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
    ),
    # pkg/apis/apps/validation: ValidateDeploymentSpec
    (
        "POST",
        DEPLOYMENTS,
        deployment("green", selector={"matchLabels": {"app": "other"}}),
        (
            422,
            "Invalid",
            'Deployment.apps "green" is invalid: spec.template.metadata.labels: Invalid value: '
            '{"app": "web", "slot": "green"}: `selector` does not match template `labels`',
        ),
    ),
    (
        "POST",
        DEPLOYMENTS,
        deployment("green", replicas=-1),
        (
            422,
            "Invalid",
            'Deployment.apps "green" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0',
        ),
    ),
    # apiserver/pkg/endpoints/handlers/patch.go: a subresource or verb that is not there
    ("GET", f"{DEPLOYMENTS}/blue/nothing", None, NO_SUCH_PATH),
    ("GET", "/apis/apps/v1/namespaces/default/x", None, NO_SUCH_PATH),
]


@pytest.mark.parametrize(("method", "path", "body", "wanted"), ERRORS)
def test_errors(cluster: Cluster, method: str, path: str, body: Any, wanted: tuple[int, str, str]) -> None:
    assert failure(cluster.request(method, path, body=body)) == wanted


def test_a_group_that_nobody_serves_is_answered_in_plain_text(cluster: Cluster) -> None:
    """apiextensions-apiserver delegates what no definition covers to the generic 404 of net/http."""
    answer = cluster.request("GET", "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (
        404,
        "404 page not found\n",
        "text/plain; charset=utf-8",
    )
    installed = Cluster(custom=["scaledobjects"])
    assert installed.request("GET", "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects").body["items"] == []


def test_a_failed_test_in_a_json_patch_is_422_and_says_nothing(cluster: Cluster) -> None:
    """endpoints/handlers/patch.go, applyJSPatch: NewGenericServerResponse(422, "", …); measured on 1.36."""
    before = cluster.get("services", "web")
    answer = patch(
        cluster,
        f"{SERVICES}/web",
        [
            {"op": "test", "path": "/metadata/annotations/epoch", "value": "2"},
            {"op": "replace", "path": "/spec/selector/slot", "value": "green"},
        ],
    )
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the server rejected our request due to an error in our request",
        "reason": "Invalid",
        "details": {},
        "code": 422,
    }
    assert cluster.get("services", "web") == before


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"op": "test", "path": "/metadata/annotations/none", "value": None}, 200),  # missing equals null
        ({"op": "test", "path": "/metadata/annotations/none", "value": "1"}, 422),
        ({"op": "test", "path": "/metadata/none/deep", "value": None}, 422),  # its parent is missing
        ({"op": "replace", "path": "/metadata/annotations/none", "value": "1"}, 422),
        ({"op": "remove", "path": "/metadata/annotations/none"}, 422),
        ({"op": "add", "path": "/metadata/annotations/none", "value": "1"}, 200),
        ({"op": "add", "path": "/metadata/labels/none", "value": "1"}, 422),  # there are no labels yet
        ({"op": "replace", "path": "/spec/ports/0/port", "value": 81}, 200),
        ({"op": "replace", "path": "/spec/ports/1/port", "value": 81}, 422),
        ({"op": "add", "path": "/spec/ports/0/port", "value": "81"}, 422),  # a type that does not fit
        ({"op": "add", "path": "/metadata/annotations/a~1b", "value": "1"}, 200),
        ({"op": "remove", "path": "/metadata/annotations/epoch"}, 200),
    ],
)
def test_operations_of_a_json_patch(cluster: Cluster, operation: dict[str, Any], status: int) -> None:
    """github.com/evanphx/json-patch v4, which the API server uses."""
    assert patch(cluster, f"{SERVICES}/web", [operation]).status == status


def test_the_last_annotation_takes_the_map_with_it(cluster: Cluster) -> None:
    """omitempty: so a later `add` below /metadata/annotations has no parent."""
    answer = patch(cluster, f"{SERVICES}/web", [{"op": "remove", "path": "/metadata/annotations/epoch"}])
    assert "annotations" not in answer.body["metadata"]
    again = [{"op": "add", "path": "/metadata/annotations/epoch", "value": "2"}]
    assert patch(cluster, f"{SERVICES}/web", again).status == 422


def test_optimistic_locking(cluster: Cluster) -> None:
    """registry/generic/registry/store.go, Update: OptimisticLockErrorMsg."""
    current = cluster.get("services", "web")
    stale = {"metadata": {"resourceVersion": "1", "annotations": {"epoch": "2"}}}
    wanted = (
        409,
        "Conflict",
        'Operation cannot be fulfilled on services "web": the object has been modified; '
        "please apply your changes to the latest version and try again",
    )
    for answer in (
        patch(cluster, f"{SERVICES}/web", stale, "merge"),
        cluster.request("PUT", f"{SERVICES}/web", body={**current, **stale}),
    ):
        assert failure(answer) == wanted
    fresh = {"metadata": {"resourceVersion": current["metadata"]["resourceVersion"], "annotations": {"epoch": "2"}}}
    assert patch(cluster, f"{SERVICES}/web", fresh, "merge").status == 200
    assert patch(cluster, f"{SERVICES}/web", fresh, "merge").status == 409


def test_a_write_of_the_same_is_none(cluster: Cluster) -> None:
    """storage/etcd3: an update that changes nothing keeps the resourceVersion."""
    before = cluster.store.version
    assert patch(cluster, f"{SERVICES}/web", {"metadata": {"annotations": {"epoch": "1"}}}, "merge").status == 200
    assert cluster.request("PUT", f"{SERVICES}/web", body=cluster.get("services", "web")).status == 200
    assert cluster.store.version == before


@pytest.mark.parametrize(
    ("change", "bumped"),
    [
        ({"spec": {"replicas": 4}}, True),
        ({"metadata": {"annotations": {"a": "1"}}}, True),  # they are copied to ReplicaSets
        ({"metadata": {"labels": {"a": "1"}}}, False),
        ({"status": {"replicas": 9}}, False),
    ],
)
def test_generation_of_a_deployment(cluster: Cluster, change: dict[str, Any], bumped: bool) -> None:
    """pkg/registry/apps/deployment/strategy.go, PrepareForUpdate: annotations bump it too, and status is dropped."""
    answer = patch(cluster, f"{DEPLOYMENTS}/blue", change, "merge")
    assert answer.body["metadata"]["generation"] == 1 + bumped
    assert answer.body["status"] == {}


def test_strict_validation_names_unknown_fields(cluster: Cluster) -> None:
    """endpoints/handlers/create.go and patch.go; by default a warning (KEP-2885)."""
    wrong = {**deployment("green"), "extra": 1}
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    said = 'unknown field "spec.template.spec.containers[0].imagePullPolice", unknown field "extra"'
    answer = cluster.request("POST", DEPLOYMENTS, {"fieldValidation": "Strict"}, body=wrong)
    assert failure(answer) == (
        400,
        "BadRequest",
        f'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: {said}',
    )
    refused = patch(cluster, f"{DEPLOYMENTS}/blue", {"extra": 1}, "merge", fieldValidation="Strict")
    assert failure(refused)[:2] == (422, "Invalid") and 'unknown field "extra"' in refused.body["message"]
    made = cluster.request("POST", DEPLOYMENTS, body=wrong)
    assert made.status == 201 and "extra" not in made.body
    assert made.headers["Warning"].startswith('299 - "unknown field \\"spec.template')


def test_dry_run_stores_nothing(cluster: Cluster) -> None:
    before = cluster.store.version
    made = cluster.request("POST", DEPLOYMENTS, {"dryRun": "All"}, body=deployment("green"))
    assert made.status == 201 and made.body["spec"]["revisionHistoryLimit"] == 10
    changed = patch(cluster, f"{DEPLOYMENTS}/blue", {"spec": {"replicas": 7}}, "merge", dryRun="All")
    assert changed.body["spec"]["replicas"] == 7
    assert cluster.request("DELETE", f"{DEPLOYMENTS}/blue", {"dryRun": "All"}).status == 200
    assert cluster.store.version == before
    assert cluster.request("DELETE", f"{DEPLOYMENTS}/blue", {"dryRun": "Some"}).status == 422


def test_strategic_merge(cluster: Cluster) -> None:
    """The types' patch strategies: containers and env by name, ports by containerPort; selectors are maps."""
    container = {
        "name": "web",
        "env": [{"name": "A", "value": "1"}],
        "ports": [{"containerPort": 3000, "name": "main"}, {"containerPort": 9000}],
    }
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    patch(cluster, f"{DEPLOYMENTS}/blue", body, "strategic")
    container["env"] = [{"name": "B", "value": "2"}, {"name": "A", "$patch": "delete"}]
    answer = patch(cluster, f"{DEPLOYMENTS}/blue", body, "strategic")
    (made,) = answer.body["spec"]["template"]["spec"]["containers"]
    assert made["image"] == "web:1" and made["env"] == [{"name": "B", "value": "2"}]
    assert [(port["containerPort"], port.get("name"), port["protocol"]) for port in made["ports"]] == [
        (3000, "main", "TCP"),
        (9000, None, "TCP"),
    ]
    # A merge patch replaces lists.
    answer = patch(cluster, f"{DEPLOYMENTS}/blue", {"spec": {"template": {"spec": {"containers": []}}}}, "merge")
    assert answer.status == 422 and "spec.template.spec.containers: Required value" in answer.body["message"]


def test_custom_resources_take_no_strategic_merge() -> None:
    cluster = Cluster(custom=["scaledobjects"])
    path = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects"
    thing = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "a"}, "spec": {"x": [1]}}
    assert cluster.request("POST", path, body=thing).status == 201
    assert patch(cluster, f"{path}/a", {"spec": {"x": [2]}}, "strategic").status == 415
    assert patch(cluster, f"{path}/a", {"spec": {"x": [2]}}, "merge").body["metadata"]["generation"] == 2


def test_scale_has_no_annotations_and_leaves_out_zero(cluster: Cluster) -> None:
    """autoscaling/v1 ScaleSpec.Replicas is omitempty: a JSON patch that replaces 0 has nothing to replace."""
    scale = cluster.request("GET", f"{DEPLOYMENTS}/blue/scale").body
    assert scale["spec"] == {"replicas": 3} and "annotations" not in scale["metadata"]
    assert patch(cluster, f"{DEPLOYMENTS}/blue/scale", {"spec": {"replicas": 0}}, "merge").body["spec"] == {}
    assert cluster.get("deployments", "blue")["spec"]["replicas"] == 0
    replace = [{"op": "replace", "path": "/spec/replicas", "value": 2}]
    assert patch(cluster, f"{DEPLOYMENTS}/blue/scale", replace).status == 422
    assert patch(cluster, f"{DEPLOYMENTS}/blue", replace).status == 200  # in the Deployment it is a pointer


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("slot=blue", {"blue"}),
        ("slot!=blue", {"green", "none"}),
        ("slot in (blue, green),app", {"blue", "green"}),
        ("slot notin (blue)", {"green", "none"}),
        ("!slot", {"none"}),
        ("slot==green", {"green"}),
    ],
)
def test_label_selectors(selector: str, names: set[str]) -> None:
    cluster = Cluster()
    for name, labels in (
        ("blue", {"slot": "blue", "app": "a"}),
        ("green", {"slot": "green", "app": "a"}),
        ("none", {}),
    ):
        metadata = {"name": name, "labels": labels}
        cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    path = "/api/v1/namespaces/default/configmaps"
    found = cluster.request("GET", path, {"labelSelector": selector}).body["items"]
    assert {each["metadata"]["name"] for each in found} == names
    assert cluster.request("GET", path, {"labelSelector": "a in b"}).status == 400
    named = cluster.request("GET", path, {"fieldSelector": "metadata.name=blue"}).body["items"]
    assert len(named) == 1
    assert cluster.request("GET", path, {"fieldSelector": "data.x=1"}).status == 400


def test_lists_in_chunks() -> None:
    cluster = Cluster()
    for index in range(5):
        cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{index}"}})
    path = "/api/v1/namespaces/default/configmaps"
    first = cluster.request("GET", path, {"limit": "2"}).body
    assert first["metadata"]["remainingItemCount"] == 3 and "kind" not in first["items"][0]
    rest = cluster.request("GET", path, {"continue": first["metadata"]["continue"]}).body
    assert [each["metadata"]["name"] for each in rest["items"]] == ["c2", "c3", "c4"]
    cluster.store.compact()
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}})
    cluster.store.compact()
    expired = cluster.request("GET", path, {"continue": first["metadata"]["continue"]})
    assert failure(expired)[:2] == (410, "Expired")


def test_a_watch_follows_its_selector_and_ends() -> None:
    """An object that leaves the selector is DELETED, with its old content and the new version (watch cache)."""
    cluster = Cluster()
    made = cluster.create(service(slot="blue"))
    patch(cluster, f"{SERVICES}/web", {"metadata": {"labels": {"a": "1"}}}, "merge")
    patch(cluster, f"{SERVICES}/web", {"metadata": {"labels": {"a": "2"}}}, "merge")
    params = {
        "watch": "1",
        "resourceVersion": made["metadata"]["resourceVersion"],
        "labelSelector": "a=1",
        "timeoutSeconds": "2",
        "allowWatchBookmarks": "true",
    }
    events = list(cluster.request("GET", SERVICES, params).body)
    assert [each["type"] for each in events] == ["ADDED", "DELETED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["labels"] == {"a": "1"}
    version = cluster.get("services", "web")["metadata"]["resourceVersion"]
    assert events[1]["object"]["metadata"]["resourceVersion"] == version
    assert events[2]["object"]["metadata"]["resourceVersion"] == str(cluster.store.version)
    initial = list(cluster.request("GET", SERVICES, {"watch": "1", "timeoutSeconds": "1"}).body)
    assert [each["type"] for each in initial] == ["ADDED"]


def test_a_watch_from_too_long_ago_is_gone() -> None:
    cluster = Cluster()
    made = cluster.create(service())
    cluster.create(service(name="other"))
    cluster.store.compact()
    params = {"watch": "1", "resourceVersion": made["metadata"]["resourceVersion"]}
    (event,) = cluster.request("GET", SERVICES, params).body
    assert event["type"] == "ERROR" and event["object"]["code"] == 410 and event["object"]["reason"] == "Expired"


def test_finalizers_hold_an_object_back(cluster: Cluster) -> None:
    patch(cluster, f"{SERVICES}/web", {"metadata": {"finalizers": ["ekiben.dev/x"]}}, "merge")
    held = cluster.request("DELETE", f"{SERVICES}/web")
    assert held.body["kind"] == "Service" and "deletionTimestamp" in held.body["metadata"]
    assert cluster.get("services", "web")
    patch(cluster, f"{SERVICES}/web", [{"op": "remove", "path": "/metadata/finalizers"}])
    assert cluster.request("GET", f"{SERVICES}/web").status == 404


def test_preconditions_of_a_deletion(cluster: Cluster) -> None:
    wrong = cluster.request("DELETE", f"{SERVICES}/web", body={"preconditions": {"uid": "x"}})
    assert failure(wrong)[:2] == (409, "Conflict") and "Precondition failed: UID" in wrong.body["message"]
    done = cluster.request("DELETE", f"{DEPLOYMENTS}/blue")
    assert done.body["status"] == "Success" and done.body["details"]["kind"] == "deployments"


def test_what_cannot_change_and_what_is_kept(cluster: Cluster) -> None:
    labels = {"matchLabels": {"more": "1"}}
    template = {"metadata": {"labels": {"more": "1"}}}
    answer = patch(cluster, f"{DEPLOYMENTS}/blue", {"spec": {"selector": labels, "template": template}}, "merge")
    assert failure(answer)[0] == 422 and "spec.selector: Invalid value" in answer.body["message"]
    assert answer.body["message"].endswith("field is immutable")
    moved = patch(cluster, f"{SERVICES}/web", {"spec": {"clusterIP": "10.0.0.1"}}, "merge")
    assert failure(moved)[0] == 422 and "may not change once set" in moved.body["message"]
    address = cluster.get("services", "web")["spec"]["clusterIP"]
    assert cluster.request("PUT", f"{SERVICES}/web", body=service("green")).body["spec"]["clusterIP"] == address


@pytest.mark.parametrize(
    ("given", "kept"),
    [("0.5", "500m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0", "0"), (2, "2"), ("1e3", "1k")],
)
def test_quantities_are_kept_in_canonical_form(given: Any, kept: str) -> None:
    """apimachinery/pkg/api/resource/quantity.go."""
    assert canonical_quantity(given) == kept


def test_the_pre_stop_sleep_must_end_before_the_grace_period() -> None:
    """Measured on 1.36; pkg/apis/core/validation, validateSleepAction."""
    cluster = Cluster()
    thing = deployment()
    thing["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    thing["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
    answer = cluster.request("POST", DEPLOYMENTS, body=thing)
    assert "less than terminationGracePeriodSeconds (5)" in failure(answer)[2]


def test_access_by_roles_of_the_cluster() -> None:
    """endpoints/handlers/responsewriters/errors.go, forbiddenMessage; RBAC's escalation check."""
    cluster = Cluster()
    cluster.tokens = {"root": ADMIN, "deployer": service_account("default", "ekiben")}
    cluster.create(service())
    cluster.create(deployment())
    rbac, who = "rbac.authorization.k8s.io", {"Authorization": "Bearer deployer"}
    rules = [
        {"apiGroups": [""], "resources": ["services"], "resourceNames": ["web"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/proxy"], "resourceNames": ["p:3000"], "verbs": ["get"]},
        {"apiGroups": [rbac], "resources": ["roles"], "verbs": ["create"]},
    ]
    role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": rules}
    cluster.create(role)
    cluster.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "b"},
            "roleRef": {"kind": "Role", "name": "r", "apiGroup": rbac},
            "subjects": [{"kind": "ServiceAccount", "name": "ekiben", "namespace": "default"}],
        }
    )
    assert cluster.request("GET", f"{SERVICES}/web").status == 401
    assert cluster.request("GET", f"{SERVICES}/web", headers=who).status == 200
    user = "system:serviceaccount:default:ekiben"
    for method, path, prefix, verb, resource, group in (
        ("PATCH", f"{SERVICES}/web", 'services "web"', "patch", "services", ""),
        ("GET", SERVICES, "services", "list", "services", ""),
        ("PATCH", f"{DEPLOYMENTS}/blue/scale", 'deployments.apps "blue"', "patch", "deployments/scale", "apps"),
        ("GET", f"{PODS}/q:3000/proxy/metrics", 'pods "q:3000"', "get", "pods/proxy", ""),
        ("DELETE", SERVICES, "services", "deletecollection", "services", ""),
    ):
        answer = cluster.request(method, path, headers=who, body=[])
        assert failure(answer) == (
            403,
            "Forbidden",
            f'{prefix} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{group}" '
            'in the namespace "default"',
        )
    assert cluster.request("GET", "/api/v1/nodes", headers=who).body["message"].endswith("at the cluster scope")
    assert cluster.request("GET", f"{PODS}/p:3000/proxy/metrics", headers=who).status == 404
    more = {**role, "metadata": {"name": "more"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
    granted = cluster.request("POST", f"/apis/{rbac}/v1/namespaces/default/roles", headers=who, body=more)
    assert (
        failure(granted)[0] == 403
        and "is attempting to grant RBAC permissions not currently held" in (granted.body["message"])
    )
    review = {
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "services", "name": "web"}}
    }
    asked = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert cluster.request("POST", asked, headers=who, body=review).body["status"]["allowed"] is True
    review["spec"]["resourceAttributes"]["verb"] = "patch"
    assert cluster.request("POST", asked, headers=who, body=review).body["status"]["allowed"] is False


def test_faults(cluster: Cluster) -> None:
    """429 comes in plain text: apiserver/pkg/server/filters/priority-and-fairness.go, tooManyRequests."""
    cluster.fail("get services", status=429, retry_after=1)
    limited = cluster.request("GET", f"{SERVICES}/web")
    assert (limited.status, limited.headers["Retry-After"], limited.body[:17]) == (429, "1", "Too many requests")
    cluster.fail("patch services$|patch services ", status=500, skip=1)
    to_green = {"spec": {"selector": {"slot": "green"}}}
    assert patch(cluster, f"{SERVICES}/web", to_green, "merge").status == 200
    assert patch(cluster, f"{SERVICES}/web", to_green, "merge").status == 500
    cluster.fail("patch services", reset=True)
    version = cluster.store.version
    with pytest.raises(ConnectionLost):
        patch(cluster, f"{SERVICES}/web", {"spec": {"selector": {"slot": "blue"}}}, "merge")
    assert cluster.store.version == version
    cluster.fail("patch services", lost=True)
    with pytest.raises(ConnectionLost) as lost:
        patch(cluster, f"{SERVICES}/web", {"spec": {"selector": {"slot": "blue"}}}, "merge")
    assert lost.value.committed and cluster.get("services", "web")["spec"]["selector"]["slot"] == "blue"
    cluster.fail("watch services", drop_after=1)
    events = cluster.request("GET", SERVICES, {"watch": "1"}).body
    assert next(events)["type"] == "ADDED"
    with pytest.raises(ConnectionLost):
        next(events)
    cluster.fail("watch services", gone=True)
    assert next(cluster.request("GET", SERVICES, {"watch": "1"}).body)["object"]["code"] == 410
    cluster.fail("get services", delay=3)
    before = cluster.clock.seconds
    assert cluster.request("GET", f"{SERVICES}/web").status == 200 and cluster.clock.seconds == before + 3
    assert cluster.counts()["patch services"] == 4 and cluster.log[0].path == f"{SERVICES}/web"


def test_tokens_of_accounts() -> None:
    cluster = Cluster()
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"

    def asked(seconds: int) -> Answer:
        spec = {"expirationSeconds": seconds}
        return cluster.request(
            "POST", path, body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        )

    assert "may not specify a duration less than 10 minutes" in asked(60).body["message"]
    token = {"Authorization": f"Bearer {asked(600).body['status']['token']}"}
    refused = cluster.request("GET", "/api/v1/namespaces/default/pods", headers=token)
    assert (refused.status, "system:serviceaccount:default:default" in refused.body["message"]) == (403, True)
    assert cluster.request("GET", "/api/v1/namespaces/default/pods").status == 200, "everybody else is as before"
    cluster.tokens = {"root": ADMIN}
    assert cluster.request("GET", "/api/v1/namespaces/default/pods", headers=token).status == 403
    cluster.advance(600)
    assert cluster.request("GET", "/api/v1/namespaces/default/pods", headers=token).status == 401, "it has expired"


def test_what_go_writes_out_of_a_status_that_nobody_has_written(cluster: Cluster) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "blue"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    made = [cluster.create(each) for each in (deployment("new"), autoscaler(), budget)]
    counts = dict.fromkeys(("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"), 0)
    assert [each["status"] for each in made] == [{}, {"desiredReplicas": 0, "currentMetrics": None}, counts]


def test_addresses_that_the_cluster_gives_are_no_managers(cluster: Cluster) -> None:
    (entry,) = cluster.create(service(name="new"))["metadata"]["managedFields"]
    assert "f:ports" in entry["fieldsV1"]["f:spec"]
    assert not {"f:clusterIP", "f:clusterIPs", "f:ipFamilies"} & entry["fieldsV1"]["f:spec"].keys()


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ([{"op": "nop", "path": "/spec"}], 400, "unsupported operation"),
        ([{"op": "test", "value": 1}], 400, "operation missing path field"),
        ([{"op": "add", "path": "/metadata/annotations/a"}], 400, "missing value field"),
        ({"op": "test"}, 400, "error decoding patch: json: cannot unmarshal object"),
        ([{"op": "replace", "path": "/metadata/namespace", "value": "x"}], 400, "namespace of the provided object"),
        ([{"op": "replace", "path": "/metadata/name", "value": "x"}], 400, "does not match the name on the URL"),
        ([{"op": "test", "path": "spec", "value": 1}], 422, "the server rejected our request"),
    ],
)  # fmt: skip
def test_what_is_no_patch_is_another_refusal_than_one_that_does_not_apply(
    cluster: Cluster, body: Any, code: int, said: str
) -> None:
    answer = patch(cluster, f"{SERVICES}/web", body)
    assert answer.status == code and said in answer.body["message"]
