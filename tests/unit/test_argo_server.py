"""The traps of the Argo Server's HTTP API, against a fake of it.

It stands on Argo Workflows 4.1: errors are {code, message} with gRPC codes, but a proxy's are not; streams are lines of
{"result": …}; ARGO_SERVER, ARGO_TOKEN and the others mean what they mean to Argo's own command. What both ways to Argo
do alike is in test_argo_submit.py.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ekiben.errors import ConflictError, EkibenError, NotFoundError, StepError, UnavailableError, UsageError
from ekiben.pipeline import argo
from ekiben.pipeline.argo import follow
from ekiben.pipeline.argo import status as statuses
from ekiben.pipeline.argo.install import Place
from ekiben.pipeline.argo.server import Server
from ekiben.platforms.kubernetes.api import Api
from tests.fakes.argo import controller as fake
from tests.fakes.argo import server as served
from tests.fakes.argo.controller import Controller
from tests.fakes.argo.server import ArgoServer
from tests.fakes.kubernetes import http
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import transport
from tests.fakes.kubernetes_platform import config
from tests.unit.test_argo_checks import good
from tests.unit.test_argo_commands import AT_ONCE, PROJECT, ekiben
from tests.unit.test_argo_submit import RELEASE, approved, start, waiting

TOKEN = "planted-token"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = fake.cluster()
    monkeypatch.setattr(follow, "sleep", lambda seconds: made.advance(max(seconds, 0.1)))
    return made


@pytest.fixture
def server(cluster: Cluster) -> ArgoServer:
    return ArgoServer(cluster, base="/argo", tokens={TOKEN: ("default",)})


def client(server: ArgoServer, token: str = TOKEN, base: str = "/argo/", namespace: str = "default") -> Server:
    transport = served.transport(server)
    return Server(f"http://argo.invalid{base}", namespace, token, transport=transport, sleep=server.cluster.advance)


def test_below_a_base_path_with_a_token(cluster: Cluster, server: ArgoServer) -> None:
    Controller(cluster)
    run = start(client(server))
    approved(cluster, run)
    assert argo.wait(run, 60).phase == "Succeeded"
    assert all(call.split()[1].startswith("/argo/api/v1/") for call in server.log)


@pytest.mark.parametrize(
    ("asks", "error", "seen"),
    [
        ({"token": "another"}, UsageError, "does not accept the token: token not valid"),
        ({"token": ""}, UsageError, "does not accept the token"),
        ({"namespace": "other"}, UsageError, "not allowed: workflows.argoproj.io is forbidden"),
        ({"base": "/"}, UnavailableError, r"(?s)does not answer as an Argo Server does.*ARGO_BASE_HREF"),
    ],
)
def test_refusals_say_what_to_do(server: ArgoServer, asks: dict[str, str], error: type[EkibenError], seen: str) -> None:
    with pytest.raises(error, match=seen) as raised:
        start(client(server, **asks))
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b"{}", b'{"error": "x"}', b"[1]", b'{"message": 3}']
)
@pytest.mark.parametrize("status", [400, 404, 409, 418, 500, 502])
def test_an_error_of_any_shape_is_an_error_of_ours(server: ArgoServer, status: int, body: bytes) -> None:
    server.fail("GET .*/workflows/", times=9, status=status, body=body)
    with pytest.raises(EkibenError):
        argo.find("x", client=client(server))


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 502}, {"status": 429, "retry_after": 3}, {"lost": True}])
def test_created_once_whatever_the_server_answers(cluster: Cluster, server: ArgoServer, fault: dict[str, Any]) -> None:
    server.fail("POST", times=2, **fault)
    run = start(client(server))
    assert [each["metadata"]["uid"] for each in cluster.objects("workflows")] == [run.uid]
    if "retry_after" in fault:
        assert cluster.clock.seconds >= 6


def test_what_was_not_refused_for_a_moment_is_not_repeated(cluster: Cluster, server: ArgoServer) -> None:
    server.fail("POST", status=400)
    with pytest.raises(UsageError, match="Argo refuses it: a fault"):
        start(client(server))
    assert [call for call in server.log if "POST" in call] == ["POST /argo/api/v1/workflows/default"]


@pytest.mark.parametrize("fault", [{"status": 500}, {"lost": True}, {"reset": True}])
def test_a_decision_is_made_once_whatever_the_server_answers(
    cluster: Cluster, server: ArgoServer, fault: dict[str, Any]
) -> None:
    Controller(cluster)
    run = start(client(server))
    waiting(cluster, run)
    server.fail("PUT .*/set", **fault)
    argo.resume(run, "approve", {"decision": "approve"}, "by ada")
    assert {step.name: step.phase for step in argo.wait(run, 60).steps}["deploy"] == "Succeeded"


def test_another_s_decision_stands(cluster: Cluster, server: ArgoServer) -> None:
    Controller(cluster)
    run = start(client(server))
    step = waiting(cluster, run).waiting[0]
    argo.resume(run, "approve", {"decision": "reject"}, "by bob")
    with pytest.raises(ConflictError, match="waits no longer: by bob"):
        run.client.resume_step(run.name, step, {"decision": "approve"}, "by ada")


def test_packed_and_stored_node_statuses_are_read(cluster: Cluster, server: ArgoServer) -> None:
    Controller(cluster, packs=True)
    run = start(client(server))
    approved(cluster, run)
    assert "compressedNodes" in cluster.get("workflows", run.name)["status"]
    assert argo.wait(run, 60).phase == "Succeeded"


def test_who_may_read_but_not_watch_sees_the_end_all_the_same(cluster: Cluster, server: ArgoServer) -> None:
    Controller(cluster)
    server.fail("workflow-events", times=999, status=403)
    run = start(client(server))
    approved(cluster, run)
    assert argo.wait(run, 60).phase == "Succeeded"


def test_the_failing_step_s_lines_come_from_its_pod(cluster: Cluster, server: ArgoServer) -> None:
    Controller(cluster).behave("train", exit_code=1, log="reading\nno such file")
    run = start(client(server))
    with pytest.raises(StepError, match=r"(?s)train of .*\n    reading\n    no such file"):
        argo.wait(run, 60)
    assert list(argo.logs(run, "train")) == [("train", "reading"), ("train", "no such file")] * 3


def test_a_template_that_is_not_there(server: ArgoServer) -> None:
    with pytest.raises(NotFoundError, match=r"(?s)release.*not found.*ekiben workflow apply release"):
        start(client(server), "release")


@pytest.mark.parametrize(
    ("given", "url", "namespace"),
    [
        ({"ARGO_SERVER": "argo.example:2746"}, "https://argo.example:2746", "default"),
        ({"ARGO_SERVER": "argo.example:2746", "ARGO_SECURE": "false"}, "http://argo.example:2746", "default"),
        ({"ARGO_SERVER": "argo.example", "ARGO_BASE_HREF": "/argo/"}, "https://argo.example/argo", "default"),
        ({"ARGO_SERVER": "http://localhost:1/a/"}, "http://localhost:1/a", "default"),
        ({"ARGO_SERVER": "argo.example", "ARGO_NAMESPACE": "ml"}, "https://argo.example", "ml"),
    ],
)
def test_the_variables_of_argo_s_own_command(given: dict[str, str], url: str, namespace: str) -> None:
    made = Server.configured("", given)
    assert (made.url, made.namespace) == (url, namespace)


@pytest.mark.parametrize("name", ["ftp://x", "http://user:secret@x", "https://", "x?token=secret"])
def test_what_is_no_address_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(UsageError, match="ARGO_SERVER is no address") as error:
        Server.configured("", {"ARGO_SERVER": name})
    assert "secret" not in str(error.value)


def test_a_slow_server_does_not_hold_a_request_for_ever(cluster: Cluster, server: ArgoServer) -> None:
    with served.served(server) as address:
        slow = Server(f"http://{address}/argo", "default", TOKEN)
        slow._client.timeout = httpx.Timeout(0.2)
        server.fail("GET .*/workflows/", times=9, delay=1.0)
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer: timed out"):
            argo.find("x", client=slow)
        assert time.monotonic() - begun < 30


def test_the_commands_take_this_way_where_argo_server_is_set(tmp_path: Path) -> None:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    cluster = fake.cluster()
    controller = Controller(cluster)
    controller.behave("train", seconds=20, log="hello")
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    cluster.create(AT_ONCE, "ml")
    server = ArgoServer(cluster, tokens={TOKEN: ("ml",)})
    with http.served(cluster, speed=20), served.served(server) as address:
        given = {"ARGO_SERVER": address, "ARGO_SECURE": "false", "ARGO_TOKEN": f"Bearer {TOKEN}"}
        out, err = ekiben(tmp_path, "workflow", "submit", "release", "--env", "staging", "--wait", "--json", **given)
        told = json.loads(out)
        assert told["phase"] == "Succeeded"
        assert "train                Running" in err
        assert (
            ekiben(tmp_path, "workflow", "logs", told["run"], "--env", "staging", "--step", "train", **given)[0]
            == "hello\n"
        )
        given["ARGO_TOKEN"] = "another"
        assert (
            "does not accept the token"
            in ekiben(tmp_path, "workflow", "watch", told["run"], "--env", "staging", code=2, **given)[1]
        )


def test_a_document_that_argo_refuses_is_told(cluster: Cluster, server: ArgoServer) -> None:
    bad = json.loads(json.dumps(RELEASE))
    server.fail("POST", status=400, body=b'{"code":3,"message":"templates.release.tasks.train: bad"}')
    with pytest.raises(UsageError, match=r"Argo refuses it: templates\.release\.tasks\.train: bad"):
        start(client(server), bad)


@pytest.mark.parametrize(("code", "told"), [(7, True), (14, False)])
def test_a_refusal_after_a_stream_has_begun_is_told(
    cluster: Cluster, server: ArgoServer, code: int, told: bool
) -> None:
    """Who may read workflows and not pods gets status 200, and the refusal as the stream's first line."""
    Controller(cluster).behave("train", log="hello")
    run = start(client(server))
    waiting(cluster, run)
    server.fail("GET .*/log", broken=code)
    if not told:  # what may pass just ends
        assert list(argo.logs(run, "train")) == []
        return
    with pytest.raises(UsageError, match=r"not allowed: pods is forbidden(.|\n)*a Role in default"):
        list(argo.logs(run, "train"))


def test_pods_of_version_1_have_the_node_s_id(cluster: Cluster, server: ArgoServer) -> None:
    Controller(cluster)
    run = start(client(server))
    status = waiting(cluster, run)
    step = next(each for each in status.steps if each.name == "train")
    (pod,) = [each for each in cluster.objects("pods") if "-train-" in each["metadata"]["name"]]
    assert statuses.pod_name(status, step, step.attempts[0]) == pod["metadata"]["name"]
    old = replace(status, annotations={"workflows.argoproj.io/pod-name-format": "v1"})
    assert statuses.pod_name(old, step, step.attempts[0]) == step.attempts[0]


def test_the_controller_of_an_instance_is_named(
    cluster: Cluster, server: ArgoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = "workflows.argoproj.io/controller-instanceid"
    start(client(server))
    monkeypatch.setenv("ARGO_INSTANCEID", "team")
    start(client(server))
    Place(Api(config(), transport(cluster), cluster.advance), "default").apply([good()])
    labels = [each["metadata"]["labels"].get(label) for each in cluster.objects("workflows")]
    assert sorted(labels, key=str) == [None, "team"]
    assert cluster.get("workflowtemplates", "good")["metadata"]["labels"][label] == "team"
