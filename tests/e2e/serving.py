"""Real `bentoml` processes for tests, each with a BENTOML_HOME of its own."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ekiben.processes import free_port

if TYPE_CHECKING:
    from numpy import ndarray

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Server:
    port: int
    log: Path
    process: "subprocess.Popen[bytes]"

    def request(self, method: str, path: str, body: object = None, headers: dict[str, str] = JSON) -> "Reply":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, response.read(), {key.lower(): value for key, value in response.getheaders()})
        finally:
            connection.close()

    def predict(self, rows: list[list[float]]) -> "Reply":
        return self.request("POST", "/predict", json.dumps({"rows": rows}))


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass(frozen=True)
class Packed:
    """A project, a BENTOML_HOME with a Bento of it, and that Bento's exported folder."""

    project: Path
    home: Path
    tag: str
    exported: Path


def bentoml(home: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bentoml", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(home), capture_output=True, text=True, timeout=60)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}


def build(home: Path, project: Path, *arguments: str) -> str:
    done = bentoml(home, "build", "-o", "tag", *arguments, cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().removeprefix("__tag__:")


def python(home: Path, code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment(home), check=True, timeout=60)


IMPORT = """
import sys, bentoml, shutil
labels = {"wandb.version": f"acme/vision/{sys.argv[1]}", "wandb.digest": sys.argv[3]}
with bentoml.models.create(sys.argv[1], labels=labels) as model:
    shutil.copytree(sys.argv[2], model.path, dirs_exist_ok=True)
"""
EXPORT = "import sys, bentoml; bentoml.export_bento(sys.argv[1], sys.argv[2], 'folder')"


@contextmanager
def serving(home: Path, *arguments: str, cwd: Path) -> Iterator[Server]:
    port = free_port()
    home.mkdir(exist_ok=True)
    log = home / "server.log"
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "bentoml", "serve", *arguments, *address]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=cwd, env=environment(home), stdout=output, stderr=output)
    try:
        yield Server(port, log, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pack(folder: Path, name: str, files: Path) -> Packed:
    """A copy of this project with the model `name`:v1 of those files, and its Bento by plain `bentoml build`."""
    project, home, exported = folder / "project", folder / "home", folder / "exported"
    for part in ("service", "bentos"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    own = ROOT / "bentos" / name / "bentofile.yaml"
    shutil.copy(own if own.is_file() else ROOT / "bentofile.yaml", project / "bentofile.yaml")
    (project / ".env").write_text("secret")
    home.mkdir()
    python(home, IMPORT, f"{name}:v1", str(files), "1" * 32)
    tag = build(home, project)
    python(home, EXPORT, tag, str(exported))
    return Packed(project, home, tag, exported)


@contextmanager
def three_ways(packed: Packed, service: str, model: str) -> Iterator[dict[str, Server]]:
    """The Bento as it was exported, from the store and from its source, each with a copy of the store of its own."""
    folder = packed.home.parent

    def store(name: str) -> Path:
        return Path(shutil.copytree(packed.home, folder / name))

    source = (service, "--arg", f"model={model}")
    with ExitStack() as stack:
        started = {
            "exported": stack.enter_context(serving(folder / "empty", str(packed.exported), cwd=folder)),
            "store": stack.enter_context(serving(store("by-tag"), packed.tag, cwd=folder)),
            "source": stack.enter_context(serving(store("by-source"), *source, cwd=packed.project)),
        }
        for server in started.values():
            wait_ready(server)
        yield started


def wait_ready(server: Server) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if server.request("GET", "/readyz").status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"not ready: {server.log.read_text()}")


def answers(server: Server, images: "ndarray") -> bytes:
    """What it answers to all images in one request and then to each alone, byte for byte."""
    replies = [server.predict(rows.tolist()) for rows in (images, *(image[None] for image in images))]
    assert {reply.status for reply in replies} == {200}
    return b"\n".join(reply.body for reply in replies)
