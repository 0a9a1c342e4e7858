"""The programs that can build an image, each as the commands that it takes.

Only Buildah and BuildKit's `buildctl` need no daemon of this machine; whichever works is taken, in this order.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ekiben.errors import EkibenError, UnsupportedError
from ekiben.packaging import distribution

APPEND = "append"
"""The way that needs no engine: see append.py."""
CONTAINERFILE = "Containerfile"
SBOM_STAGE = "sbom"
"""The stage of the Containerfile that holds only the SBOM."""


@dataclass(frozen=True)
class Order:
    """One image: the folder with its Containerfile, its name with tag, its labels, and the time that its files get.
    Of `insecure` registries nobody expects TLS."""

    context: Path
    image: str
    labels: Mapping[str, str]
    epoch: int
    push: bool
    insecure: Collection[str] = ()

    @property
    def plain(self) -> bool:
        host = self.image.partition("/")[0]
        return distribution.on_loopback(host) or host in self.insecure


class Buildah:
    name = "buildah"
    usable: tuple[str, ...] = ("buildah", "--version")
    dates = "--timestamp={}"

    def commands(self, order: Order) -> list[list[str]]:
        """What is run, in its order; `commands` is also what a dry run prints."""
        build = [*self._build(order), "--iidfile", str(order.context / "id"), str(order.context)]
        return [build, *([self._push(order)] if order.push else [])]

    def digest(self, order: Order) -> str:
        """Of the manifest: as the registry has it, or of the local image where nothing was pushed."""
        pushed = order.context / "digest"
        if order.push and pushed.is_file():
            return pushed.read_text().strip()
        return output([self.name, "inspect", "--type", "image", "--format", "{{.FromImageDigest}}", order.image])

    def sbom(self, order: Order) -> str:
        container = output([self.name, "from", "--pull-never", order.image])
        try:
            return output([self.name, "run", container, "--", "cat", "/sbom.cdx.json"])
        finally:
            output([self.name, "rm", container])

    def _build(self, order: Order) -> list[str]:
        labels = [part for key, value in order.labels.items() for part in ("--label", f"{key}={value}")]
        dated = self.dates.format(order.epoch)
        file = str(order.context / CONTAINERFILE)
        return [self.name, "build", "--file", file, "--tag", order.image, dated, *labels]

    def _push(self, order: Order) -> list[str]:
        plain = ["--tls-verify=false"] if order.plain else []
        return [self.name, "push", "--digestfile", str(order.context / "digest"), *plain, order.image]


class Podman(Buildah):
    name = "podman"
    usable = ("podman", "info")

    def digest(self, order: Order) -> str:
        pushed = order.context / "digest"
        if order.push and pushed.is_file():
            return pushed.read_text().strip()
        return output([self.name, "image", "inspect", "--format", "{{.Digest}}", order.image])

    def sbom(self, order: Order) -> str:
        return output([self.name, "run", "--rm", "--network=none", "--entrypoint=cat", order.image, "/sbom.cdx.json"])


class Docker(Podman):
    name = "docker"
    usable = ("docker", "info")
    dates = "--build-arg=SOURCE_DATE_EPOCH={}"

    def digest(self, order: Order) -> str:
        if not order.push:
            return (order.context / "id").read_text().strip()
        return output(["docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", order.image]).split("@")[1]

    def _push(self, order: Order) -> list[str]:
        return ["docker", "push", "--quiet", order.image]


class BuildKit(Buildah):
    name = "buildctl"
    usable = ("buildctl", "debug", "workers")

    def commands(self, order: Order) -> list[list[str]]:
        context = str(order.context)
        solve = ["buildctl", "build", "--frontend=dockerfile.v0", f"--local=context={context}"]
        solve += [f"--local=dockerfile={context}", f"--opt=filename={CONTAINERFILE}"]
        solve += [f"--opt=build-arg:SOURCE_DATE_EPOCH={order.epoch}"]
        labels = [f"--opt=label:{key}={value}" for key, value in order.labels.items()]
        push = str(order.push).lower()
        image = f"--output=type=image,name={order.image},push={push},registry.insecure={order.plain!s}"
        bom = f"--output=type=local,dest={context}/bom"
        metadata = f"--metadata-file={context}/metadata.json"
        return [[*solve, *labels, image.lower(), metadata], [*solve, f"--opt=target={SBOM_STAGE}", bom]]

    def digest(self, order: Order) -> str:
        return str(json.loads((order.context / "metadata.json").read_text())["containerimage.digest"])

    def sbom(self, order: Order) -> str:
        return (order.context / "bom" / "sbom.cdx.json").read_text()


ENGINES: tuple[Buildah, ...] = (Buildah(), Podman(), Docker(), BuildKit())


def choose(name: str = "") -> Buildah:
    """The engine of that name, or the first that works here. UnsupportedError if there is none."""
    for engine in ENGINES:
        if name in ("", engine.name) and shutil.which(engine.name) and _works(engine):
            return engine
    raise UnsupportedError(
        f"{name or 'no program'} can build an image here" if not name else f"{name} cannot build an image here",
        wanted="one of " + ", ".join(engine.name for engine in ENGINES),
        next_step="install buildah, which needs no daemon, or start the engine's daemon; on a runtime image,"
        f" --engine {APPEND} takes no program",
    )


def output(command: list[str]) -> str:
    """What the command says; EkibenError with the end of its complaints if it fails."""
    # Without an OCI runtime, Buildah can still run a build's steps in a chroot.
    env = dict(os.environ)
    if not any(map(shutil.which, ("runc", "crun"))):
        env.setdefault("BUILDAH_ISOLATION", "chroot")
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        if done.returncode == 0:
            return done.stdout.strip()
        errors.seek(0)
        said = (done.stdout[-1500:] + errors.read()[-1500:]).strip()
    raise EkibenError(
        f"`{' '.join(command[:2])}` ended with {done.returncode}:\n{said}",
        next_step="`ekiben image --dry-run` prints the Containerfile and the commands",
    )


def _works(engine: Buildah) -> bool:
    try:
        return subprocess.run(engine.usable, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
