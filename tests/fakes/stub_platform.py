"""LocalPlatform with `slot_server` in its slots. Everything else is the product: processes, switch, files, locks.

As a program it is a deployer that can be killed: `python -m tests.fakes.stub_platform STATE PORT VERSION`.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from ekiben.platforms.local import LocalPlatform
from ekiben.types import BentoRef, ModelVersion, Release

SLOT_SERVER = Path(__file__).with_name("slot_server.py")


class StubPlatform(LocalPlatform):
    def export(self, bento: BentoRef, folder: Path) -> None:
        folder.mkdir()
        (folder / "bento").write_text(bento.tag)

    def command(self, folder: Path, port: int) -> list[str]:
        return [sys.executable, str(SLOT_SERVER), str(folder), str(port)]


def bento(version: str) -> BentoRef:
    model = ModelVersion.parse(f"acme/vision/digits:v{sum(map(ord, version))}")
    return BentoRef(name="digits", version=version, digest="0" * 64, model=model)


def release(platform: LocalPlatform, version: str) -> Release:
    now = datetime.now(UTC)
    return Release(service="digits", slot=platform.observe().idle, bento=bento(version), time=now, by="test")


def deploy(platform: LocalPlatform, version: str) -> None:
    platform.stage(bento(version), "test")
    platform.switch(release(platform, version))
    platform.retire()


if __name__ == "__main__":
    deploy(StubPlatform(Path(sys.argv[1]), "digits", int(sys.argv[2])), sys.argv[3])
