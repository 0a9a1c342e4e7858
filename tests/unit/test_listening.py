"""Our servers as processes: whoever does not finish a request's head is hung up on, on a new connection and a kept one.

It stands on HTTP/1.1 and on uvicorn, which has no such limit of its own.
"""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ekiben import listening

HEAD_S = 0.5
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


async def answer(request: Request) -> Response:
    return PlainTextResponse(await request.body())


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(listening, "HEAD_SECONDS", HEAD_S)
    listener = listening.listen("127.0.0.1", 0)
    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", http=listening._Protocol, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()
    server.should_exit = True
    thread.join(10)


def heard(connection: socket.socket, seconds: float) -> bytes | None:
    """What comes within that time: nothing where it is closed, None where it stays open and silent."""
    connection.settimeout(seconds)
    try:
        return connection.recv(4096)
    except TimeoutError:
        return None
    except ConnectionError:
        return b""


@pytest.mark.parametrize("part", [b"", b"POST / HTT", REQUEST[:30]])
def test_a_head_that_does_not_end_is_hung_up_on(address: tuple[str, int], part: bytes) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(part)
        assert heard(connection, HEAD_S / 2) is None
        assert heard(connection, 4 * HEAD_S) == b""


def test_on_a_kept_connection_too_but_not_between_requests_or_within_a_body(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(REQUEST)
        time.sleep(2 * HEAD_S)  # the body has its own limit, where there is one
        connection.sendall(b"ok")
        assert (heard(connection, 5) or b"").endswith(b"ok")
        time.sleep(2 * HEAD_S)
        connection.sendall(REQUEST + b"ok")
        assert (heard(connection, 5) or b"").endswith(b"ok")
        connection.sendall(REQUEST[:20])
        assert heard(connection, 4 * HEAD_S) == b""
