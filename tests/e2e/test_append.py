"""One layer on an image in a real registry, open or locked, without any program that builds images."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ekiben.errors import IntegrityError, NotFoundError, UnavailableError, UsageError
from ekiben.packaging.append import Addition, Base, append
from ekiben.packaging.distribution import MANIFEST, Reference, Repository
from ekiben.processes import free_port
from tests.e2e import registries
from tests.e2e.registries import HERE, push_base

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(scope="module", params=["", "basic", "token"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    with registries.registry(folder, request.param) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", str(registries.docker_config(folder / "docker", found)))
        yield found


@pytest.fixture
def anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a registry without a lock, and nothing known of anybody."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    with registries.registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def added(tmp_path: Path) -> Addition:
    folder = tmp_path / "bento"
    (folder / "src").mkdir(parents=True, mode=0o700)
    (folder / "src" / "service.py").write_text("x = 1\n")
    (folder / "src" / "service.py").chmod(0o600)
    run = {"User": "10001:10001", "Entrypoint": ["python", "-m", "bentoml"], "WorkingDir": "/bento"}
    return Addition(folder, "/bento", run, {"HOME": "/tmp"}, {"wandb.version": "acme/vision/digits:v3"}, 1_700_000_000)


def test_the_layer_comes_on_top_and_the_digest_is_the_registrys(host: str, added: Addition, tmp_path: Path) -> None:
    digest = append(Base(push_base(host)), added, f"{host}/team/digits:v3", tmp_path)
    with Repository(Reference.parse(f"{host}/team/digits:v3")) as there:
        manifest, found = there.manifest("v3")
        assert found == digest
        config = there.document(manifest["config"]["digest"])
        below, top = manifest["layers"]
        assert there.has(below["digest"])
        content = b"".join(there.blob(top["digest"]))
    assert config["config"]["Env"] == ["PATH=/opt/venv/bin:/bin", "HOME=/tmp"]
    assert config["config"]["User"] == "10001:10001"
    assert config["config"]["Labels"] == {"base": "yes", "wandb.version": "acme/vision/digits:v3"}
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert config["rootfs"]["diff_ids"][1] == f"sha256:{hashlib.sha256(content).hexdigest()}" == top["digest"]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        seen = {each.name: (each.mode, each.uid, each.mtime) for each in tar}
    assert seen == {
        "bento": (0o755, 0, 1_700_000_000),
        "bento/src": (0o755, 0, 1_700_000_000),
        "bento/src/service.py": (0o644, 0, 1_700_000_000),
    }


def test_the_same_on_the_same_is_the_same_image(host: str, added: Addition, tmp_path: Path) -> None:
    name = push_base(host)
    first = append(Base(name), added, f"{host}/team/one:v1", tmp_path)
    assert append(Base(name), added, f"{host}/team/two:v1", tmp_path) == first
    (added.folder / "src" / "service.py").write_text("x = 2\n")
    assert append(Base(name), added, f"{host}/team/one:v2", tmp_path) != first


def test_an_image_of_docker_becomes_one_of_oci_with_the_same_layers(
    anybody: str, added: Addition, tmp_path: Path
) -> None:
    made = Base(push_base(anybody, kind=DOCKER))
    append(made, added, f"{anybody}/team/digits:v3", tmp_path)
    with Repository(Reference.parse(f"{anybody}/team/digits")) as there:
        document = there.manifest("v3").document
    assert document["mediaType"] == MANIFEST
    assert document["layers"][0] == {
        **made.manifest.document["layers"][0], "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    }  # fmt: skip


def test_of_several_the_one_for_this_machine_is_taken(anybody: str) -> None:
    assert Base(push_base(anybody, "a", architectures=("s390x", HERE))).config["architecture"] == HERE
    with pytest.raises(NotFoundError, match=f"linux/{HERE}"):
        Base(push_base(anybody, "b", architectures=("s390x",)))


def test_layers_come_from_another_registry_too(anybody: str, added: Addition, tmp_path: Path) -> None:
    with registries.registry(tmp_path / "other") as other:
        digest = append(Base(push_base(other)), added, f"{anybody}/team/digits:v3", tmp_path)
    with Repository(Reference.parse(f"{anybody}/team/digits")) as there:
        manifest, found = there.manifest(digest)
        assert found == digest
        assert all(there.has(each["digest"]) for each in manifest["layers"])


@pytest.mark.parametrize("lock", ["basic", "token"])
def test_who_may_not_is_told_so(lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registries.registry(tmp_path / "registry", lock) as host:
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
        with pytest.raises(UsageError, match=f"{host} answers 401") as unknown:
            Base(f"{host}/team/runtime:1")
        assert f"docker login {host}" in unknown.value.next_step
        monkeypatch.setenv("DOCKER_CONFIG", str(registries.docker_config(tmp_path / "wrong", host, "sprout-secret")))
        with pytest.raises(UsageError, match="401") as wrong:
            Base(f"{host}/team/runtime:1")
        assert "sprout-secret" not in str(wrong.value)


def test_what_is_not_there_and_who_does_not_answer(anybody: str) -> None:
    with pytest.raises(NotFoundError, match="team/none"):
        Base(f"{anybody}/team/none:1")
    with pytest.raises(UnavailableError, match="does not answer"):
        Base(f"127.0.0.1:{free_port()}/team/runtime:1")
    with pytest.raises(UnavailableError, match="insecure_registries"):
        Base(f"127.0.0.2:{anybody.partition(':')[2]}/team/runtime:1")  # it speaks no TLS, and nobody said that
    with pytest.raises(UsageError, match="not an image"):
        Base(f"{anybody}/Team/Runtime:1")


def test_bytes_with_another_digest_are_refused(anybody: str, tmp_path: Path) -> None:
    name = push_base(anybody)
    with Repository(Reference.parse(name)) as there:
        digest = there.manifest("1").document["config"]["digest"].partition(":")[2]
        blob = tmp_path / "registry" / "data" / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
        blob.write_bytes(blob.read_bytes().replace(b'"base": "yes"', b'"base": "bad"'))
    with pytest.raises(IntegrityError, match="has the digest"):
        Base(name)
