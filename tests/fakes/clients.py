"""Clients that keep asking a service, each in a thread, and count what went wrong."""

import http.client
import select
import threading
import time
from typing import Self


class Client:
    """Asks GET / again and again on a new connection each; `answers` are the bodies seen, without repetitions."""

    def __init__(self, port: int, pause: float = 0.002) -> None:
        self.port, self.pause = port, pause
        self.answered = 0
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self.ask()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{time.time():.3f} {error!r}")
            else:
                self.answered += 1
                if answer not in self.answers[-1:]:
                    self.answers.append(answer)
            time.sleep(self.pause)

    def ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            return self.exchange(connection)
        finally:
            connection.close()

    def exchange(self, connection: http.client.HTTPConnection) -> str:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise http.client.HTTPException(f"{response.status} {body}")
        return body


class KeptClient(Client):
    """Keeps its connection, as HTTP clients do: one that was closed while idle is opened anew before use, and a request
    that a kept connection lost before any answer is sent again once (RFC 9112, 9.3.1); `again` counts those."""

    connection: http.client.HTTPConnection | None = None
    again = 0

    def ask(self) -> str:
        kept = self.connection
        if kept and kept.sock and not select.select([kept.sock], [], [], 0)[0]:
            try:
                return self.exchange(kept)
            except (http.client.RemoteDisconnected, ConnectionError):
                self.again += 1
        if kept:
            kept.close()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        return self.exchange(self.connection)
