"""`ekiben doctor` without an environment: what it says of a machine, each thing in order and out of order.

The tracker that it asks is the real one; a server that refuses a key, and one that is down, are small real ones. It
stands on W&B's GraphQL `viewer`, which a server without a valid key answers with null or 401.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ekiben.config import Project
from ekiben.doctor import addresses, finding, machine, show
from ekiben.doctor.finding import Check, Finding
from ekiben.tracker import keys
from tests.unit.test_doctor_environment import answering

KEY = "k" * 40


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "bentofile.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("version", "outcome"), [((3, 10, 14), "fail"), ((3, 11, 0), "ok"), ((3, 11, 7), "ok"), ((3, 14, 0), "ok")]
)
def test_python(version: tuple[int, ...], outcome: str) -> None:
    assert machine.python(version, ">=3.11").outcome == outcome


def test_packages() -> None:
    wanted = ["bentoml<1.5,>=1.4.39", "wandb>=0.28", "hera>=7", "numpy>=1.26", "scipy>=1", 'x>=1; extra == "dev"']
    there = {"bentoml": "1.5.0", "wandb": "0.31.0", "numpy": "1.20"}
    found = machine.packages(wanted, there.get)
    assert [(each.name, each.outcome, each.seen) for each in found] == [
        ("bentoml", "fail", "1.5.0"),
        ("wandb", "ok", "0.31.0"),
        ("hera", "fail", "not installed"),
        ("other packages", "fail", "numpy 1.20 (wanted numpy>=1.26)\nscipy is not installed (wanted scipy>=1)"),
    ]
    assert found[0].wanted == "<1.5,>=1.4.39"
    assert {each.exit_code for each in found} == {0, 2}


def test_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.store(tmp_path / "not" / "yet").outcome in ("ok", "warn")
    assert not (tmp_path / "not").exists(), "nothing is made"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1024**3))  # type: ignore[attr-defined]
    told = machine.store(tmp_path)
    assert (told.outcome, told.seen) == ("warn", f"{tmp_path}: 1.0 GiB free")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody may write to")
def test_a_store_that_cannot_be_written_to() -> None:
    told = machine.store(Path("/proc/self"))
    assert told.outcome == "fail"
    assert "BENTOML_HOME" in told.next_step


def test_a_port_that_another_program_has(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("EKIBEN_PORT", str(other.getsockname()[1]))
        told = machine.port(Project(project.root))
        assert told.outcome == "fail"
        assert "EKIBEN_PORT" in told.next_step
    assert machine.port(Project(project.root)).outcome == "ok"
    monkeypatch.setenv("EKIBEN_PORT", "0")
    assert machine.port(Project(project.root)).seen == "any free one"


def test_the_port_that_the_service_itself_has(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from ekiben.processes import Daemon, free_port

    port = free_port()
    monkeypatch.setenv("EKIBEN_PORT", str(port))
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    daemon = Daemon(project.state / "services" / "digits", "switch")
    daemon.start(command, url=f"http://127.0.0.1:{port}", env=dict(os.environ), cwd=project.root)
    try:
        daemon.wait_ready(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 30)
        told = machine.port(Project(project.root))
        assert (told.outcome, told.seen) == ("ok", f"{port}: the service listens there")
    finally:
        daemon.stop()


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.git(tmp_path).outcome == "warn"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert machine.git(tmp_path).seen.startswith("at ")
    monkeypatch.setenv("PATH", "")
    assert machine.git(tmp_path).seen == "not installed"


def test_the_real_tracker_and_its_keys(tmp_path: Path, project: Project) -> None:
    data = tmp_path / "data"
    key = keys.create_key(data, "anna")
    from ekiben.processes import free_port

    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "ekiben.tracker", "--data", str(data), "--port", url.rpartition(":")[2]]
    process = subprocess.Popen(command)
    try:
        end = time.monotonic() + 60
        while addresses.wandb_server("s", url).outcome != "ok":
            assert time.monotonic() < end
            time.sleep(0.1)
        given = {"WANDB_BASE_URL": url, "WANDB_API_KEY": key}
        found = finding.run(machine.tracker(project, given), 20)
        assert [(each.name, each.outcome) for each in found] == [("W&B server", "ok"), ("W&B key", "ok")]
        told = finding.run(machine.tracker(project, given | {"WANDB_API_KEY": "0" * 40}), 20)[1]
        assert (told.outcome, told.exit_code) == ("fail", 2)
        assert finding.run(machine.tracker(project, {"WANDB_BASE_URL": url}), 20)[1].outcome == "warn"
        assert key not in str(found)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"data": {"viewer": {"id": "1", "entity": "acme"}}}, "ok"),
        (200, {"data": {"viewer": None}}, "fail"),
        (401, {}, "fail"),
        (403, {}, "fail"),
        (502, {}, "unknown"),
        (200, [], "unknown"),
    ],
)
def test_keys(status: int, body: dict[str, object], outcome: str) -> None:
    with answering({"POST /graphql": (status, body)}) as address:
        assert addresses.wandb_key("W&B key", f"http://{address}", KEY).outcome == outcome


def test_servers_that_are_not_well() -> None:
    with answering({"GET /healthz": (503, {}), "GET /v2/": (500, {})}) as address:
        assert addresses.wandb_server("s", f"http://{address}").outcome == "fail"
        assert addresses.registry("r", address).outcome == "fail"
    with answering({}) as address:
        assert addresses.wandb_server("s", f"http://{address}").outcome == "ok", "not every server has /healthz"
        assert addresses.registry("r", address).outcome == "fail", "that is no registry"
    with answering({"GET /v2/": (200, {})}) as address:
        assert addresses.registry("r", address).seen == "GET /v2/ answers 200"


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("registry.example/team/x:1", "registry.example"),
        ("localhost/team", "localhost"),
        ("localhost:5000/team/x@sha256:12", "localhost:5000"),
        ("team/x", addresses.DOCKER_HUB),
        ("python:3.11-slim", addresses.DOCKER_HUB),
    ],
)
def test_the_registry_of_an_image(image: str, host: str) -> None:
    assert addresses.registry_of(image) == host


def test_the_embedded_tracker_need_not_run(project: Project) -> None:
    (told,) = finding.run(machine.tracker(project, {}), 20)
    assert told == finding.ok("tracker", "embedded; it is started when it is needed")
    assert not project.state.exists(), "asking starts nothing"


def test_checks_run_side_by_side_and_none_holds_up_the_rest() -> None:
    def slow() -> list[Finding]:
        time.sleep(30)
        return []

    checks = [Check(str(number), slow, late="fail" if number else "unknown") for number in range(20)]
    started = time.monotonic()
    found = finding.run([*checks, Check("quick", lambda: [finding.ok("quick", "")])], 0.5)
    assert time.monotonic() - started < 10
    assert [each.outcome for each in found] == ["unknown", *["fail"] * 19, "ok"]
    assert finding.exit_code(found) == 4


def test_the_table() -> None:
    found = [
        finding.ok("a", "fine"),
        finding.wrong("longer", "x\ny", "z", "do", "kind: Role\n"),
        finding.unknown("u", "?"),
    ]
    assert show.table(found).splitlines() == [
        "ok       a       fine",
        "fail     longer  x",
        "                 y",
        "                 wanted: z",
        "                 next:   do",
        "unknown  u       ?",
        "",
        "1 ok, 0 warn, 1 fail, 1 unknown",
        "",
        "# longer: do",
        "kind: Role",
    ]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "bentofile.yaml").touch()
    env = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")} | {"EKIBEN_PORT": "0"}
    command = [sys.executable, "-m", "ekiben.cli", "doctor", "--timeout", "60"]
    done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok       Python ")
    env |= {"WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_API_KEY": KEY}
    done = subprocess.run([*command, "--json"], cwd=tmp_path, env=env, text=True, capture_output=True)
    assert done.returncode == 4, done.stderr
    told = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert told["W&B server"]["outcome"] == "fail"
    assert told["W&B key"]["outcome"] == "unknown"
    assert KEY not in done.stdout + done.stderr
