"""Server-side apply on the fake: sigs.k8s.io/structured-merge-diff and apimachinery/pkg/util/managedfields."""

from typing import Any

import pytest

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.samples import DEPLOYMENTS, SERVICES, apply, autoscaler, deployment, patch, service


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def owners(thing: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(each["manager"], each["operation"]): each["fieldsV1"] for each in thing["metadata"]["managedFields"]}


def selector(cluster: Cluster) -> str:
    return str(cluster.get("services", "web")["spec"]["selector"]["slot"])


def switch(cluster: Cluster, manager: str = "switch") -> None:
    body = [
        {"op": "test", "path": "/metadata/annotations/epoch", "value": "1"},
        {"op": "replace", "path": "/metadata/annotations/epoch", "value": "2"},
        {"op": "replace", "path": "/spec/selector/slot", "value": "green"},
    ]
    assert patch(cluster, f"{SERVICES}/web", body, fieldManager=manager).status == 200


def test_create_by_apply(cluster: Cluster) -> None:
    made = apply(cluster, SERVICES, service(epoch="1"))
    assert made.status == 201 and apply(cluster, SERVICES, service(epoch="1")).status == 200
    port = {".": {}, "f:port": {}, "f:targetPort": {}}
    assert owners(made.body) == {
        ("ekiben", "Apply"): {
            "f:metadata": {"f:annotations": {"f:epoch": {}}},
            "f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': port}, "f:selector": {}},
        }
    }


def test_applying_the_same_again_is_no_write(cluster: Cluster) -> None:
    """Not even a later time in managedFields: fieldmanager/equality.go."""
    apply(cluster, DEPLOYMENTS, deployment())
    version = cluster.store.version
    cluster.clock.seconds += 100
    assert apply(cluster, DEPLOYMENTS, deployment()).status == 200
    assert cluster.store.version == version


@pytest.mark.parametrize("manager", ["switch", "ekiben"])
def test_after_a_switch_the_manifest_conflicts_and_force_flips_the_traffic_back(cluster: Cluster, manager: str) -> None:
    """The trap of blue-green by selector: whoever patches takes the field over, also under the applier's own name, for
    Apply and Update are managers of their own."""
    apply(cluster, SERVICES, service(epoch="1"))
    switch(cluster, manager)
    refused = apply(cluster, SERVICES, service(epoch="1"))
    assert refused.status == 409 and refused.body["reason"] == "Conflict"
    assert refused.body["message"] == (
        f'Apply failed with 2 conflicts: conflicts with "{manager}" using v1:\n'
        "- .metadata.annotations.epoch\n- .spec.selector"
    )
    assert refused.body["details"]["causes"][1] == {
        "reason": "FieldManagerConflict",
        "message": f'conflict with "{manager}" using v1',
        "field": ".spec.selector",
    }
    assert selector(cluster) == "green"
    assert apply(cluster, SERVICES, service(epoch="1"), force="true").status == 200
    assert selector(cluster) == "blue"
    assert cluster.get("services", "web")["metadata"]["annotations"] == {"epoch": "1"}


def test_what_is_left_out_stays_where_another_owns_it(cluster: Cluster) -> None:
    """Created once by POST, and then applied without selector and epoch: nobody but the switch touches them."""
    cluster.request("POST", SERVICES, {"fieldManager": "creator"}, body=service(epoch="1"))
    manifest = service()
    del manifest["spec"]["selector"]
    assert apply(cluster, SERVICES, manifest, force="true").status == 200
    switch(cluster)
    assert apply(cluster, SERVICES, manifest).status == 200
    assert selector(cluster) == "green"


def test_leaving_out_what_only_you_applied_removes_it(cluster: Cluster) -> None:
    """So the selector that was applied once and is then left out is gone: never apply it in the first place."""
    apply(cluster, SERVICES, service(epoch="1"))
    manifest = service()
    del manifest["spec"]["selector"]
    made = apply(cluster, SERVICES, manifest).body
    assert "selector" not in made["spec"] and "annotations" not in made["metadata"]


