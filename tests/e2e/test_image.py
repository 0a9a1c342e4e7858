"""A Bento's image, built, pushed and run for real: by Buildah, to a registry, as a numeric user on a read-only root."""

import asyncio
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ekiben.processes import free_port
from ekiben.types import ImageRef
from tests.e2e import base_image, golden, registries
from tests.e2e.packaging_world import Clone
from tests.e2e.packaging_world import world as make_world
from tests.e2e.serving import EXPORT, Packed, Server, answers, three_ways, wait_ready
from tests.e2e.test_draining import stop_under_load

pytestmark = [pytest.mark.timeout(900), pytest.mark.image]
USER = 10001


@dataclass(frozen=True)
class Confined:
    """How to run something in the image as a container engine would: `command` comes before it."""

    command: list[str]
    entrypoint: list[str]
    env: dict[str, str]


# A mount of its own for the root, so that it can be read-only; /tmp is what Kubernetes would give as emptyDir. /dev is
# every engine's own, like /proc: an image that was built without rights has no devices.
CONFINE = (
    'mount --bind "$1" "$1" && mount -t tmpfs -o mode=1777 tmpfs "$1/tmp" && mount -t proc proc "$1/proc"'
    ' && mount --rbind /dev "$1/dev" && mount -o remount,bind,ro "$1" && root="$1" && shift'
    ' && exec /usr/sbin/chroot --userspec="$0" "$root" "$@"'
)


