"""The real switch process between real sockets."""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekiben.files import write_atomically
from ekiben.processes import free_port

Handler = Callable[[socket.socket], None]


class Backend:
    """A TCP server whose connections are handled in threads."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.errors: list[Exception] = []
        self.open = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.open += 1
        try:
            with connection:
                self._handler(connection)
        except OSError as error:
            self.errors.append(error)
        finally:
            self.open -= 1

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def says(text: bytes) -> Handler:
    """Answers each message with `text`."""

    def handler(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(text)

    return handler


UVLOOP = ["-m", "ekiben.platforms.switch"]
ASYNCIO = ["-c", "import sys; sys.modules['uvloop'] = None; from ekiben.platforms.switch import main; main()"]


class Switch:
    def __init__(self, folder: Path, program: list[str] = UVLOOP, limit: int = 0) -> None:
        self.state, self.port, self.epoch = folder / "state.json", free_port(), 0
        command = [sys.executable, *program, str(self.state), "--port", str(self.port)]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stderr=log,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)) if limit else None,
            )
        self.backends: list[Backend] = []

    def backend(self, handler: Handler) -> Backend:
        made = Backend(handler)
        self.backends.append(made)
        return made

    def select(self, blue: Backend | str | None) -> None:
        self.epoch += 1
        address = blue.address if isinstance(blue, Backend) else blue or ""
        slots = {"blue": {"address": address}, "green": {"address": ""}}
        state = {"selector": "blue" if blue else None, "epoch": self.epoch, "slots": slots}
        write_atomically(self.state, json.dumps(state))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def ask(self) -> bytes:
        with self.connect() as connection:
            connection.sendall(b"?")
            return connection.recv(100)

    def descriptors(self) -> int:
        return int(psutil.Process(self.process.pid).num_fds())

    def eventually(self, seen: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < deadline, f"did not happen in time\n{self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def listens(self) -> bool:
        try:
            self.connect().close()
        except ConnectionResetError:
            return True  # it took the connection, and with nothing live it closed it before connect() returned
        except ConnectionRefusedError:
            return False
        return True

    def stop(self) -> None:
        for backend in self.backends:
            backend.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture(scope="module", params=[UVLOOP, ASYNCIO], ids=["uvloop", "asyncio"])
def switch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    made = Switch(tmp_path_factory.mktemp("switch"), request.param)
    made.eventually(made.listens)
    yield made
    made.stop()
    log = made.log.read_text()
    assert "Traceback" not in log, log


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def test_a_connection_stays_and_the_next_one_goes_where_the_selector_points(switch: Switch) -> None:
    blue, green = switch.backend(says(b"blue")), switch.backend(says(b"green"))
    switch.select(blue)
    with switch.connect() as kept:
        kept.sendall(b"?")
        assert kept.recv(100) == b"blue"
        for backend, name in [(green, b"green"), (blue, b"blue")] * 20:
            switch.select(backend)
            assert switch.ask() == name, "the very next connection"
            kept.sendall(b"?")
            assert kept.recv(100) == b"blue"
    assert switch.state.with_name("state.json.applied").read_text() == str(switch.epoch)


@pytest.mark.parametrize("selected", [None, "127.0.0.1:1"], ids=["nothing live", "nobody listens"])
def test_without_a_backend_the_connection_is_reset_at_once(switch: Switch, selected: str | None) -> None:
    switch.select(selected)
    begun = time.monotonic()
    with pytest.raises(ConnectionResetError):
        switch.ask()
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"selector": "blue"}', '{"selector":"blue","slots":{"blue":{"address":"x"}}}']
)
def test_while_the_state_is_broken_the_last_good_one_counts(switch: Switch, damage: str) -> None:
    switch.select(switch.backend(says(b"good")))
    assert switch.ask() == b"good"
    write_atomically(switch.state, damage)
    assert switch.ask() == b"good"
    switch.state.unlink()
    assert switch.ask() == b"good"
    switch.select(switch.backend(says(b"better")))
    assert switch.ask() == b"better"


def test_a_half_closed_connection_still_gets_its_answer(switch: Switch) -> None:
    def after_the_end(connection: socket.socket) -> None:
        received = read_all(connection)
        time.sleep(0.2)
        connection.sendall(b"got %d" % len(received))

    switch.select(switch.backend(after_the_end))
    with switch.connect() as connection:
        connection.sendall(b"x" * 100_000)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"got 100000"


def test_a_backend_that_ends_first_still_gets_what_the_client_sends(switch: Switch) -> None:
    received = []

    def speaks_first(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        received.append(read_all(connection))

    switch.select(switch.backend(speaks_first))
    for _ in range(300):  # what comes before the switch has joined the two must not be lost
        with switch.connect() as connection:
            assert read_all(connection) == b"hello"
            connection.sendall(b"y" * 10_000)
    switch.eventually(lambda: received == [b"y" * 10_000] * 300)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=300_000), max_size=6), st.booleans())
def test_what_goes_in_comes_out(switch: Switch, chunks: list[bytes], in_one_go: bool) -> None:
    if not switch.backends or switch.backends[-1]._handler is not echo:
        switch.select(switch.backend(echo))
    with switch.connect() as connection:
        sender = threading.Thread(target=lambda: _send(connection, [b"".join(chunks)] if in_one_go else chunks))
        sender.start()
        assert read_all(connection) == b"".join(chunks)
        sender.join()


def _send(connection: socket.socket, chunks: list[bytes]) -> None:
    for chunk in chunks:
        connection.sendall(chunk)
    connection.shutdown(socket.SHUT_WR)


def test_a_slow_reader_holds_the_sender_back(switch: Switch) -> None:
    sent = [0]

    def pours(connection: socket.socket) -> None:
        connection.recv(1)
        for _ in range(200):
            connection.sendall(b"z" * 1_000_000)
            sent[0] += 1

    switch.select(switch.backend(pours))
    memory = psutil.Process(switch.process.pid)
    before = memory.memory_info().rss
    with switch.connect() as connection:
        connection.sendall(b"?")
        time.sleep(0.7)
        assert sent[0] < 50, "the sender waits"
        assert memory.memory_info().rss - before < 20_000_000
        assert len(read_all(connection)) == 200_000_000


def test_a_cut_answer_does_not_look_complete(switch: Switch) -> None:
    def dies(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"half")
        time.sleep(0.1)
        reset(connection)

    switch.select(switch.backend(dies))
    with switch.connect() as connection:
        connection.sendall(b"?")
        assert connection.recv(100) == b"half"
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_a_client_that_goes_away_is_noticed_by_the_backend(switch: Switch) -> None:
    backend = switch.backend(echo)
    switch.select(backend)
    connection = switch.connect()
    connection.sendall(b"?")
    assert connection.recv(1) == b"?"
    reset(connection)
    switch.eventually(lambda: len(backend.errors) == 1)
    assert isinstance(backend.errors[0], ConnectionResetError)


def test_clients_that_abort_in_every_state_leave_nothing_open(switch: Switch) -> None:
    backend = switch.backend(echo)
    switch.select(backend)
    switch.ask()
    switch.eventually(lambda: backend.open == 0)
    before = switch.descriptors()
    for number in range(400):
        connection = switch.connect()
        if number % 4 > 0:
            connection.sendall(b"?")
        if number % 4 > 1:
            connection.shutdown(socket.SHUT_WR)
        if number % 4 > 2:
            connection.recv(1)
        reset(connection) if number % 8 < 4 else connection.close()
    switch.eventually(lambda: switch.descriptors() <= before)
    switch.eventually(lambda: backend.open == 0)


def test_a_thousand_connections_at_once(switch: Switch) -> None:
    switch.select(switch.backend(echo))
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(switch.connect()) for _ in range(1000)]
        for number, connection in enumerate(connections):
            connection.sendall(b"%04d" % number)
        assert [connection.recv(4) for connection in connections] == [b"%04d" % number for number in range(1000)]


def test_when_descriptors_run_out_it_lives_on(tmp_path: Path) -> None:
    switch = Switch(tmp_path, limit=40)
    try:
        switch.select(switch.backend(echo))
        switch.eventually(switch.listens)
        assert switch.ask() == b"?"
        connections = []
        for _ in range(60):
            connections.append(switch.connect())
            with contextlib.suppress(OSError):
                connections[-1].sendall(b"?")
        time.sleep(0.3)
        assert switch.process.poll() is None
        for connection in connections:
            connection.close()
        switch.eventually(lambda: _answers(switch), 15)
    finally:
        switch.stop()


def _answers(switch: Switch) -> bool:
    try:
        return switch.ask() == b"?"
    except OSError:
        return False


def test_it_says_why_it_cannot_listen(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "ekiben.platforms.switch", str(tmp_path / "state"), "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, env=dict(os.environ))
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr.lower()
