"""The receiver and the poller as processes, with the tracker, a fake API server and real `wandb` clients over HTTP.

It stands on W&B's automations: they send ADD_ARTIFACT_ALIAS and LINK_ARTIFACT signed, at most once, and may leave some
out; an alias is at one version of a collection, and moves. And on Kubernetes: a name is given once (409), a JSON patch
whose test fails changes nothing (422).
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.conftest import Server, client_environment
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig

NEW, OLD, TOKEN = "planted-new-secret", "planted-old-secret", "planted-access-token"
NAMES = tuple(f"model-{secrets.token_hex(4)}" for _ in range(6))
TEMPLATE = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "WorkflowTemplate",
    "metadata": {"name": "promoted"},
    "spec": {
        "entrypoint": "main",
        "arguments": {"parameters": [{"name": "model"}, {"name": "where", "value": "here"}]},
        "templates": [{"name": "main", "container": {"image": "example/pipeline:1"}}],
    },
}


@dataclass
class World:
    root: Path
    cluster: Cluster
    env: dict[str, str]
    process: "subprocess.Popen[str]"
    url: str

    def send(self, body: bytes | dict[str, Any], secret: str = NEW, **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(f"{self.url}/wandb", content=raw, headers={**signed(raw, secret), **headers}, timeout=60)

    def runs(self, model: str) -> list[str]:
        """Workflows for versions of that model."""
        found = []
        for each in self.cluster.objects("workflows", "ml"):
            values = {p["name"]: p["value"] for p in each["spec"]["arguments"]["parameters"]}
            if f"/{model}:" in values["model"]:
                found.append(each["metadata"]["name"])
        return found

    def poll(self, code: int = 0) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "ekiben.cli", "webhook", "poll", "--json"],
            cwd=self.root, env=self.env, text=True, capture_output=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        told = json.loads(done.stdout)
        return list(told["promotions"]) if not code else [told]


def signed(raw: bytes, secret: str = NEW, token: str = TOKEN) -> dict[str, str]:
    right = hmac.new(secret.encode(), raw, hashlib.sha256).digest()
    return {"X-Wandb-Signature": base64.b64encode(right).decode(), "Authorization": f"Bearer {token}"}


def event(model: str, **more: Any) -> dict[str, Any]:
    return {"event_type": "ADD_ARTIFACT_ALIAS", "alias": "production", "artifact_collection_name": model, **more}


def deleted(cluster: Cluster, path: str) -> None:
    assert cluster.request("DELETE", path).status in (200, 404)


@pytest.fixture(scope="module")
def world(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("project")
    (root / "bentofile.yaml").touch()
    (root / "pyproject.toml").write_text(f"""
[tool.ekiben]
project = "{server.project}"
[tool.ekiben.webhook.triggers.mine]
collections = {json.dumps(NAMES)}
workflow = "promoted"
parameters = {{model = "{{artifact_version}}", where = "there"}}
""")
    cluster = fake.cluster()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    cluster.create(TEMPLATE, "ml")
    (root / "secrets").write_text(f"{NEW}\n{OLD}\n")
    env = client_environment(tmp_path_factory.mktemp("client"), server.url, server.key)
    env |= {"KUBECONFIG": str(root / "kubeconfig"), "EKIBEN_WEBHOOK_TOKEN": TOKEN}
    with served(cluster) as url:
        write_kubeconfig(root / "kubeconfig", url, token="planted-kube-token", namespace="ml")
        process, url = started(root, env)
        yield World(root, cluster, env, process, url)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    for planted in (NEW, OLD, TOKEN, "planted-kube-token", server.key):
        assert planted not in out + err


def started(root: Path, env: dict[str, str]) -> tuple["subprocess.Popen[str]", str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "ekiben.cli", "webhook", "serve", "--port", "0", "--secret-file", "secrets"],
        cwd=root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith("ekiben webhook listening on http://127.0.0.1:"), process.communicate()[1]
    return process, line.split()[-1]


@pytest.fixture
def train(script: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Logs a version of a model, with the alias; the content decides which version."""

    def run(model: str, content: str = "one", alias: str = "production") -> dict[str, Any]:
        return script("train", collection=model, content=content, aliases=[alias])

    return run


