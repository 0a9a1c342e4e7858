"""`ekiben workflow apply`: server-side apply of Argo's templates, schedules and bindings, against the fake API server.

It stands on Kubernetes' server-side apply: fields have managers, a conflict names the other one, a dry run
(`dryRun=All`) answers with what would be there and keeps nothing.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.errors import ConflictError, NotFoundError, UnsupportedError, UsageError
from ekiben.pipeline.argo.install import Change, Place, difference
from ekiben.platforms.kubernetes.api import Api
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, transport, write_kubeconfig
from tests.fakes.kubernetes_platform import config
from tests.unit.test_argo_checks import good
from tests.unit.test_argo_commands import PROJECT, ekiben

Json = dict[str, Any]
CRON = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "CronWorkflow",
    "metadata": {"name": "nightly"},
    "spec": {"schedules": ["0 3 * * *"], "workflowSpec": {"workflowTemplateRef": {"name": "good"}}},
}


@pytest.fixture
def cluster() -> Cluster:
    return fake.cluster()


@pytest.fixture
def place(cluster: Cluster) -> Place:
    return Place(Api(config(), transport(cluster), cluster.advance), "default")


def test_created_then_unchanged_then_changed(cluster: Cluster, place: Place) -> None:
    documents = [good(), CRON]
    assert [change.what for change in place.planned(documents)] == ["created", "created"]
    assert cluster.objects("workflowtemplates") == []
    place.apply(documents)
    assert cluster.get("cronworkflows", "nightly")["spec"] == CRON["spec"]
    assert [change.what for change in place.planned(documents)] == ["unchanged", "unchanged"]

    documents[0]["spec"]["arguments"]["parameters"][0]["value"] = "cats"
    before = cluster.get("workflowtemplates", "good")
    changed, same = place.planned(documents)
    assert str(same) == "CronWorkflow nightly: unchanged"
    assert str(changed).splitlines() == [
        "WorkflowTemplate good: changed",
        "--- workflowtemplate/good in the cluster",
        "+++ workflowtemplate/good here",
        *str(changed).splitlines()[3:],
    ]
    assert [line for line in str(changed).splitlines()[3:] if line[0] in "+-"] == [
        "-      value: digits",
        "+      value: cats",
    ]
    assert cluster.get("workflowtemplates", "good") == before
    place.apply(documents)
    assert place.planned(documents)[0].what == "unchanged"


def test_an_upgrade_of_the_release_is_a_few_lines(place: Place) -> None:
    """The whole document has hundreds; what changes is shown with what stands around it."""
    text = (Path(__file__).parents[2] / "workflows" / "release_on_cluster.yaml").read_text()
    place.apply([yaml.safe_load(text)])
    assert place.planned([yaml.safe_load(text)])[0].what == "unchanged"
    document = yaml.safe_load(text)
    document["spec"]["activeDeadlineSeconds"] = 3600
    next(each for each in document["spec"]["templates"] if each["name"] == "ask")["suspend"]["duration"] = "48h"
    (change,) = place.planned([document])
    assert [line for line in change.diff.splitlines()[2:] if line[0] in "+-"] == [
        "-  activeDeadlineSeconds: 172800",
        "+  activeDeadlineSeconds: 3600",
        "-      duration: 24h",
        "+      duration: 48h",
    ]
    assert len(change.diff.splitlines()) <= 20


def test_what_another_has_set_is_a_conflict_that_names_them(cluster: Cluster, place: Place) -> None:
    place.apply([CRON])
    path = "/apis/argoproj.io/v1alpha1/namespaces/default/cronworkflows/nightly"
    json_patch = {"content-type": "application/merge-patch+json"}
    cluster.request("PATCH", path, {"fieldManager": "ops-team"}, json_patch, {"spec": {"schedules": ["0 4 * * *"]}})
    with pytest.raises(ConflictError, match=r'(?s)nightly has fields.*"ops-team".*schedules.*--force'):
        place.planned([CRON])
    with pytest.raises(ConflictError):
        place.apply([CRON])
    (change,) = place.planned([CRON], force=True)
    assert "-  - 0 4 * * *\n+  - 0 3 * * *" in change.diff
    place.apply([CRON], force=True)
    assert cluster.get("cronworkflows", "nightly")["spec"]["schedules"] == ["0 3 * * *"]


def test_what_another_has_added_stays(cluster: Cluster, place: Place) -> None:
    place.apply([CRON])
    path = "/apis/argoproj.io/v1alpha1/namespaces/default/cronworkflows/nightly"
    merge = {"content-type": "application/merge-patch+json"}
    cluster.request("PATCH", path, {"fieldManager": "argo"}, merge, {"spec": {"suspend": True}})
    assert place.planned([CRON])[0].what == "unchanged"
    place.apply([CRON])
    assert cluster.get("cronworkflows", "nightly")["spec"]["suspend"] is True


def test_the_api_server_is_asked_to_refuse_what_it_does_not_know(cluster: Cluster, place: Place) -> None:
    """By default it drops an unknown field, with a warning that nobody sees."""
    place.planned([good()])
    place.apply([good()])
    asked = [call.params["fieldValidation"] for call in cluster.log if call.verb == "patch"]
    assert asked == ["Strict", "Strict"]


@pytest.mark.parametrize("fault", [{"lost": True}, {"reset": True}, {"status": 429}])
def test_a_lost_answer_is_asked_for_again(cluster: Cluster, place: Place, fault: Json) -> None:
    cluster.fail("patch workflowtemplates", **fault)
    place.apply([good()])
    assert cluster.get("workflowtemplates", "good")


@pytest.mark.parametrize(
    ("document", "error", "seen"),
    [
        ({"kind": "Workflow", "metadata": {"name": "x"}}, UnsupportedError, "submit it instead"),
        ({"kind": "WorkflowTemplate", "metadata": {"generateName": "x-"}}, UsageError, "without metadata.name"),
        ({"kind": "WorkflowTemplate", "metadata": {"name": "x", "namespace": "other"}}, UsageError, "namespace other"),
    ],
)
def test_what_cannot_be_applied(place: Place, document: Json, error: type[Exception], seen: str) -> None:
    with pytest.raises(error, match=seen):
        place.planned([document])


def test_a_cluster_without_argo() -> None:
    bare = Cluster()
    with pytest.raises(NotFoundError, match="does not know Argo's WorkflowTemplate"):
        Place(Api(config(), transport(bare), bare.advance), "default").planned([good()])


def test_the_diff_leaves_out_what_servers_add_and_their_order() -> None:
    ours = {"kind": "K", "metadata": {"name": "n"}, "spec": {"b": 1, "name": "x", "a": [{"z": 1, "name": "y"}]}}
    theirs = json.loads(json.dumps(ours, sort_keys=True))
    theirs["metadata"] |= {"uid": "u", "resourceVersion": "1", "managedFields": [], "generation": 3}
    theirs["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    theirs["status"] = {"conditions": []}
    assert difference(theirs, ours, "k/n") == ""
    other = copy.deepcopy(ours)
    other["spec"]["a"][0]["z"] = 2
    assert [line for line in difference(theirs, other, "k/n").splitlines() if line[0] in "+-"][2:] == [
        "-    z: 1",
        "+    z: 2",
    ]
    assert str(Change("K", "n", "created", "long")) == "K n: created"


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    document = good()
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(document))
    cluster = fake.cluster()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    with served(cluster) as url:
        write_kubeconfig(tmp_path / "kubeconfig", url, token="planted-token")
        args = ("workflow", "apply", "good.yaml", "--env", "staging")
        assert ekiben(tmp_path, *args, "--dry-run")[0] == "WorkflowTemplate good: created\n"
        assert cluster.objects("workflowtemplates", "ml") == []
        ekiben(tmp_path, *args)
        assert ekiben(tmp_path, *args)[0] == "WorkflowTemplate good: unchanged\n"
        document["spec"]["onExit"] = "main"
        (tmp_path / "good.yaml").write_text(yaml.safe_dump(document))
        out, _ = ekiben(tmp_path, *args, "--dry-run", "--json")
        told = json.loads(out)
        assert not told["applied"]
        assert "+  onExit: main" in told["changes"][0]["diff"]
        shown = ekiben(tmp_path, *args, "--dry-run")[0].splitlines()
        assert shown[0] == "WorkflowTemplate good: changed"
        assert shown[1:3] == ["--- workflowtemplate/good in the cluster", "+++ workflowtemplate/good here"]
        assert [line for line in shown[3:] if line[0] in "+-"] == ["-  onExit: bye", "+  onExit: main"]
        document["spec"]["onExit"] = "mian"
        (tmp_path / "good.yaml").write_text(yaml.safe_dump(document))
        assert "the template 'mian' is not there" in ekiben(tmp_path, *args, code=2)[1]
        assert cluster.get("workflowtemplates", "good", "ml")["spec"]["onExit"] == "bye"
