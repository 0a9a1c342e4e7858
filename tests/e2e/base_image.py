"""A base image for tests where none can be pulled: made with debootstrap from the mirror that apt uses."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAMED = "EKIBEN_TEST_BASE_IMAGE"
"""Environment variable: a base image that Buildah has, or can pull, to be used instead of making one."""


def storage(folder: Path) -> dict[str, str]:
    """What Buildah needs inside a container: no overlay in an overlay, no runtime; and storage of the test's own."""
    if os.environ.get(NAMED):
        return {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    config = folder / "storage.conf"
    config.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
    return {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", "CONTAINERS_STORAGE_CONF": str(config)}


def require() -> None:
    """Skip where images cannot be built, and say what is missing."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        pytest.skip("building images in a chroot needs Linux and root")
    missing = [name for name in ("buildah", "debootstrap", "apt-get") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install buildah debootstrap)")


def make(folder: Path, env: dict[str, str]) -> str:
    """The name of a base image with the Python that runs the tests."""
    if named := os.environ.get(NAMED):
        return named
    uri, codename = _mirror()
    root = folder / "base"
    packages = "python3,python3-venv,ca-certificates"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", codename, str(root), uri]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"debootstrap {codename} failed: {done.stdout[-300:]}")
    wanted = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (root / "usr" / "bin" / wanted).exists():
        pytest.skip(f"{codename} has no {wanted}, which these tests run with; set {NAMED} to an image that has it")
    for stale in (*root.glob("var/cache/apt/*"), *root.glob("var/lib/apt/lists/*")):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    name = "localhost/ekiben-test-base:latest"
    (folder / "Containerfile").write_text("FROM scratch\nADD base /\n")
    build = ["buildah", "build", "--quiet", "--tag", name, "--file", str(folder / "Containerfile"), str(folder)]
    subprocess.run(build, check=True, env=env, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return name


def _mirror() -> tuple[str, str]:
    """Address and code name of the distribution that this machine's apt is configured with."""
    os_release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    codename = os_release.get("VERSION_CODENAME", "").strip('"')
    listed = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]
    lines = subprocess.run(listed, capture_output=True, text=True).stdout.splitlines()
    for uri, name, component in (line.split() for line in lines if len(line.split()) == 3):
        if (name, component) == (codename, "main"):
            return uri, codename
    pytest.skip(f"apt has no index of {codename or 'this system'}: run apt-get update")
