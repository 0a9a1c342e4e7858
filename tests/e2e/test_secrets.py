"""Planted secrets appear nowhere but where they were put: no document, log, report, answer, process argument or store.

It stands on what a person hands over by environment: the key of W&B, the registry's password, the webhook's secret and
token, the cluster's token. W&B's client uploads what it finds of a process, its arguments too.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import psutil
import pytest

from ekiben.config import Project
from tests.contract.conftest import client_environment
from tests.contract.test_webhook import TEMPLATE, event
from tests.fakes.argo import controller as fake
from tests.fakes.kubernetes.http import served, write_kubeconfig

ROOT = Path(__file__).parents[2]
# With characters that change where a text is quoted; W&B's own are of letters and digits.
PLANTED = {
    "WANDB_API_KEY": "planted" + secrets.token_hex(20),
    "REGISTRY_PASSWORD": f"pa/ss+{secrets.token_hex(12)}&=",
    "EKIBEN_WEBHOOK_SECRET": f"se cret/{secrets.token_hex(12)}?",
    "EKIBEN_WEBHOOK_TOKEN": f"to/ken+{secrets.token_hex(12)}",
    "KUBE_TOKEN": "kube" + secrets.token_hex(16),
}
PROJECT = MODEL = f"secrets-{secrets.token_hex(4)}"
RUN = """
import os, sys
from pathlib import Path
import yaml
from hera.workflows import DAG, Workflow
from ekiben.pipeline import document
from ekiben.pipeline.attempts import Processes
from ekiben.pipeline.local import Engine
from tests.fakes import secret_steps as steps

with Workflow(name="t", entrypoint="main") as workflow, DAG(name="main"):
    a = steps.track(name="a", arguments={"name": sys.argv[2]})
    b = steps.fail(name="b", arguments={"name": "b"})
    a.on_success(b)
read = document.read(yaml.safe_load(workflow.to_yaml()))
folder = Path(sys.argv[1])
result = Engine(read, name="t-1", folder=folder, state=folder / "state", parameters={},
                steps=Processes(Path.cwd(), dict(os.environ)), tell=lambda each: print(each)).run()
for node in result.nodes:
    print(node)
