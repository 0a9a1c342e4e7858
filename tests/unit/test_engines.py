"""The commands of the engines that are not here to be run, and how one is chosen."""

from pathlib import Path

import pytest

from ekiben.errors import EkibenError, UnsupportedError
from ekiben.packaging import engines
from ekiben.packaging.engines import Order

ORDER = Order(Path("/context"), "registry.example/team/digits:v3-1a2b3c4d", {"task": "a b"}, 1_700_000_000, push=True)


def test_buildah_and_podman_push_and_say_the_registrys_digest() -> None:
    for engine in (engines.Buildah(), engines.Podman()):
        build, push = engine.commands(ORDER)
        assert build[:2] == [engine.name, "build"]
        assert build[-1] == "/context"
        assert build[build.index("--label") :][:2] == ["--label", "task=a b"]
        assert "--timestamp=1700000000" in build
        assert push == [engine.name, "push", "--digestfile", "/context/digest", ORDER.image]


def test_docker_gives_files_the_time_by_its_build_argument() -> None:
    build, push = engines.Docker().commands(ORDER)
    assert "--build-arg=SOURCE_DATE_EPOCH=1700000000" in build
    assert push == ["docker", "push", "--quiet", ORDER.image]


def test_buildkit_pushes_as_it_builds_and_writes_the_sbom_from_the_same_cache() -> None:
    build, sbom = engines.BuildKit().commands(ORDER)
    assert f"--output=type=image,name={ORDER.image},push=true,registry.insecure=false" in build
    assert "--opt=label:task=a b" in build
    assert "--opt=target=sbom" in sbom


def test_only_a_registry_on_this_machine_is_spoken_to_without_tls() -> None:
    order = Order(ORDER.context, "127.0.0.1:5000/digits:v1", {}, 0, push=True)
    assert "--tls-verify=false" in engines.Buildah().commands(order)[1]
    assert "--tls-verify=false" not in engines.Buildah().commands(ORDER)[1]


def test_without_an_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="no program") as caught:
        engines.choose()
    assert "buildah" in caught.value.next_step


def test_an_engine_that_is_installed_but_does_not_work_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, code in (("buildah", 1), ("podman", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(engines, "ENGINES", (engines.Buildah(), engines.Podman()))
    assert engines.choose().name == "podman"


def test_a_failing_command_shows_the_end_of_what_it_said() -> None:
    with pytest.raises(EkibenError, match="no such thing"):
        engines.output(["sh", "-c", "echo no such thing >&2; exit 3"])