def test_an_item_of_a_list_goes_with_its_last_owner(cluster: Cluster) -> None:
    both = deployment()
    container = both["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    apply(cluster, DEPLOYMENTS, both, "first")
    other = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "blue"},
        "spec": {
            "template": {"spec": {"containers": [{"name": "web", "env": [{"name": "B", "value": "2"}]}]}},
        },
    }
    apply(cluster, DEPLOYMENTS, other, "second")
    del container["env"]
    left = apply(cluster, DEPLOYMENTS, both, "first").body["spec"]["template"]["spec"]["containers"][0]
    assert left["env"] == [{"name": "B", "value": "2"}] and left["image"] == "web:1"
    other["spec"] = {}
    left = apply(cluster, DEPLOYMENTS, other, "second").body["spec"]["template"]["spec"]["containers"][0]
    assert "env" not in left


def test_an_equal_value_is_shared_and_another_conflicts(cluster: Cluster) -> None:
    apply(cluster, DEPLOYMENTS, deployment(), "first")
    assert apply(cluster, DEPLOYMENTS, deployment(), "second").status == 200
    refused = apply(cluster, DEPLOYMENTS, deployment(image="web:2"), "first")
    assert refused.body["message"] == (
        'Apply failed with 1 conflict: conflict with "second": .spec.template.spec.containers[name="web"].image'
    )
    taken = apply(cluster, DEPLOYMENTS, deployment(image="web:2"), "first", force="true").body
    container = owners(taken)[("second", "Apply")]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert "f:image" not in container['k:{"name":"web"}']


def test_the_autoscaler_takes_the_replicas_over(cluster: Cluster) -> None:
    """After it has scaled, an apply that names replicas conflicts; one that leaves them out does not reset them."""
    apply(cluster, DEPLOYMENTS, deployment(replicas=2))
    cluster.create(autoscaler())
    cluster.controllers.autoscaler.metrics["blue"] = 100.0
    cluster.advance(60)
    assert cluster.get("deployments", "blue")["spec"]["replicas"] > 2
    refused = apply(cluster, DEPLOYMENTS, deployment(replicas=2))
    assert refused.body["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kube-controller-manager" with subresource "scale" using apps/v1',
            "field": ".spec.replicas",
        }
    ]
    size = cluster.get("deployments", "blue")["spec"]["replicas"]
    assert apply(cluster, DEPLOYMENTS, deployment(replicas=None)).body["spec"]["replicas"] == size


def test_the_first_apply_over_a_client_created_object(cluster: Cluster) -> None:
    """Its creator owns all that it wrote, defaults included, as an Update."""
    cluster.request("POST", DEPLOYMENTS, {}, {"User-Agent": "kubectl/v1.33"}, deployment())
    created = owners(cluster.get("deployments", "blue"))[("kubectl", "Update")]["f:spec"]
    assert {"f:replicas", "f:revisionHistoryLimit"} <= created.keys() and "." not in created
    refused = apply(cluster, DEPLOYMENTS, deployment(replicas=5))
    assert 'conflict with "kubectl" using apps/v1: .spec.replicas' in refused.body["message"]
    assert apply(cluster, DEPLOYMENTS, deployment(replicas=3)).status == 200


def test_what_is_no_valid_configuration(cluster: Cluster) -> None:
    wrong = deployment()
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    answer = apply(cluster, DEPLOYMENTS, wrong)
    assert answer.status == 500 and "reason" not in answer.body
    assert answer.body["message"] == (
        "failed to create typed patch object (default/blue; apps/v1, Kind=Deployment): "
        '.spec.template.spec.containers[name="web"].imagePullPolice: field not declared in schema'
    )
    twice = deployment()
    twice["spec"]["template"]["spec"]["containers"] *= 2
    assert 'duplicate entries for key [name="web"]' in apply(cluster, DEPLOYMENTS, twice).body["message"]
    assert apply(cluster, DEPLOYMENTS, deployment(), manager="").status == 422
    assert apply(cluster, DEPLOYMENTS, {**deployment(), "kind": "Service"}).status == 400
    stale = {**deployment(), "metadata": {"name": "blue", "resourceVersion": "1"}}
    apply(cluster, DEPLOYMENTS, deployment())
    assert apply(cluster, DEPLOYMENTS, stale).status == 409