"""


def spellings(secret: str) -> set[bytes]:
    """As it may stand in a file: as it is, quoted for URLs, JSON and hexadecimally, and in base64 at any place of a
    longer text, without the ends that depend on what stands beside it."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode(), quote_plus(secret).encode(), json.dumps(secret)[1:-1].encode()}
    found |= {raw.hex().encode(), raw.hex().upper().encode()}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"\0" * before + raw)
            found.add(whole[(0, 2, 3)[before] : len(whole) // 4 * 4 - 4])
    return found


def holders(secret: str, folder: Path) -> list[str]:
    """Files that hold it, by content or by name."""
    looked_for, found = spellings(secret), []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(each in content or each in os.fsencode(path.name) for each in looked_for):
            found.append(str(path.relative_to(folder)))
    return found


class Watch:
    """All that processes on this machine have as arguments, as long as the block runs: what `ps` would show."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.01):
            for each in psutil.process_iter():
                try:
                    self.seen.add("\0".join(each.cmdline()).encode("utf-8", "surrogateescape"))
                except psutil.Error:
                    continue


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Watch]]:
    """The folder that holds all that was written, and the arguments that were seen. What holds secrets on purpose, the
    kubeconfig and the registry's file, lies elsewhere."""
    out, own = tmp_path_factory.mktemp("traces"), tmp_path_factory.mktemp("own")
    if sys.platform != "linux":
        pytest.skip("arguments of other processes are read on Linux")
    with Watch() as watch:
        _leave(out, own, watch)
    yield out, watch


def _leave(out: Path, own: Path, watch: Watch) -> None:
    credentials = base64.b64encode(f"me:{PLANTED['REGISTRY_PASSWORD']}".encode()).decode()
    (own / "auth.json").write_text(json.dumps({"auths": {"registry.example": {"auth": credentials}}}))
    tracker_key = [sys.executable, "-m", "ekiben.cli", "tracker", "key", "create", "team", "--stdin"]
    subprocess.run(
        [*tracker_key, "--data", str(out / "tracker")], input=PLANTED["WANDB_API_KEY"], text=True, check=True,
        stdout=(out / "key.out").open("w"), stderr=(out / "key.err").open("w"), cwd=ROOT,
    )  # fmt: skip
    tracker = subprocess.Popen(
        [sys.executable, "-m", "ekiben.tracker", "--data", str(out / "tracker")],
        text=True, stdout=subprocess.PIPE, stderr=(out / "tracker.err").open("w"), cwd=ROOT,
    )  # fmt: skip
    assert tracker.stdout
    try:
        url = tracker.stdout.readline().split()[-1]
        env = client_environment(out / "client", url, PLANTED["WANDB_API_KEY"]) | {
            **{name: PLANTED[name] for name in PLANTED if name != "KUBE_TOKEN"},
            "REGISTRY_AUTH_FILE": str(own / "auth.json"),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "KUBECONFIG": str(own / "kubeconfig"),
        }

        def ran(name: str, *command: str, code: int = 0, **more: str) -> None:
            done = subprocess.run(
                [sys.executable, *command], cwd=ROOT, env={**env, **more}, capture_output=True, timeout=120
            )
            (out / f"{name}.out").write_bytes(done.stdout)
            (out / f"{name}.err").write_bytes(done.stderr)
            assert done.returncode == code, done.stdout + done.stderr

        cli = ("-m", "ekiben.cli")
        for name in Project(ROOT).names("workflows", "*.py"):
            if "def define(" in (ROOT / "workflows" / f"{name}.py").read_text():
                ran(f"export-{name}", *cli, "workflow", "export", name)
        for name in ("staging", "production"):
            ran(f"render-{name}", *cli, "render", "digits", "--env", name)
        ran("run", "-c", RUN, str(out / "run"), MODEL)
        ran("no-such-model", *cli, "pull", f"{PROJECT}-no-such-model:production", code=3)
        ran("refused-key", *cli, "pull", "digits", code=4, WANDB_API_KEY=PLANTED["WANDB_API_KEY"][::-1])
        ran("no-registry", *cli, "pull", "digits", code=4, WANDB_BASE_URL="http://127.0.0.1:9")
        _webhook(out, own, env)
    finally:
        tracker.send_signal(signal.SIGTERM)
        (out / "tracker.out").write_text(tracker.communicate(timeout=20)[0])


def _webhook(out: Path, own: Path, env: dict[str, str]) -> None:
    project = out / "project"
    project.mkdir()
    (project / "bentofile.yaml").touch()
    (project / "pyproject.toml").write_text(f"""
[tool.ekiben]
project = "{PROJECT}"
[tool.ekiben.webhook.triggers.mine]
collections = ["{MODEL}"]
workflow = "promoted"
parameters = {{model = "{{artifact_version}}"}}
""")
    cluster = fake.cluster()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    cluster.create(TEMPLATE, "ml")
    with served(cluster) as url:
        write_kubeconfig(own / "kubeconfig", url, token=PLANTED["KUBE_TOKEN"], namespace="ml")
        process = subprocess.Popen(
            [sys.executable, "-m", "ekiben.cli", "webhook", "serve", "--port", "0"],
            cwd=project, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        told = [process.stdout.readline()]
        address = told[0].split()[-1]
        secret, token = PLANTED["EKIBEN_WEBHOOK_SECRET"], PLANTED["EKIBEN_WEBHOOK_TOKEN"]
        try:
            for body, by, bearer, status in (
                (event(MODEL), secret, token, 202),
                (event(MODEL), secret, token, 200),
                (event("other"), secret, token, 200),
                (event(MODEL), secret, "wrong", 401),
                (event(MODEL), "wrong", token, 401),
                (["not an event"], secret, token, 400),
                ({"secret": secret, "event_type": token}, secret, token, 422),
            ):
                raw = json.dumps(body).encode()
                headers = {
                    "X-Wandb-Signature": hmac.new(by.encode(), raw, hashlib.sha256).hexdigest(),
                    "Authorization": f"Bearer {bearer}",
                }
                answer = httpx.post(f"{address}/wandb", content=raw, headers=headers, timeout=60)
                assert answer.status_code == status, answer.text
                told.append(answer.text + str(answer.headers))
            cluster.fail("configmaps", times=50, status=500)
            raw = json.dumps(event(MODEL)).encode()
            headers["X-Wandb-Signature"] = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
            answer = httpx.post(f"{address}/wandb", content=raw, headers=headers, timeout=60)
            assert answer.status_code == 503
            told += [answer.text, *(httpx.get(f"{address}/{name}").text for name in ("livez", "readyz", "metrics"))]
        finally:
            process.send_signal(signal.SIGTERM)
            told += process.communicate(timeout=40)
    (out / "webhook").write_text("\n".join(told))
    for plural in ("workflows", "configmaps"):
        (out / plural).write_text(json.dumps(cluster.objects(plural, "ml")))


def test_what_is_looked_through_is_there(traces: tuple[Path, Watch]) -> None:
    out, watch = traces
    assert "tracked" in "".join(path.read_text() for path in (out / "run").rglob("log"))
    assert "b failed, with" in "".join(path.read_text() for path in (out / "run").rglob("log"))
    assert json.loads((out / "workflows").read_text())
    assert "submitted as" in (out / "webhook").read_text()
    assert any(MODEL.encode() in path.read_bytes() for path in (out / "tracker").rglob("*") if path.is_file())
    arguments = b"\n".join(watch.seen)
    for seen in (
        b"ekiben.pipeline.child",
        b"wandb-core",
        b"webhook\0serve",
        b"ekiben.tracker",
        b"workflow\0export",
        b"render",
    ):
        assert seen in arguments, seen


@pytest.mark.parametrize("name", PLANTED)
def test_no_file_and_no_argument_holds_it(traces: tuple[Path, Watch], name: str) -> None:
    out, watch = traces
    assert holders(PLANTED[name], out) == []
    assert not [each for each in watch.seen for spelling in spellings(PLANTED[name]) if spelling in each]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize(
    "leak",
    [
        lambda secret: f"key={secret}\n",
        lambda secret: quote(secret, safe=""),
        lambda secret: json.dumps({"key": secret}),
        lambda secret: secret.encode().hex(),
        lambda secret: _base64(f"api:{secret}"),
        lambda secret: _base64(f"me:{secret}\n"),
        lambda secret: _base64(f"x{secret}yz"),
        lambda secret: _base64(secret),
    ],
)
def test_a_leak_into_a_file_would_be_found(name: str, leak: "object", tmp_path: Path) -> None:
    assert callable(leak)
    assert holders(PLANTED[name], tmp_path) == []
    (tmp_path / "log").write_text(f"before {leak(PLANTED[name])} after")
    assert holders(PLANTED[name], tmp_path) == ["log"]


def test_a_leak_into_an_argument_would_be_found() -> None:
    secret = PLANTED["REGISTRY_PASSWORD"]
    with Watch() as watch:
        for _ in range(20):
            subprocess.run([sys.executable, "-c", "import time; time.sleep(0.1)", f"--password={secret}"], check=True)
            if any(secret.encode() in each for each in watch.seen):
                return
    pytest.fail("no look at the processes saw it")
