"""One HTTP request, one attempt, by geventhttpclient: the client beneath Locust's FastHttpUser."""

from typing import Any

import gevent
from geventhttpclient.client import HTTPClient, HTTPClientPool
from geventhttpclient.url import URL

TIME_OUT = "time-out"
WRONG = "wrong answer"


class OneAttempt(HTTPClient):  # type: ignore[misc]  # untyped to mypy
    """An HTTPClient that never sends a request twice: a load test must see each failure."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        # request() makes pool.size + 1 further attempts when a server closes, and has no setting for it.
        self._connection_pool.size = -1


class OneAttemptPool(HTTPClientPool):  # type: ignore[misc]
    def get_client(self, url: str | URL) -> HTTPClient:
        parsed = url if isinstance(url, URL) else URL(url)
        key = parsed.host, parsed.port
        if key not in self.clients:
            self.clients[key] = OneAttempt.from_url(parsed, **self.client_args)
        return self.clients[key]


def post(client: HTTPClient, path: str, body: bytes, timeout: float) -> tuple[int, bytes]:
    """Status and body of the whole answer. gevent.Timeout when it takes longer than `timeout` seconds in all; any
    other exception is a failure of the transport."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    with gevent.Timeout(timeout):  # the client's own time-outs are per read: a slow drip would outlast them
        response = client.request("POST", path, body=body, headers=headers)
        return response.status_code, response.read()
