"""The API server on a socket, a kubeconfig for it, real time as its clock, and httpx2 without sockets."""

import http.server
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.faults import Answer, ConnectionLost


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True
    cluster: Cluster

    def _serve(self) -> None:
        target = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        try:
            params = dict(parse_qsl(target.query, keep_blank_values=True))
            answer = self.cluster.request(self.command, target.path, params, dict(self.headers.items()), body)
            if isinstance(answer.body, Iterator):
                self._stream(answer.body)
            else:
                self._answer(answer)
        except ConnectionLost:
            self._break()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _answer(self, answer: Answer) -> None:
        content = encoded(answer)
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _stream(self, events: Iterator[Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for event in events:
            line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _break(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error; anything else is, and loud."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def encoded(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    if isinstance(answer.body, str):
        return answer.body.encode()
    return json.dumps(answer.body, separators=(",", ":")).encode()


def certified(folder: Path) -> Path:
    """A certificate for a server on loopback, which speaks for itself; its key lies beside it."""
    path = folder / "server.crt"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path.with_suffix(".key")), "-out", str(path)]
    subprocess.run([*made, *named], check=True, capture_output=True)
    return path


@contextmanager
def served(cluster: Cluster, speed: float | None = None, certificate: Path | None = None) -> Iterator[str]:
    """The URL of the cluster's API server, as long as the block runs. With `speed` real time drives the clock: so many
    virtual seconds pass in a real one; without, only `cluster.advance` does. With a `certificate`, by TLS."""
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = _Server(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        # The handshake is the first read's, in a thread of its own: who connects and says nothing holds up nobody.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    before, cluster.driven = cluster.driven, True
    stop = threading.Event()
    driver = threading.Thread(target=_drive, args=(cluster, speed or 0.0, stop), daemon=True)
    if speed:
        driver.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        stop.set()
        if speed:
            driver.join()
        cluster.driven = before
        server.shutdown()
        server.server_close()


def _drive(cluster: Cluster, speed: float, stop: threading.Event) -> None:
    last = time.monotonic()
    while not stop.wait(0.005):
        now = time.monotonic()
        cluster.advance((now - last) * speed)
        last = now


def write_kubeconfig(
    path: Path,
    url: str,
    token: str = "",
    namespace: str = "default",
    context: str = "fake",
    authority: Path | None = None,
) -> Path:
    """A kubeconfig with one context; `authority` is the certificate that the server's is believed by."""
    user = {"token": token} if token else {}
    trusted = {"certificate-authority-data": b64encode(authority.read_bytes()).decode()} if authority else {}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": url, **trusted}}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": namespace}}],
        "current-context": context,
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    path.chmod(0o600)
    return path


def transport(cluster: Cluster, before: Callable[[str, str], None] | None = None) -> Any:
    """An httpx2 transport that asks the cluster in this process: `lightkube.Client(config, transport=…)`. `before` is
    called with method and path of each request and may raise, as a crash of the client would."""
    import httpx2

    class Transport(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if before:
                before(request.method, request.url.path)
            body = request.read() or None
            try:
                answer = cluster.request(
                    request.method, request.url.path, dict(request.url.params), dict(request.headers), body
                )
            except ConnectionLost as error:
                text = "Server disconnected without sending a response."
                raise httpx2.RemoteProtocolError(text, request=request) from error
            if isinstance(answer.body, Iterator):
                return httpx2.Response(answer.status, headers=answer.headers, stream=_Events(answer.body))
            return httpx2.Response(answer.status, headers=answer.headers, content=encoded(answer))

    class _Events(httpx2.SyncByteStream):
        def __init__(self, events: Iterator[Any]) -> None:
            self.events = events

        def __iter__(self) -> Iterator[bytes]:
            try:
                for event in self.events:
                    yield json.dumps(event, separators=(",", ":")).encode() + b"\n"
            except ConnectionLost as error:
                raise httpx2.RemoteProtocolError(
                    "peer closed connection without sending complete message body"
                ) from error

    return Transport()
