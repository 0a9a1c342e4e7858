"""One HTTP/1.1 request, one attempt, over gevent's sockets: what a load generator needs and nothing else.

Written out because it is what limits the offered rate: a request through a general client costs three times as much.
Kept connections are used again, the last one first; one that the server has closed meanwhile is found out *before*
anything is sent on it. What has been sent is never sent again.
"""

import socket
import ssl
from urllib.parse import urlsplit

import gevent
import httptools
from gevent import socket as gsocket
from gevent.ssl import SSLContext

MAX_ANSWER = 64 * 1024 * 1024  # bytes


class ConnectionClosed(ConnectionError):
    """The server closed before its answer was complete."""


class Answer:
    """One response as it comes in; httptools calls the methods."""

    __slots__ = ("_ends", "_parts", "_size", "complete", "keep", "parser", "status")

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.complete = self.keep = False
        self._ends = False  # the headers say where the body ends
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def body(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def on_header(self, name: bytes, _: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._ends = True

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_ANSWER:
            raise ValueError(f"answer larger than {MAX_ANSWER:,} bytes")

    def on_message_complete(self) -> None:
        if 100 <= self.status < 200:  # an interim response: the answer follows
            self._ends = False
            return
        self.complete = True
        self.keep = self.parser.should_keep_alive()  # known only now: afterwards the parser awaits the next response

    def closed(self, received: int) -> None:
        """The server closed: that is where the body ends, if nothing else says so."""
        if self.status < 200 or self._ends:
            raise ConnectionClosed(f"closed after {received:,} bytes of the answer")
        self.complete = True


class Client:
    """Requests to one server. Each takes an idle connection or opens one; any number may be under way."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an address of a service: {url!r}; wanted http://HOST[:PORT]")
        self._name = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._tls = _unverified() if parts.scheme == "https" else None
        self._head = (
            f"HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nContent-Type: application/json\r\n"
            "Accept: application/json\r\nUser-Agent: ekiben\r\nContent-Length: "
        )
        self._addresses: list[tuple[int, tuple[str, int]]] = []
        self._idle: list[gsocket.socket] = []

    def post(self, path: str, body: bytes, timeout: float) -> tuple[int, bytes]:
        """Status and body of the whole answer. gevent.Timeout when it takes longer than `timeout` seconds in all,
        connecting included; any other exception is a failure of the transport."""
        request = f"POST {self._prefix}{path} {self._head}{len(body)}\r\n\r\n".encode("latin-1") + body
        with gevent.Timeout(timeout):
            connection = self._kept() or self._connect()
            try:
                answer = self._exchange(connection, request)
            except BaseException:
                connection.close()
                raise
            if answer.keep:
                self._idle.append(connection)
            else:
                connection.close()
            return answer.status, answer.body

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, connection: gsocket.socket, request: bytes) -> Answer:
        connection.sendall(request)
        answer, received = Answer(), 0
        while not answer.complete:
            data = connection.recv(65536)
            if not data:
                answer.closed(received)
                break
            received += len(data)
            answer.parser.feed_data(data)
        return answer

    def _kept(self) -> gsocket.socket | None:
        """An idle connection that the server has not closed meanwhile."""
        while self._idle:
            connection = self._idle.pop()
            try:
                found = connection._sock.recv(1, socket.MSG_PEEK)  # gevent's own recv would wait
            except BlockingIOError:  # nothing to read, as it should be
                return connection
            except OSError:
                found = b""
            if found and self._tls:  # a session ticket
                return connection
            connection.close()
        return None

    def _connect(self) -> gsocket.socket:
        if not self._addresses:  # looked up once: the resolver is a thread pool, and would be a queue of its own
            found = gsocket.getaddrinfo(self._name, self._port, type=socket.SOCK_STREAM)
            self._addresses = [(family, address) for family, _, _, _, address in found]
        refused: OSError | None = None
        for family, address in self._addresses:
            connection = gsocket.socket(family, socket.SOCK_STREAM)
            try:
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._tls.wrap_socket(connection, server_hostname=self._name) if self._tls else connection
            except OSError as error:
                connection.close()
                refused = error
            except BaseException:
                connection.close()
                raise
        assert refused is not None
        raise refused


def _unverified() -> SSLContext:
    """As in Locust's FastHttpUser: a service under test seldom has a certificate of a known authority."""
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
