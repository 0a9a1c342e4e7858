"""Which W&B server this project speaks to: the one that the environment names, or the embedded one."""

import http.client
import os
import socket
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

from ekiben.config import Project
from ekiben.errors import UnavailableError, UsageError
from ekiben.processes import Daemon, free_port

CLOUD = "https://api.wandb.ai"
LOCAL_KEY = "local" * 8
"""What the client sends to the embedded server, which needs no key on loopback; the client insists on 40 characters."""


def tracker(project: Project) -> Daemon:
    return Daemon(project.state / "processes", "tracker")


def environment(project: Project, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The WANDB_* variables that a process of this project needs. Starts the embedded server where it is used."""
    if (mode := given.get("WANDB_MODE") or "online") != "online":
        raise UsageError(
            f"WANDB_MODE={mode}: nothing would be tracked",
            wanted="online, with a server to fetch models back from",
            next_step="unset WANDB_MODE; without WANDB_API_KEY the embedded tracker is used, with no network",
        )
    state = project.state / "wandb"
    folders = {f"WANDB_{name}_DIR": str(state / name.lower()) for name in ("CACHE", "DATA", "CONFIG", "ARTIFACT")}
    settings = {
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DIR": str(state),
        **folders,
        "WANDB_PROJECT": project.settings.project,
        "WANDB_ENTITY": project.settings.entity,
    }
    settings = {key: given.get(key) or value for key, value in settings.items()}
    if settings["WANDB_DIR"] == str(state):  # a pod with a read-only root names another
        state.mkdir(parents=True, exist_ok=True)  # the client ignores a WANDB_DIR that is not there
    if given.get("WANDB_BASE_URL") or given.get("WANDB_API_KEY"):
        settings["WANDB_BASE_URL"] = given.get("WANDB_BASE_URL") or CLOUD
        settings["WANDB_API_KEY"] = _key(given, settings["WANDB_BASE_URL"])
        reach(settings["WANDB_BASE_URL"])
    else:
        settings["WANDB_BASE_URL"] = _embedded(project)
        settings["WANDB_API_KEY"] = LOCAL_KEY
        for name in ("NO_PROXY", "no_proxy"):
            settings[name] = ",".join(filter(None, (given.get(name), "127.0.0.1")))
    return settings


def _key(given: Mapping[str, str], server: str) -> str:
    if key := given.get("WANDB_API_KEY"):
        return key
    raise UsageError(
        f"WANDB_BASE_URL names {server}, but WANDB_API_KEY is not set",
        wanted="both, or neither for the embedded tracker",
        next_step="export WANDB_API_KEY=…, or unset WANDB_BASE_URL",
    )


def reach(server: str) -> None:
    """The client would take 90 s to say that nobody is there."""
    address = urlsplit(server)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError as error:
        raise UnavailableError(
            f"the W&B server {server} does not answer: {error}",
            wanted="the server that WANDB_BASE_URL names",
            next_step="check WANDB_BASE_URL and the network, or unset it and WANDB_API_KEY for the embedded tracker",
        ) from None


def _embedded(project: Project) -> str:
    daemon = tracker(project)
    port = free_port()
    data = project.state / "tracker"
    command = [sys.executable, "-m", "ekiben.tracker", "--data", str(data), "--host", "127.0.0.1", "--port", str(port)]
    daemon.start(command, url=f"http://127.0.0.1:{port}", env=dict(os.environ), cwd=project.root)
    daemon.wait_ready(lambda: _listens(daemon.url), timeout=30)
    return daemon.url


def _listens(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
