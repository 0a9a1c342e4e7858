"""Bytes on disk, named by their MD5. A blob is there wholly or not at all; what is half written has another name."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ekiben.errors import EkibenError, IntegrityError


class Blobs:
    """`folder/ab/abcdef…` holds the blobs, `folder/tmp` what is on its way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tmp = folder / "tmp"
        self.tmp.mkdir(parents=True, exist_ok=True)

    def path(self, md5: str) -> Path:
        """Where the blob lies, or would. Raises EkibenError for anything but 32 hexadecimal digits."""
        if len(md5) != 32 or set(md5) - set("0123456789abcdef"):
            raise EkibenError(f"not an MD5: {md5[:80]!r}")
        return self.folder / md5[:2] / md5

    def has(self, md5: str) -> bool:
        return self.path(md5).is_file()

    def touch(self, md5: str) -> bool:
        """Whether it is there; if so, its age starts anew, so that gc spares it while an artifact is being made."""
        try:
            os.utime(self.path(md5))
        except FileNotFoundError:
            return False
        return True

    def incoming(self, part: Path | None = None) -> "Incoming":
        """A blob to be written or, with `part`, a file of that name on the way to one."""
        return Incoming(self, part)

    def put(self, content: bytes) -> str:
        """Keeps these bytes. Returns their MD5."""
        incoming = self.incoming()
        incoming.write(content)
        return incoming.finish(None)

    def all(self) -> Iterator[Path]:
        return (path for path in sorted(self.folder.glob("??/*")) if len(path.name) == 32)

    def discard_unfinished(self) -> int:
        """Removes what was on its way when the last process ended. Returns how many files that were."""
        found = list(self.tmp.iterdir())
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return len(found)


class Incoming:
    """A blob, or a part of one, that is being written. Use `write` as bytes come, then `finish`, or `abandon`."""

    def __init__(self, blobs: Blobs, part: Path | None = None) -> None:
        self._blobs = blobs
        self._part = part
        self._path = blobs.tmp / secrets.token_hex(16)
        self._file = self._path.open("xb", buffering=0)
        self._hash = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def write(self, chunk: bytes | bytearray) -> None:
        self._hash.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(chunk)

    def finish(self, expected: str | None) -> str:
        """Checks the MD5 (hexadecimal), makes the bytes durable and gives them their name. Returns the MD5."""
        md5 = self._hash.hexdigest()
        if expected is not None and md5 != expected:
            self.abandon()
            raise IntegrityError(f"the bytes received have the MD5 {md5}", wanted=expected, next_step="send them again")
        target = self._part or self._blobs.path(md5)
        os.fsync(self._file.fileno())
        self._file.close()
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            _sync_folder(target.parent.parent)
        self._path.replace(target)
        _sync_folder(target.parent)
        return md5

    def abandon(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # A rename is durable once its folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
