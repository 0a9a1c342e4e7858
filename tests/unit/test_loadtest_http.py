"""The client of the load generator, against servers that answer in every way that HTTP/1.1 knows."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekiben.loadtest.http import Client, ConnectionClosed
from ekiben.loadtest.timer import Timer


class Server:
    """Answers each request on a connection with the next of `answers`, in pieces; then it closes."""

    def __init__(self, *answers: list[bytes], **tls: Any) -> None:
        self.answers, self.connections = [*answers], 0
        self.heads: list[str] = []
        self.stream = StreamServer(("127.0.0.1", 0), self.serve, **tls)
        self.stream.start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.stream.server_port}"

    def serve(self, connection: socket.socket, _: Any) -> None:
        self.connections += 1
        file = connection.makefile("rb")
        while self.answers:
            length, head = 0, ""
            while line := file.readline().strip().decode():
                head += f"{line}\n"
                length = int(line.split(":")[1]) if line.lower().startswith("content-length:") else length
            if not head:
                break
            self.heads.append(head + file.read(length).decode())
            for piece in self.answers.pop(0):
                connection.sendall(piece)
                gevent.sleep(0.001)
            if self.answers and self.answers[0] == [b"CLOSE"]:
                self.answers.pop(0)
                break
        connection.close()


@contextmanager
def asking(*answers: list[bytes], **tls: Any) -> Iterator[tuple[Client, Server]]:
    server = Server(*answers, **tls)
    client = Client(server.url)
    try:
        yield client, server
    finally:
        client.close()
        server.stream.stop(timeout=0)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([OK], 200, b"ok"),
        ([bytes([byte]) for byte in OK], 200, b"ok"),
        ([b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"], 503, b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"3\r\n...\r\n0\r\n\r\n"],
            200,
            b"ok...",
        ),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], 200, b"ok"),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK], 200, b"ok"),
    ],
)
def test_every_kind_of_answer_is_read_whole(pieces: list[bytes], status: int, body: bytes) -> None:
    with asking(pieces, pieces, [OK]) as (client, server):
        for _ in range(2):
            assert client.post("/x", b"{}", 5.0) == (status, body)
        assert server.connections == 1, "a connection that may be kept is used again"


def test_a_body_that_ends_with_the_connection() -> None:
    with asking([b"HTTP/1.1 200 OK\r\n\r\nas much as ", b"there is"], [b"CLOSE"], [OK]) as (client, server):
        assert client.post("/x", b"{}", 5.0) == (200, b"as much as there is")
        assert client.post("/x", b"{}", 5.0) == (200, b"ok")
        assert server.connections == 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, len(OK) - 1))
def test_an_answer_that_breaks_off_is_an_error_and_never_asked_again(length: int) -> None:
    with asking([OK[:length]], [b"CLOSE"], [OK]) as (client, server):
        with pytest.raises(ConnectionClosed, match="closed after"):
            client.post("/x", b"{}", 5.0)
        assert len(server.heads) == 1


def test_a_connection_closed_while_idle_is_found_out_before_anything_is_sent() -> None:
    with asking([OK], [b"CLOSE"], [OK], [b"CLOSE"], [OK]) as (client, server):
        for _ in range(3):
            assert client.post("/x", b"{}", 5.0)[0] == 200
            gevent.sleep(0.02)
        assert server.connections == 3 and len(server.heads) == 3


def test_what_is_no_http_is_an_error() -> None:
    with asking([b"hello?\r\n\r\n"]) as (client, _), pytest.raises(Exception, match="HTTP"):
        client.post("/x", b"{}", 5.0)


def test_the_time_is_for_the_whole_answer() -> None:
    with asking([bytes([byte]) for byte in OK * 20], [OK]) as (client, _), pytest.raises(gevent.Timeout):
        client.post("/x", b"{}", 0.02)


def test_the_request_says_what_it_must() -> None:
    server = Server([OK])
    client = Client(server.url + "/base/")
    client.post("/predict", json.dumps({"ü": 1}, ensure_ascii=False).encode(), 5.0)
    head = server.heads[0].split("\n")
    assert head[0] == "POST /base/predict HTTP/1.1" and f"Host: {server.url.removeprefix('http://')}" in head
    assert "Content-Type: application/json" in head and head[-1] == '{"ü": 1}'
    server.stream.stop(timeout=0)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Client(url)


def test_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl")
    with asking(*[[OK]] * 3, keyfile=str(key), certfile=str(certificate)) as (client, server):
        for _ in range(3):
            assert client.post("/x", b"{}", 5.0) == (200, b"ok")
            gevent.sleep(0.02)  # the session tickets that come unasked do not end the connection
        assert server.connections == 1


def test_a_timer_never_wakes_early() -> None:
    timer = Timer()
    try:
        for ahead in (0.0, -1.0, 0.0001, 0.003, 0.02, 0.001):
            at = time.monotonic() + ahead
            timer.wait(at)
            assert 0 <= time.monotonic() - at < 1.0 + max(0.0, -ahead)
    finally:
        timer.close()


def test_a_timer_that_is_killed_can_wait_again() -> None:
    timer = Timer()
    waiter = gevent.spawn(timer.wait, time.monotonic() + 60)
    gevent.sleep(0.01)
    waiter.kill()
    at = time.monotonic() + 0.005
    timer.wait(at)
    assert 0 <= time.monotonic() - at < 1.0
    timer.close()


def test_where_there_is_no_kernel_timer_another_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekiben.loadtest.timer._create", lambda: None)
    timer = Timer()
    at = time.monotonic() + 0.005
    timer.wait(at)
    assert 0 <= time.monotonic() - at < 1.0
    timer.close()
