"""A world on the cluster that KUBECONFIG names. Its namespaces are deleted in any case, the port-forward ended."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.argo.settings import Settings
from tests.e2e.argo.world import World
from tests.e2e.kubernetes.admin import Refused, until

START_S = 300.0
GONE_S = 300.0
TABLE: dict[str, Any] = {"watch": {"seconds": 20}, "start_seconds": 180}


@contextmanager
def world(folder: Path, settings: Settings) -> Iterator[World]:
    kubeconfig = folder / "admin.kubeconfig"
    chosen = [f"--context={settings.context}"] if settings.context else []
    kubeconfig.touch(0o600)
    kubeconfig.write_text(_kubectl(settings.kubeconfig, "config", "view", "--raw", "--flatten", "--minify", *chosen))
    made = World(folder, kubeconfig, settings.image, settings.pull, TABLE | settings.more, settings.longest)
    try:
        made.make()
        until("the tracker is there: its image, its volume", lambda: _available(made), START_S)
        with _forwarded(made) as made.tracker:
            yield made
    finally:
        _delete(made)


def _kubectl(kubeconfig: Path, *args: str) -> str:
    command = ["kubectl", f"--kubeconfig={kubeconfig}", *args]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _available(made: World) -> bool:
    found = made.at_pipelines.get("deployments", "ekiben-tracker", "apps/v1")
    return bool((found.get("status") or {}).get("availableReplicas"))


@contextmanager
def _forwarded(made: World) -> Iterator[str]:
    """The tracker's address here, while the block runs."""
    where = [f"--kubeconfig={made.kubeconfig}", f"--namespace={made.pipelines}"]
    command = ["kubectl", *where, "port-forward", "service/ekiben-tracker", ":8080", "--address=127.0.0.1"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as forward:
        assert forward.stdout
        late = threading.Timer(60, forward.kill)
        try:
            late.start()
            said = forward.stdout.readline()
            late.cancel()
            port = re.search(r"127\.0\.0\.1:(\d+) ->", said)
            assert port, said + (forward.stdout.read() if forward.poll() is not None else "")
            # What it says of each connection must go somewhere, or it waits for a reader.
            threading.Thread(target=forward.stdout.read, daemon=True).start()
            yield f"http://127.0.0.1:{port[1]}"
        finally:
            forward.terminate()


def _delete(made: World) -> None:
    paths = [f"/api/v1/namespaces/{name}" for name in (made.pipelines, made.models)]

    def gone(path: str) -> bool:
        try:
            made.at_pipelines.request("GET", path)
        except Refused as refused:
            return refused.code == 404
        return False

    for path in paths:
        try:
            made.at_pipelines.request("DELETE", path)
        except Refused as refused:
            if refused.code != 404:
                raise
    for path in paths:
        until(f"{path} is gone", lambda path=path: gone(path), GONE_S)  # type: ignore[misc]