def test_each_move_of_the_alias_is_one_workflow(world: World, train: Callable[..., dict[str, Any]]) -> None:
    """There and back again is three moves: the version that comes back is promoted anew."""
    model, seen = NAMES[0], []
    for content in ("one", "two", "one"):
        version = train(model, content)
        first, again = world.send(event(model)), world.send(event(model))
        assert (first.status_code, again.status_code) == (202, 200), first.text + again.text
        told = first.json()["runs"][0]
        assert told["model"] == version["name"]
        assert told["namespace"] == "ml"
        assert first.json()["run"] == again.json()["run"] == told["run"]
        seen.append(told["run"])
    assert sorted(seen) == sorted(world.runs(model))
    assert len(set(seen)) == 3
    sent = world.cluster.get("workflows", seen[0], "ml")
    assert sent["spec"]["workflowTemplateRef"] == {"name": "promoted"}
    assert sent["metadata"]["labels"]["ekiben.dev/trigger"] == "mine"
    assert {"name": "where", "value": "there"} in sent["spec"]["arguments"]["parameters"]
    assert [each["run"] for each in world.poll() if f"/{model}:" in each["model"]] == [seen[2]]
    assert len(world.runs(model)) == 3


def test_twenty_at_once_are_one_workflow(world: World, train: Callable[..., dict[str, Any]]) -> None:
    train(NAMES[1])
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: world.send(event(NAMES[1])), range(20)))
    assert sorted(each.status_code for each in answers) == [200] * 19 + [202]
    assert {each.json()["run"] for each in answers} == set(world.runs(NAMES[1]))
    assert len(world.runs(NAMES[1])) == 1


def test_events_and_pollers_that_race_without_a_ledger_are_one_workflow(
    world: World, train: Callable[..., dict[str, Any]]
) -> None:
    """The ledger is not there yet, every one wants to make it, and each has a process of its own."""
    train(NAMES[2])
    deleted(world.cluster, "/api/v1/namespaces/ml/configmaps/ekiben-promotions")
    with ThreadPoolExecutor(3) as pool:
        polls = [pool.submit(world.poll) for _ in range(2)]
        answer = world.send(event(NAMES[2]))
    assert answer.status_code in (200, 202)
    assert world.runs(NAMES[2]) == [answer.json()["run"]]
    for each in polls:
        assert answer.json()["run"] in [one["run"] for one in each.result()]


def test_a_run_is_its_own_ledger_where_the_note_was_lost(world: World, train: Callable[..., dict[str, Any]]) -> None:
    train(NAMES[3])
    world.cluster.fail("patch configmaps", lost=True)
    answer = world.send(event(NAMES[3]))
    assert answer.status_code in (200, 202)
    assert world.runs(NAMES[3]) == [answer.json()["run"]]
    assert world.send(event(NAMES[3])).status_code == 200


def test_what_is_not_signed_is_refused(world: World) -> None:
    raw = json.dumps(event(NAMES[0])).encode()
    before = len(world.cluster.objects("workflows", "ml"))
    good = signed(raw)
    bad = [
        {},
        {"Authorization": good["Authorization"]},
        {"X-Wandb-Signature": good["X-Wandb-Signature"]},
        {**good, "Authorization": "Bearer wrong"},
        signed(raw, "wrong"),
        signed(raw + b" "),
        {**good, "X-Wandb-Signature": ""},
    ]
    for headers in bad:
        answer = httpx.post(f"{world.url}/wandb", content=raw, headers=headers, timeout=30)
        assert answer.status_code == 401, headers
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    twice = [*good.items(), ("X-Wandb-Signature", good["X-Wandb-Signature"])]
    assert httpx.post(f"{world.url}/wandb", content=raw, headers=twice).status_code == 401
    assert len(world.cluster.objects("workflows", "ml")) == before


def test_hex_and_the_old_secret_hold_and_secrets_change_without_a_restart(world: World) -> None:
    other = event("of-no-trigger")
    raw = json.dumps(other).encode()
    digits = hmac.new(NEW.encode(), raw, hashlib.sha256).hexdigest()
    assert world.send(raw, **{"X-Wandb-Signature": digits}).json()["runs"] == []
    assert world.send(other, OLD).status_code == 200
    (world.root / "secrets").write_text(NEW)
    assert world.send(other, OLD).status_code == 401
    (world.root / "secrets").rename(world.root / "gone")
    assert world.send(other).status_code == 503
    (world.root / "gone").rename(world.root / "secrets")
    assert world.send(other).status_code == 200


