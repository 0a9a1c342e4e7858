"""The local platform with real processes, a real switch and clients that never stop asking.

What a slot runs is a small HTTP server where the platform is looked at, and real BentoML at the end.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ekiben.errors import ConflictError, EkibenError, NotFoundError, UnavailableError, UsageError
from ekiben.platforms import local
from ekiben.platforms.local import HOLDER, LocalPlatform
from ekiben.processes import MARK, free_port
from ekiben.rollout.plan import Live
from tests.fakes.clients import Client, KeptClient
from tests.fakes.stub_platform import StubPlatform, bento, deploy, release

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def less_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "DRAIN_SECONDS", 0.1)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[StubPlatform]:
    made = StubPlatform(tmp_path / ".ekiben", "digits", free_port())
    yield made
    made.down()
    assert processes(tmp_path) == [], "left behind"


def processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(f"{folder}/"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def ask(platform: LocalPlatform) -> str:
    return Client(int(platform.url.rpartition(":")[2])).ask()


def driver(platform: LocalPlatform, version: str) -> "subprocess.Popen[str]":
    """A deploy in a process of its own, which can be killed."""
    command = [sys.executable, "-m", "tests.fakes.stub_platform"]
    arguments = [str(platform.folder.parents[1]), platform.url.rpartition(":")[2], version]
    return subprocess.Popen([*command, *arguments], cwd=ROOT, text=True, stderr=subprocess.PIPE)


@pytest.fixture
def somebody() -> Iterator[str]:
    """The pid of another process that is alive."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield str(process.pid)
    process.kill()
    process.wait()


def test_blue_then_green_then_blue(platform: StubPlatform) -> None:
    assert platform.observe().selector is None
    assert platform.observe().idle == "blue"
    assert platform.history() == []
    platform.retire()
    platform.ensure_serving()
    for version, slot in [("a", "blue"), ("b", "green"), ("c", "blue")]:
        endpoint = platform.stage(bento(version), "test")
        assert endpoint.slot == slot
        assert Client(int(endpoint.url.rpartition(":")[2])).ask() == f"digits:{version}", (
            "before the switch, only there"
        )
        platform.switch(release(platform, version))
        assert ask(platform) == f"digits:{version}"
        assert platform.observe().ready == ({"blue", "green"} if version != "a" else {"blue"})
        platform.retire()
        seen = platform.observe()
        assert (seen.selector, seen.ready, seen.held) == (slot, {slot}, frozenset())
    assert [r.bento.version for r in platform.history()] == ["a", "b", "c"]


def test_what_is_so_already_is_not_done_again(platform: StubPlatform) -> None:
    first = platform.stage(bento("a"), "test")
    pids = {process.pid for process in processes(platform.folder)}
    assert platform.stage(bento("a"), "test") == first
    platform.switch(release(platform, "a"))
    before = platform.state_path.read_text()
    platform.switch(release(platform, "a"))
    assert platform.stage(bento("a"), "test") == first, "live: tested where it is"
    platform.retire()
    platform.ensure_serving()
    assert platform.state_path.read_text() == before
    assert {process.pid for process in processes(platform.folder)} == pids
    assert platform.plan(Live(release(platform, "a"), "test")) == []


def test_no_client_notices_twenty_switches(platform: StubPlatform) -> None:
    deploy(platform, "0")
    port = int(platform.url.rpartition(":")[2])
    with Client(port, pause=0.005) as new, KeptClient(port, pause=0.005) as kept:
        for number in range(1, 21):
            deploy(platform, str(number))
            assert ask(platform) == f"digits:{number}"
    assert new.failures == kept.failures == []
    assert new.answers == [f"digits:{number}" for number in range(21)]
    assert kept.answers == new.answers
    assert new.answered > 500


