"""What kube-proxy does with connections to a Service, for real sockets."""

import contextlib
import random
import socket
import threading
from typing import Self
from urllib.parse import urlsplit

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.proxying import ready_endpoints

LOOK_S = 0.1  # virtual seconds between two looks at the slices


class ServiceProxy:
    """Listens for a Service: each new TCP connection goes to a ready endpoint of the moment, chosen at random, and
    stays there until one side closes it. Without a ready endpoint it is refused: kube-proxy rejects it with an ICMP
    error, this closes it with a reset. Pods need a `backend` that is a URL. With `lag_s` the node follows the slices
    only so many virtual seconds later, as kube-proxy does: until then connections go where it thinks the pods are."""

    def __init__(
        self, cluster: Cluster, service: str, namespace: str = "default", seed: int = 0, lag_s: float = 0.0
    ) -> None:
        self.cluster, self.service, self.namespace, self._lag_s = cluster, service, namespace, lag_s
        self._rules: list[tuple[str, str]] = []  # pods' names and URLs, as the node knows them
        self.connections: dict[str, int] = {}  # how many each pod got
        self._chance = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        if self._lag_s:
            with self.cluster.store.changed:
                self._rules = self._ready()
                self._learn()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for each in list(self._open):
            _close(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self.cluster.store.changed:  # no virtual time passes between the choice and the connection
                    backend = socket.create_connection(self._choose(), timeout=10)
            except OSError:
                _reset(client)
                continue
            for each in (client, backend):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(each)
            for source, target in ((client, backend), (backend, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _choose(self) -> tuple[str, int]:
        rules = self._rules if self._lag_s else self._ready()
        if not rules:
            raise ConnectionRefusedError(f"no endpoints for {self.service}")
        name, backend = self._chance.choice(rules)
        self.connections[name] = self.connections.get(name, 0) + 1
        target = urlsplit(backend)
        return target.hostname or "", target.port or 80

    def _ready(self) -> list[tuple[str, str]]:
        found = []
        for end in ready_endpoints(self.cluster, self.namespace, self.service):
            pod = self.cluster.store.get(("", "pods"), self.namespace, end["targetRef"]["name"])
            backend = self.cluster.kubelet.backend(pod) if pod else None
            if isinstance(backend, str):
                found.append((end["targetRef"]["name"], backend))
        return found

    def _learn(self) -> None:
        """What the slices say now reaches the node after its lag."""
        found = self._ready()

        def write() -> None:
            self._rules = found

        self.cluster.controllers.after(self._lag_s, write)
        self.cluster.controllers.after(LOOK_S, self._learn)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(target)
            _reset(source)
        finally:
            self._open.discard(source)


def _reset(connection: socket.socket) -> None:
    """Closes with RST, so that the other side sees an error and not a clean end."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RD)
    connection.close()


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