def test_large_malformed_and_unusable_bodies(world: World) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    assert world.send(b" " * (1 << 20) + b"x").status_code == 413
    answer = httpx.post(f"{world.url}/wandb", content=chunks(), headers=signed(b""), timeout=30)
    assert answer.status_code == 413
    assert world.send(b"{").status_code == 400
    assert world.send(b"[" * 100_000).status_code == 400
    assert world.send({"event_type": "LINK_ARTIFACT"}).status_code == 422
    assert world.send(event(NAMES[0], alias="staging")).json() == {
        "runs": [],
        "why": "no trigger of [tool.ekiben.webhook] is about this event",
    }
    assert httpx.get(f"{world.url}/wandb").status_code == 405


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\xff\r\n\r\n",
        b"POST /wandb HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /wandb HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /wandb HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /wandb HTTP/1.1\r\nHost: x\r\nX-Wandb-Signature: \xe9\xff\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /wandb HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xe9\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /wandb HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /wandb HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
    ],
)
def test_bytes_that_are_no_request_of_wandb(world: World, raw: bytes) -> None:
    """It is refused or hung up on, and nobody else notices."""
    host, port = world.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert answer == b"" or int(answer.split()[1]) in (400, 401, 413), answer
    assert world.send(event("of-no-trigger")).status_code == 200


def test_an_alias_that_nobody_has_is_no_promotion(world: World) -> None:
    answer = world.send(event(NAMES[4]))
    assert answer.status_code == 422
    assert NAMES[4] in answer.json()["detail"]


def test_while_the_cluster_is_away_it_says_when_to_come_again(
    world: World, train: Callable[..., dict[str, Any]]
) -> None:
    train(NAMES[5])
    deleted(world.cluster, "/apis/argoproj.io/v1alpha1/namespaces/ml/workflowtemplates/promoted")
    try:
        assert httpx.get(f"{world.url}/readyz", timeout=30).status_code == 503
        answer = world.send(event(NAMES[5]))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "15")
        assert world.poll(code=3)[0]["error"]["kind"] == "NotFoundError"
    finally:
        world.cluster.create(TEMPLATE, "ml")
    world.cluster.fail("configmaps", times=50, status=500)
    try:
        assert world.send(event(NAMES[5])).status_code == 503
        assert httpx.get(f"{world.url}/livez").text == "ok\n"
    finally:
        world.cluster.faults.clear()
    assert httpx.get(f"{world.url}/readyz", timeout=30).status_code == 200
    assert world.send(event(NAMES[5])).status_code == 202


def test_metrics_count_outcomes(world: World) -> None:
    world.send(b"{")
    text = httpx.get(f"{world.url}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(values['ekiben_webhook_events_total{outcome="malformed"}']) >= 1
    total = sum(int(value) for name, value in values.items() if "events_total" in name)
    assert total == int(values["ekiben_webhook_event_seconds_count"])


def test_the_end_waits_for_what_is_being_answered(world: World) -> None:
    process, url = started(world.root, world.env)
    raw = json.dumps(event("of-no-trigger")).encode()
    head = "".join(f"{key}: {value}\r\n" for key, value in signed(raw).items())
    address = url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as half:
        half.sendall(f"POST /wandb HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n{head}\r\n".encode() + raw[:5])
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        with pytest.raises(OSError):
            socket.create_connection((address[0], int(address[1])), timeout=1).close()
        half.sendall(raw[5:])
        assert half.recv(4096).startswith(b"HTTP/1.1 200")
    assert process.wait(timeout=30) == 0
    process.communicate()


def test_what_is_missing_is_said_at_the_start(world: World, tmp_path: Path) -> None:
    def refused(root: Path, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ekiben.cli", "webhook", "serve", "--port", "0"],
            cwd=root, env={**world.env, **more}, text=True, capture_output=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "EKIBEN_WEBHOOK_SECRET" in refused(world.root)
    (tmp_path / "bentofile.yaml").touch()
    assert "no triggers" in refused(tmp_path, EKIBEN_WEBHOOK_SECRET="planted")
    assert os.environ.get("EKIBEN_WEBHOOK_SECRET") is None
