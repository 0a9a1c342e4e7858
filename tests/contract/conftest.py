"""A W&B-protocol server and real `wandb` clients that talk to it.

With WANDB_BASE_URL and WANDB_API_KEY set, that server is tested; without, ekiben's tracker in a process of its own.
EKIBEN_CLIENT_PYTHON names the interpreter whose `wandb` is used (default: the one that runs the tests).
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
KEY = "0123456789" * 4


class Server(NamedTuple):
    """Where it is, a key for it, and a project of this session's own."""

    url: str
    key: str
    project: str


def start_tracker(data: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A tracker process over `data` that answers, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ekiben.tracker", "--data", str(data), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    prefix, _, url = line.strip().rpartition(" ")
    assert prefix == "ekiben tracker listening on", f"the tracker said {line!r} and ended with {process.poll()}"
    return process, url


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=10)
    assert process.stdout is not None
    process.stdout.close()
    return code


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    project = f"ekiben-contract-{secrets.token_hex(4)}"
    url, key = os.environ.get("WANDB_BASE_URL"), os.environ.get("WANDB_API_KEY")
    if url and key:
        yield Server(url, key, project)
        return
    process, url = start_tracker(tmp_path_factory.mktemp("tracker"))
    yield Server(url, KEY, project)
    stop(process)


@pytest.fixture(scope="module")
def client_here() -> Iterator[None]:
    """For tests that use the client in this process, where it keeps its first server until it is torn down."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def collection() -> str:
    """A name that no other test uses."""
    return f"model-{secrets.token_hex(4)}"


def client_environment(folder: Path, url: str, key: str) -> dict[str, str]:
    """The environment of a client that shares nothing with any other: its folders are all below `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    folders = {}
    for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        folders[f"WANDB_{name}"] = str(folder / name.lower())
        (folder / name.lower()).mkdir(parents=True)
    return {
        **kept,
        **folders,
        "HOME": str(folder),
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": key,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }


def start_script(folder: Path, server: Server, name: str, **values: Any) -> subprocess.Popen[str]:
    environment = client_environment(folder, server.url, server.key)
    return subprocess.Popen(
        [os.environ.get("EKIBEN_CLIENT_PYTHON", sys.executable), str(ROOT / "tests/contract/scripts.py"), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**environment, "CONTRACT": json.dumps(values)},
    )


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-4000:]
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


@pytest.fixture
def script(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Runs a function of scripts.py in a fresh client and returns what it returned."""

    def run(name: str, **values: Any) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("client")
        return answer_of(start_script(folder, server, name, project=server.project, **values))

    return run