def test_dry_run(cluster: Cluster) -> None:
    assert apply(cluster, DEPLOYMENTS, deployment(), dryRun="All").status == 201
    assert cluster.objects("deployments") == []


def test_yaml_is_taken(cluster: Cluster) -> None:
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: b\n"
    path, headers = "/api/v1/namespaces/default/configmaps/c", {"Content-Type": "application/apply-patch+yaml"}
    assert cluster.request("PATCH", path, {"fieldManager": "m"}, headers, body).status == 201


def test_status_is_not_applied_through_the_main_path(cluster: Cluster) -> None:
    made = apply(cluster, DEPLOYMENTS, {**deployment(), "status": {"replicas": 9}})
    assert made.body["status"] == {} and "f:status" not in owners(made.body)[("ekiben", "Apply")]


def test_a_default_that_nobody_owns_stays_in_the_way(cluster: Cluster) -> None:
    """From RollingUpdate by default to Recreate: rollingUpdate was filled in and is no applier's to remove
    (kubernetes/kubernetes#24198); a null in a merge patch removes it."""
    apply(cluster, DEPLOYMENTS, deployment())
    answer = apply(cluster, DEPLOYMENTS, deployment(strategy={"type": "Recreate"}), force="true")
    assert answer.status == 422 and "may not be specified when strategy `type` is 'Recreate'" in answer.body["message"]
    body = {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}
    assert patch(cluster, f"{DEPLOYMENTS}/blue", body, "merge").status == 200


OTHER = "11111111-1111-1111-1111-111111111111"


def test_a_version_alone_keeps_no_apply_from_creating_but_a_uid_does(cluster: Cluster) -> None:
    """Seen on a real API server, 1.36. Of one that is there, another uid is a field that cannot change."""

    def about(**more: str) -> dict[str, Any]:
        return {**deployment(), "metadata": {"name": "blue", **more}}

    absent = apply(cluster, DEPLOYMENTS, about(resourceVersion="5", uid=OTHER), force="true")
    assert (absent.status, absent.body["reason"]) == (409, "Conflict")
    assert "uid mismatch: the provided object specified uid 1111" in absent.body["message"]
    made = apply(cluster, DEPLOYMENTS, about(resourceVersion="5"), force="true")
    assert made.status == 201
    other = apply(cluster, DEPLOYMENTS, about(uid=OTHER), force="true")
    assert (other.status, other.body["details"]["causes"][0]["field"]) == (422, "metadata.uid")
    own = {key: made.body["metadata"][key] for key in ("uid", "resourceVersion")}
    assert apply(cluster, DEPLOYMENTS, about(**own), force="true").status == 200
    assert apply(cluster, DEPLOYMENTS, about(resourceVersion="1", uid=OTHER), force="true").body["code"] == 409


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"replicas": "3"}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"paused": "x"}, ".spec.paused: expected boolean, got &{x}"),
        ({"template": "x"}, ".spec.template: expected map, got &{x}"),
        ({"selector": {"matchLabels": {"a": 1}}},
         ".spec.selector.matchLabels.a: expected string, got &value.valueUnstructured{Value:1}"),
        ({"template": {"spec": {"containers": "x"}}}, ".spec.template.spec.containers: expected list, got &{x}"),
        ({"template": {"spec": {"containers": [{"name": "web", "resources": {"limits": {"memory": "12x"}}}]}}},
         "unable to convert unstructured object to apps/v1, Kind=Deployment: quantities must match"),
    ],
)  # fmt: skip
def test_an_apply_of_the_wrong_types_is_answered_with_500(cluster: Cluster, spec: dict[str, Any], said: str) -> None:
    answer = apply(cluster, DEPLOYMENTS, deployment(**spec))
    assert answer.status == 500 and "reason" not in answer.body
    assert said in answer.body["message"]
