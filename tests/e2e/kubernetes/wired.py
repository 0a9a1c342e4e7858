"""Containers of the fake that are real: servers on sockets, which end as BentoML's end, and a client's process."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import uvicorn

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.traffic import ServiceProxy
from tests.fakes.pod_metrics import Counters

LAG_S = 0.5  # virtual: how late a node learns of endpoints; measured were 0.16-0.26 s, and 1.3 s at worst


class Model:
    """uvicorn, as below BentoML: after SIGTERM it accepts no more, and finishes what it has."""

    def __init__(self) -> None:
        self.counters = Counters()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self.app, log_level="error", lifespan="off", interface="asgi3", timeout_graceful_shutdown=5
        )
        self.server = uvicorn.Server(config)
        threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True).start()

    def end(self) -> None:
        self.server.should_exit = True

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (part := await receive())["type"] == "http.request":
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        content, said = b"application/json", b"{}"
        if scope["path"] == "/metrics":
            content, said = b"text/plain", self.counters.text().encode()
        elif scope["path"] == "/predict":
            said = json.dumps({"classes": [1 for _ in json.loads(body)["rows"]]}).encode()
            self.counters.answered("/predict", 200, 0.001)
        headers = [(b"content-type", content), (b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


class Wires:
    """`begins`, `stopped` and `log` are what a kubelet's Plan takes. A Service's name leads to its proxy."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._models: dict[str, Model] = {}
        self._clients: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self._stack = contextlib.ExitStack()

    def serves(self, pod: Any) -> str:
        model = self._models[pod["metadata"]["uid"]] = Model()
        return model.url

    def asks(self, pod: Any) -> str:
        """Runs the container's command, with the Service's address as the node would find it."""
        (container,) = pod["spec"]["containers"]
        env = {each["name"]: each["value"] for each in container["env"]}
        service, namespace = env["URL"].removeprefix("http://").split(".")[:2]
        proxy = self._stack.enter_context(ServiceProxy(self.cluster, service, namespace, lag_s=LAG_S))
        env["URL"] = f"{proxy.url}/{env['URL'].split('/', 3)[3]}"
        log = Path(tempfile.mkstemp(suffix=".log")[1])
        with log.open("wb") as out:
            command = [sys.executable, *container["command"][1:]]
            process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=out)
        self._clients[pod["metadata"]["uid"]] = (process, log)
        return proxy.url

    def stopped(self, pod: Any) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._models:
            self._models.pop(uid).end()
        if uid in self._clients:
            self._clients[uid][0].kill()

    def log(self, pod: Any) -> str:
        return self._clients[pod["metadata"]["uid"]][1].read_text()

    def close(self) -> None:
        for model in self._models.values():
            model.end()
        for process, log in self._clients.values():
            process.kill()
            process.wait()
            log.unlink()
        self._stack.close()