# A container as workflows/runtime_on_cluster.py asks for: root that may only change users and groups, and ids for it.
BUILDER = (
    'mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && exec setpriv --no-new-privs --inh-caps=-all'
    ' --bounding-set=-all,+setuid,+setgid,+setfcap "$@"'
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    base_image.require()
    folder = tmp_path_factory.mktemp("image")
    with make_world(folder) as world:
        made = world.clone("project")
        yield replace(made, env={**made.env, **base_image.storage(folder)})


@pytest.fixture(scope="module")
def base(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> str:
    return base_image.make(tmp_path_factory.mktemp("base"), clone.env)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry without a lock; empty where none can be had."""
    if not registries.installed():
        yield ""
        return
    with registries.registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def locked(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """The same clone, which knows a registry with a lock and who may push to it."""
    folder = tmp_path_factory.mktemp("locked")
    with registries.registry(folder, "basic") as host:
        known = registries.docker_config(folder / "docker", host)
        auth = {"DOCKER_CONFIG": str(known), "REGISTRY_AUTH_FILE": str(known / "config.json")}
        yield replace(clone, env={**clone.env, **auth, "EKIBEN_IMAGE_REGISTRY": f"{host}/team"})


@pytest.fixture(scope="module")
def runtime(locked: Clone, base: str) -> dict[str, Any]:
    """What `ekiben image --runtime` says of the image with the project's packages, made as in a pod."""
    ids = locked.root.parent / "ids"
    ids.write_text("root:100000:65536\n")
    pod = replace(locked, before=("unshare", "--mount", "sh", "-c", BUILDER, str(ids)))
    return pod.json("image", "digits", "--runtime", "--push", "--base", base, "--engine", "buildah")


@pytest.fixture(scope="module")
def appended(locked: Clone, runtime: dict[str, Any], built: dict[str, Any]) -> dict[str, Any]:
    """What `ekiben image --engine append` says of the same Bento on it, in this machine's storage too."""
    made = locked.json("image", _tag(built), "--engine", "append")
    _buildah(locked, "pull", "--tls-verify=false", _image(made))
    return made


@pytest.fixture(scope="module")
def built(clone: Clone, base: str, registry: str) -> dict[str, Any]:
    """What `ekiben image` says of the image that it built, and pushed where there is a registry."""
    tag = clone.json("build", "digits:v0")["tag"]
    flags = ["--push", "--repository", f"{registry}/team/digits"] if registry else []
    return clone.json("image", tag, "--base", base, "--engine", "buildah", *flags)


@pytest.fixture(scope="module")
def confined(clone: Clone, built: dict[str, Any]) -> Iterator[Confined]:
    with _confined(clone, built) as found:
        yield found


@pytest.fixture(scope="module")
def running(confined: Confined, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _serving(confined, tmp_path_factory.mktemp("running")) as server:
        yield server


def test_the_digest_is_the_registrys(registry: str, built: dict[str, Any]) -> None:
    if not registry:
        pytest.skip("not installed: docker-registry")
    ref = ImageRef.model_validate({key: value for key, value in built.items() if key != "sbom"})
    asked = urllib.request.Request(
        f"http://{registry}/v2/team/digits/manifests/{ref.bento.version}",
        method="HEAD",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with urllib.request.urlopen(asked) as answer:
        assert answer.headers["Docker-Content-Digest"] == ref.digest
    assert str(ref) == f"{registry}/team/digits@{ref.digest}"


def test_the_image_says_where_it_comes_from_and_who_runs_it(clone: Clone, built: dict[str, Any], base: str) -> None:
    image = json.loads(_buildah(clone, "inspect", "--type", "image", _image(built)))
    config = image["OCIv1"]["config"]
    labels = config["Labels"]
    assert labels["wandb.version"] == "local/ekiben/digits:v0"
    assert labels["wandb.digest"] == built["bento"]["model"]["digest"]
    assert labels["ekiben.content-digest"] == built["bento"]["digest"]
    assert labels["org.opencontainers.image.version"] == built["bento"]["version"]
    assert labels["org.opencontainers.image.revision"] == clone.git("rev-parse", "HEAD")
    assert labels["org.opencontainers.image.base.name"] == base
    assert config["User"] == f"{USER}:{USER}"
    assert config["ExposedPorts"] == {"3000/tcp": {}}


def test_the_sbom_lists_what_is_installed(clone: Clone, built: dict[str, Any]) -> None:
    document = json.loads(Path(built["sbom"]).read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    refs = [component["bom-ref"] for component in document["components"]]
    assert len(refs) == len(set(refs))
    with _root(clone, built) as root:
        installed = {path.name.removesuffix(".dist-info") for path in root.glob("opt/venv/lib/python3*/*/*.dist-info")}
    listed = {
        f"{component['name'].replace('-', '_').replace('.', '_').lower()}-{component['version']}"
        for component in document["components"]
        if component["purl"].startswith("pkg:pypi/")
    }
    assert listed == {name.replace(".", "_", name.rpartition("-")[0].count(".")).lower() for name in installed}
    assert not any(name.startswith(("pip-", "setuptools-")) for name in installed)
    assert any(ref.startswith("pkg:deb/debian/python3-minimal@") for ref in refs)


def test_the_image_answers_bit_for_bit_as_every_other_way_and_as_the_golden_file_has_it(
    clone: Clone, built: dict[str, Any], running: Server, tmp_path: Path
) -> None:
    tag = _tag(built)
    exported = tmp_path / "exported"
    clone.python(EXPORT, tag, str(exported))
    home = Path(shutil.copytree(clone.home, tmp_path / "home"))
    with three_ways(Packed(clone.root, home, tag, exported), "service.digits:Digits", "digits:v0") as servers:
        served = {answers(server, golden.images()) for server in (running, *servers.values())}
    assert len(served) == 1
    golden.check("digits", served.pop())


def test_the_image_runs_as_a_numeric_user_on_a_read_only_root(confined: Confined, running: Server) -> None:
    written = ["/usr/bin/touch", "/opt/x", "/bento/x", "/x"]
    refused = subprocess.run([*confined.command, *written], capture_output=True, text=True)
    assert refused.stderr.count("Read-only file system") == 3, refused.stderr
    assert Path(f"/proc/{running.process.pid}").stat().st_uid == USER


def test_the_appended_image_answers_as_the_whole_one(
    clone: Clone, appended: dict[str, Any], running: Server, tmp_path: Path
) -> None:
    with _confined(clone, appended) as confined, _serving(confined, tmp_path) as server:
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == USER
        assert answers(server, golden.images()) == answers(running, golden.images())


def test_the_appended_image_says_where_it_comes_from(
    clone: Clone, locked: Clone, runtime: dict[str, Any], appended: dict[str, Any], built: dict[str, Any]
) -> None:
    config = json.loads(_buildah(clone, "inspect", "--type", "image", _image(appended)))["OCIv1"]["config"]
    labels = config["Labels"]
    assert labels["wandb.digest"] == built["bento"]["model"]["digest"]
    assert labels["ekiben.content-digest"] == built["bento"]["digest"]
    assert labels["org.opencontainers.image.base.name"] == runtime["image"]
    assert config["User"] == f"{USER}:{USER}"
    listed = {each["purl"].partition("@")[0] for each in _components(appended) if "purl" in each}
    assert listed >= {"pkg:pypi/bentoml", "pkg:pypi/scikit-learn"}
    assert [each["version"] for each in _components(appended) if each["type"] == "container"] == [runtime["digest"]]


def test_the_same_bento_from_wandb_is_the_same_image_to_the_last_byte(
    locked: Clone, appended: dict[str, Any], built: dict[str, Any], tmp_path: Path
) -> None:
    """As a workflow makes it: the Bento was published by one pod, and is appended in another."""
    locked.ekiben("build", "digits:v0", "--publish")
    elsewhere = replace(locked, home=tmp_path / "home", env={**locked.env, "BENTOML_HOME": str(tmp_path / "home")})
    elsewhere.ekiben("pull", _tag(built), "--bento")
    again = elsewhere.json("image", _tag(built), "--engine", "append")
    assert again["digest"] == appended["digest"]


def test_a_bento_is_appended_only_to_its_own_packages(
    locked: Clone, runtime: dict[str, Any], appended: dict[str, Any], built: dict[str, Any], tmp_path: Path
) -> None:
    tag = _tag(built)
    assert "is a Bento's image" in locked.ekiben("image", tag, "--engine", "append", "--base", _image(appended), code=2)
    lock = locked.bento(tag) / "src" / "requirements.lock"
    was = lock.read_text()
    try:
        lock.write_text(was.replace("numpy==", "numpy==0."))
        said = locked.ekiben("image", tag, "--engine", "append", "--base", runtime["image"], code=2)
        assert "holds other packages" in said
        assert "ekiben image digits --runtime --push" in said
        assert "404" in locked.ekiben("image", tag, "--engine", "append", code=3)
    finally:
        lock.write_text(was)


def test_a_dry_run_of_an_append_has_no_commands(locked: Clone, built: dict[str, Any]) -> None:
    said = locked.json("image", _tag(built), "--engine", "append", "--dry-run")
    assert said["commands"] == []
    assert "-runtime:" in said["containerfile"].splitlines()[0]
    assert said["containerfile"].splitlines()[1] == "COPY bento /bento"
    dry = locked.ekiben("image", "digits", "--runtime", "--dry-run", "--engine", "buildah")
    assert "COPY bento" not in dry and "/opt/venv" in dry


@pytest.mark.parametrize("number", range(3))
def test_nothing_is_lost_when_the_image_is_stopped_under_load(confined: Confined, tmp_path: Path, number: int) -> None:
    with _serving(confined, tmp_path) as server:
        outcomes = asyncio.run(stop_under_load(server, seconds=0))
        assert server.process.wait(10) is not None
        assert set(outcomes) == {"200"}, outcomes
        assert outcomes["200"] > 20
        assert "Traceback" not in server.log.read_text()


def test_the_same_bento_makes_the_same_layers(clone: Clone, base: str, built: dict[str, Any]) -> None:
    tag = _tag(built)
    again = clone.json("image", tag, "--base", base, "--engine", "buildah")
    assert _layers(clone, again) == _layers(clone, built)


def test_a_dry_run_prints_and_does_nothing(clone: Clone, built: dict[str, Any]) -> None:
    tag = _tag(built)
    said = clone.ekiben(
        "image", tag, "--dry-run", "--repository", "registry.example/x", "--push", "--engine", "buildah"
    )
    assert "FROM python:3." in said
    assert "\nUSER 10001:10001\n" in said
    assert "buildah push --digestfile CONTEXT/digest registry.example/x:" in said


def test_the_projects_settings_name_base_and_registry_and_flags_win(clone: Clone, built: dict[str, Any]) -> None:
    tag = _tag(built)
    dry = ("image", tag, "--dry-run", "--engine", "buildah", "--push")
    assert "--push needs a registry" in clone.ekiben(*dry, code=2)
    said = {"EKIBEN_BASE_IMAGE": "registry.example/python", "EKIBEN_IMAGE_REGISTRY": "registry.example/team"}
    told = replace(clone, env={**clone.env, **said})
    asked = told.ekiben(*dry)
    assert "FROM registry.example/python\n" in asked
    assert "CONTEXT/digest registry.example/team/digits:v0-" in asked
    asked = told.ekiben(*dry, "--base", "another", "--repository", "elsewhere.example/it")
    assert "FROM another\n" in asked
    assert "CONTEXT/digest elsewhere.example/it:v0-" in asked


def _image(built: dict[str, Any]) -> str:
    return f"{built['repository']}:{built['bento']['version']}"


def _tag(built: dict[str, Any]) -> str:
    return f"{built['bento']['name']}:{built['bento']['version']}"


def _components(built: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(Path(built["sbom"]).read_text())["components"]
    return listed


def _buildah(clone: Clone, *args: str) -> str:
    done = subprocess.run(["buildah", *args], env=clone.env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _layers(clone: Clone, built: dict[str, Any]) -> Any:
    return json.loads(_buildah(clone, "inspect", "--type", "image", _image(built)))["OCIv1"]["rootfs"]


@contextmanager
def _root(clone: Clone, built: dict[str, Any]) -> Iterator[Path]:
    container = _buildah(clone, "from", "--pull-never", _image(built))
    try:
        yield Path(_buildah(clone, "mount", container))
    finally:
        _buildah(clone, "rm", container)


@contextmanager
def _confined(clone: Clone, built: dict[str, Any]) -> Iterator[Confined]:
    image = json.loads(_buildah(clone, "inspect", "--type", "image", _image(built)))["OCIv1"]["config"]
    with _root(clone, built) as root:
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")  # every container engine writes this
        env = dict(line.split("=", 1) for line in image["Env"])
        # OpenBLAS takes its kernels by the CPU or by these; other kernels give other last bits.
        env |= {key: value for key, value in os.environ.items() if key.startswith("OPENBLAS_")}
        entrypoint = image["Entrypoint"]
        if "/" not in entrypoint[0]:  # the image's own PATH finds it
            entrypoint = ["/usr/bin/env", f"PATH={env['PATH']}", *entrypoint]
        command = ["unshare", "--mount", "sh", "-c", CONFINE, image["User"], str(root)]
        yield Confined(command, entrypoint, env)


@contextmanager
def _serving(confined: Confined, folder: Path) -> Iterator[Server]:
    port, log = free_port(), folder / "image.log"
    command = [*confined.command, *confined.entrypoint, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=confined.env, stdout=output, stderr=output)
    server = Server(port, log, process)
    try:
        wait_ready(server)
        yield server
    finally:
        # At once. BentoML's worker is in a session of its own.
        if process.poll() is None:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
        process.wait()
