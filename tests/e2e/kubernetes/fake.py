"""The fake API server with nodes that have one image, as a person would name it: KUBECONFIG, EKIBEN_E2E_IMAGE.

What the image does, pods do: they answer as `digits` does and count what they answered. A container whose environment
breaks Python crashes; an image that the nodes have not cannot be pulled.
"""

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.kubernetes.settings import Image
from tests.e2e.kubernetes.wired import Wires
from tests.fakes.kubernetes.access import ADMIN
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import certified, served, write_kubeconfig
from tests.fakes.pod_metrics import Counters

IMAGE = "localhost/digits:v1"
RUNTIME = "localhost/runtime:1"
SPEED = 40.0  # virtual seconds in a real one
LAUNCHER = (
    sys.executable,
    "-c",
    """
from ekiben import cli
from ekiben.platforms.kubernetes import colour, hold, platform
for module, name in ((colour, "HOPELESS_SECONDS"), (platform, "DRAIN_SECONDS"), (hold, "CLAIM_SECONDS")):
    setattr(module, name, getattr(module, name) / 20)
cli.main()
""",
)
"""The command line, whose longest waits go as fast as the fake's time."""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The variables that a person would set for it."""
    made = Cluster()
    made.tokens["admin"] = ADMIN
    made.controllers.endpoints.lag = 1.0
    made.kubelet.behave("", backend=_backend, start_s=3.0, ready_s=3.0, exit_s=1.0)
    made.kubelet.behave(lambda pod: _image(pod) not in (IMAGE, RUNTIME), pull_error=_REFUSED)
    made.kubelet.behave(lambda pod: _fetched(pod).endswith("f" * 64), init_exit_code=5, log=_CHANGED)
    made.kubelet.behave(
        lambda pod: _image(pod) == IMAGE and "PYTHONHOME" in _env(pod), crash_after_s=0.5, exit_code=1, log=_BROKEN
    )
    bundle = folder / "bundle.json"
    bundle.write_text(json.dumps(Image.parse(IMAGE).told("digits", 1_000_000)["bento"]))
    wires = Wires(made)
    made.kubelet.behave(
        lambda pod: pod["metadata"]["labels"].get("ekiben.dev/service") == "wired",
        backend=wires.serves, stopped=wires.stopped, start_s=3.0, ready_s=3.0, exit_s=1.0,
    )  # fmt: skip
    made.kubelet.behave(lambda pod: _names(pod) == ["client"], backend=wires.asks, stopped=wires.stopped, log=wires.log)
    certificate = certified(folder)
    with closing(wires), served(made, SPEED, certificate) as url:
        yield {
            "KUBECONFIG": str(write_kubeconfig(folder / "admin", url, "admin", authority=certificate)),
            "EKIBEN_E2E_IMAGE": IMAGE,
            "EKIBEN_E2E_RUNTIME_IMAGE": RUNTIME,
            "EKIBEN_E2E_BUNDLE": str(bundle),
            "WANDB_BASE_URL": "http://tracker.ml:8080",
            "WANDB_API_KEY": "k" * 40,
            "EKIBEN_E2E_SETTINGS": "watch = {seconds = 1, min_requests = 3, p99_ms = 5000}",
        }


_REFUSED = "failed to do request: Head: dial tcp 127.0.0.1:1: connect: connection refused"
_CHANGED = "ekiben: the Bento's content is not what its digest says\n"
_BROKEN = "Fatal Python error: init_fs_encoding: failed to get the Python codec of the filesystem encoding\n"


def _fetched(pod: Any) -> str:
    """What its init container is to fetch: ENTITY/PROJECT/NAME:VERSION@DIGEST."""
    commands = [each["command"] for each in pod["spec"].get("initContainers", ()) if each["name"] == "fetch"]
    return str(commands[0][3]) if commands else ""


def _names(pod: Any) -> list[str]:
    return [each["name"] for each in pod["spec"]["containers"]]


def _image(pod: Any) -> str:
    image: str = pod["spec"]["containers"][0]["image"]
    return image


def _env(pod: Any) -> set[str]:
    return {each["name"] for each in pod["spec"]["containers"][0].get("env", ())}


def _backend(pod: Any) -> Any:
    counters, lock = Counters(), threading.Lock()

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/metrics":
            with lock:
                return 200, {"Content-Type": "text/plain"}, counters.text().encode()
        if re.fullmatch("/(livez|readyz)", path):
            return 200, {}, b"\n"
        if path != "/predict":
            return 404, {"Content-Type": "application/json"}, b'{"error": "Not Found"}'
        began = time.monotonic()
        rows = json.loads(body)["rows"]
        with lock:
            counters.answered("/predict", 200, time.monotonic() - began)
        said = json.dumps({"classes": [1 for _ in rows]}).encode()
        return 200, {"Content-Type": "application/json"}, said

    return answer