def test_a_long_request_ends_where_it_began(platform: StubPlatform) -> None:
    deploy(platform, "a")
    with socket.create_connection(("127.0.0.1", int(platform.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        deploy(platform, "b")
        assert connection.recv(10_000).endswith(b"digits:a")


def test_killed_at_any_moment_a_deploy_leaves_what_is_live_and_the_next_one_converges(platform: StubPlatform) -> None:
    begun = time.monotonic()
    first = driver(platform, "first")
    assert first.wait(30) == 0
    with Client(int(platform.url.rpartition(":")[2])) as client:
        assert driver(platform, "second").wait(30) == 0
        whole = (time.monotonic() - begun) / 2
        for number in range(6):
            killed = driver(platform, f"killed-{number}")
            time.sleep(random.uniform(0.25, 1.1) * whole)
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            assert ask(platform).startswith("digits:")
            if number % 2:
                after = driver(platform, f"after-{number}")
                assert after.wait(30) == 0, after.communicate()[1]
                assert ask(platform) == f"digits:after-{number}"
    assert client.failures == []
    servers = [process for process in processes(platform.folder) if "slot_server" in " ".join(process.cmdline())]
    assert len(servers) <= 2


def test_deploys_at_the_same_time_get_in_turn_or_are_told_who_is_there(platform: StubPlatform) -> None:
    deploy(platform, "first")
    with Client(int(platform.url.rpartition(":")[2])) as client:
        for number in range(2):
            drivers = {f"{number}{letter}": driver(platform, f"{number}{letter}") for letter in "xyz"}
            ended = {version: (process.communicate()[1], process.returncode) for version, process in drivers.items()}
            done = {version for version, (_, code) in ended.items() if code == 0}
            assert done, ended
            assert all("ConflictError" in said for said, code in ended.values() if code), ended
            assert ask(platform).removeprefix("digits:") in done
    assert client.failures == []


def test_a_slot_that_somebody_holds_is_left_alone(
    platform: StubPlatform, somebody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(platform, "a")
    with monkeypatch.context() as other:
        other.setenv(HOLDER, somebody)
        theirs = platform.stage(bento("b"), "run-7 of anna")
    with pytest.raises(ConflictError, match=rf"green of digits is held by run-7 of anna \(pid {somebody}"):
        platform.stage(bento("c"), "test")
    with pytest.raises(ConflictError, match="run-7 of anna"):
        platform.switch(release(platform, "b"))
    platform.retire()
    assert Client(int(theirs.url.rpartition(":")[2])).ask() == "digits:b"
    with monkeypatch.context() as other:
        other.setenv(HOLDER, somebody)
        platform.switch(release(platform, "b"))
    with pytest.raises(ConflictError, match="run-7 of anna"):
        platform.stage(bento("c"), "test")
    assert platform.rollback("bob").bento == bento("a"), "what they keep, they keep for just this"
    psutil.Process(int(somebody)).kill()
    deploy(platform, "c")
    assert ask(platform) == "digits:c"


def test_only_what_was_staged_can_be_switched_to(platform: StubPlatform) -> None:
    deploy(platform, "a")
    platform.stage(bento("b"), "test")
    with pytest.raises(ConflictError, match="green of digits holds digits:b"):
        platform.switch(release(platform, "c"))
    assert ask(platform) == "digits:a"


def test_a_candidate_that_died_is_started_again_before_the_switch(platform: StubPlatform) -> None:
    deploy(platform, "a")
    platform.stage(bento("b"), "test")
    kill(platform, "green")
    platform.switch(release(platform, "b"))
    assert ask(platform) == "digits:b"


@pytest.mark.parametrize(
    ("version", "said"), [("broken", "No module named 'torch'"), ("mute", "digits-green was not ready after 2 s")]
)
def test_a_candidate_that_does_not_start_is_explained(
    platform: StubPlatform, monkeypatch: pytest.MonkeyPatch, version: str, said: str
) -> None:
    deploy(platform, "a")
    monkeypatch.setattr(local, "START_SECONDS", 2.0)
    with pytest.raises(UnavailableError, match=said):
        platform.stage(bento(version), "test")
    with pytest.raises(ConflictError, match="nothing complete"):
        platform.switch(release(platform, version))
    platform.retire()
    assert ask(platform) == "digits:a"
    assert len(processes(platform.folder)) == 2, "the switch and what is live"
    deploy(platform, "c")
    assert ask(platform) == "digits:c"


def test_rollback(platform: StubPlatform) -> None:
    for version in ("a", "b", "c"):
        deploy(platform, version)
    kill(platform, "blue")  # what is live now plays no part
    assert platform.rollback("bob").bento == bento("b")
    assert ask(platform) == "digits:b"
    platform.stage(bento("d"), "test")
    back = platform.rollback("bob")
    assert (back.bento, back.by, back.slot) == (bento("a"), "bob", "blue"), "from the store, the candidate gave way"
    assert ask(platform) == "digits:a"
    with pytest.raises(NotFoundError, match="no release before digits:a"):
        platform.rollback("bob")
    assert [r.bento.version for r in platform.history()] == ["a", "b", "c", "b", "a"]


def test_what_died_is_started_again_where_it_was(platform: StubPlatform) -> None:
    deploy(platform, "a")
    deploy(platform, "b")
    url = platform.url
    for process in processes(platform.folder):  # as after a restart of the machine
        process.kill()
    with pytest.raises(OSError, match=r"refused|reset"):
        ask(platform)
    platform.ensure_serving()
    assert (platform.url, ask(platform)) == (url, "digits:b")
    kill(platform, "green")
    platform.ensure_serving()
    assert ask(platform) == "digits:b"


def test_down_ends_everything_and_keeps_the_state(platform: StubPlatform) -> None:
    deploy(platform, "a")
    platform.stage(bento("b"), "test")
    before = platform.state_path.read_text()
    platform.down()
    assert processes(platform.folder) == []
    platform.down()
    assert platform.state_path.read_text() == before
    platform.ensure_serving()
    assert ask(platform) == "digits:a"


def test_a_port_that_is_taken(platform: StubPlatform) -> None:
    deploy(platform, "a")
    platform.down()
    with socket.create_server(("127.0.0.1", int(platform.url.rpartition(":")[2]))):
        with pytest.raises(UsageError, match=rf"port \d+ is taken by .*pid {os.getpid()}") as raised:
            platform.ensure_serving()
        assert "EKIBEN_PORT" in str(raised.value)
        assert "[tool.ekiben]" in str(raised.value)
        with pytest.raises(UsageError, match="is taken"):
            platform.stage(bento("b"), "test")


def test_another_port_is_moved_to(platform: StubPlatform, tmp_path: Path) -> None:
    deploy(platform, "a")
    moved = StubPlatform(tmp_path / ".ekiben", "digits", free_port())
    moved.ensure_serving()
    assert ask(moved) == "digits:a"
    with pytest.raises(ConnectionRefusedError):
        ask(platform)


def test_any_free_port_is_kept(tmp_path: Path) -> None:
    platform = StubPlatform(tmp_path, "digits", 0)
    try:
        deploy(platform, "a")
        url = platform.url
        platform.down()
        platform.ensure_serving()
        assert (platform.url, ask(platform)) == (url, "digits:a")
    finally:
        platform.down()


def test_a_damaged_state_is_told(platform: StubPlatform) -> None:
    deploy(platform, "a")
    platform.state_path.write_text("{")
    with pytest.raises(EkibenError, match=r"state\.json cannot be read"):
        platform.observe()
    assert ask(platform) == "digits:a", "the switch goes on"


@pytest.mark.parametrize("name", ["", "..", "a/b", "Digits", "-x"])
def test_a_name_that_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a service's name"):
        LocalPlatform(tmp_path, name, 0)


def kill(platform: LocalPlatform, slot: str) -> None:
    record = json.loads((platform.folder / slot / f"digits-{slot}.json").read_text())
    psutil.Process(record["pid"]).kill()
    time.sleep(0.1)


# ---- with BentoML itself

SERVICE = """
import os
import bentoml

@bentoml.service(workers=1)
class Echo:
    @bentoml.api(route="/")
    def folder(self) -> str:
        return os.path.basename(os.path.dirname(os.path.dirname(os.getcwd())))
"""
BENTOFILE = """
service: "echo:Echo"
name: digits
include: ["echo.py"]
python: {lock_packages: false}
"""
REAL = """
import sys
from pathlib import Path
from ekiben.errors import NotFoundError
from ekiben.platforms.local import LocalPlatform
from tests.fakes.stub_platform import bento, deploy

platform = LocalPlatform(Path(sys.argv[1]), "digits", int(sys.argv[2]))
version = sys.argv[3]
deploy(platform, version)
if version == "b":
    platform.rollback("bob")
    try:
        platform.stage(bento("nothing"), "test")
    except NotFoundError as error:
        print(error)
    platform.retire()
"""


class PostClient(Client):
    def exchange(self, connection: object) -> str:
        return post(connection)


class KeptPostClient(KeptClient):
    def exchange(self, connection: object) -> str:
        return post(connection)


def post(connection: object) -> str:
    connection.request("POST", "/", "{}", {"Content-Type": "application/json"})  # type: ignore[attr-defined]
    response = connection.getresponse()  # type: ignore[attr-defined]
    body = str(response.read().decode())
    assert response.status == 200, body
    return body


def project(folder: Path, service: str) -> tuple[int, Callable[..., str]]:
    """The port of a project with that service, and what runs Python in it and returns what that says."""
    source = folder / "source"
    source.mkdir()
    (source / "echo.py").write_text(service)
    (source / "bentofile.yaml").write_text(BENTOFILE)
    env = {
        **os.environ,
        "BENTOML_HOME": str(folder / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }

    def run(*command: str) -> str:
        ended = subprocess.run([sys.executable, *command], cwd=source, env=env, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return free_port(), run


def test_with_bentoml(tmp_path: Path) -> None:
    port, run = project(tmp_path, SERVICE)
    for version in ("a", "b"):
        run("-m", "bentoml", "build", "--version", version)
    try:
        run("-c", REAL, str(tmp_path / ".ekiben"), str(port), "a")
        with PostClient(port, pause=0.01) as new, KeptPostClient(port, pause=0.01) as kept:
            said = run("-c", REAL, str(tmp_path / ".ekiben"), str(port), "b")
            time.sleep(0.2)
        assert "the BentoML store has no Bento digits:nothing" in said
        assert new.failures == kept.failures == []
        assert new.answers == kept.answers == ["blue", "green", "blue"]
        green = tmp_path / ".ekiben" / "local" / "digits" / "green" / "bento"
        assert green.stat().st_mode & 0o777 == 0o755, "there still: what is not in the store replaces nothing"
    finally:
        LocalPlatform(tmp_path / ".ekiben", "digits", port).down()
    assert processes(tmp_path) == []


STAGE = """
import sys
from pathlib import Path
from ekiben.errors import UnavailableError
from ekiben.platforms.local import LocalPlatform
from tests.fakes.stub_platform import bento

try:
    LocalPlatform(Path(sys.argv[1]), "digits", int(sys.argv[2])).stage(bento("a"), "test")
except UnavailableError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("raise ValueError('weights of another shape')", "ValueError: weights of another shape"),
        ("os._exit(9)", "its worker ended without a word"),
    ],
)
def test_a_service_that_cannot_start_is_not_waited_for(tmp_path: Path, statement: str, said: str) -> None:
    failing = f"    def __init__(self):\n        {statement}\n"
    port, run = project(tmp_path, SERVICE + failing)
    run("-m", "bentoml", "build", "--version", "a")
    began = time.monotonic()
    try:
        assert f"digits-blue cannot start: {said}\n" in run("-c", STAGE, str(tmp_path / ".ekiben"), str(port))
        assert time.monotonic() - began < local.START_SECONDS / 2
    finally:
        LocalPlatform(tmp_path / ".ekiben", "digits", port).down()
    assert processes(tmp_path) == []
