"""Blobs that come in parts, several at once. They last until they are finished or the server starts again."""

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from ekiben.errors import NotFoundError
from ekiben.tracker.blobs import Blobs, Incoming

COPY_BYTES = 1 << 20


class Uploads:
    """The uploads in parts that are under way, by the names they were given."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._open: dict[str, _Upload] = {}

    def begin(self) -> str:
        name = secrets.token_hex(16)
        folder = self._blobs.tmp / f"{name}.parts"
        folder.mkdir()
        self._open[name] = _Upload(folder, self._blobs.incoming())
        return name

    def part(self, name: str, number: int) -> Incoming:
        """Where the bytes of one part go. Parts are numbered from 1."""
        return self._blobs.incoming(self._find(name).folder / str(number))

    def advance(self, name: str) -> None:
        """To be called when a part is complete: joins what can be joined, so that little is left to do at the end."""
        self._find(name).advance()

    def finish(self, name: str, numbers: Sequence[int], expected: str) -> str:
        """The MD5 of the whole, checked against `expected`; the blob is there when it returns."""
        if name not in self._open and self._blobs.has(expected):
            return expected  # the client repeats itself when it missed the answer
        upload = self._find(name)
        md5 = upload.finish(numbers, expected)
        self.abort(name)
        return md5

    def abort(self, name: str) -> None:
        upload = self._open.pop(name, None)
        if upload is not None:
            upload.whole.abandon()
            shutil.rmtree(upload.folder, ignore_errors=True)

    def _find(self, name: str) -> "_Upload":
        upload = self._open.get(name)
        if upload is None:
            raise NotFoundError("no such upload in parts; it was finished, or the server has started again since")
        return upload


class _Upload:
    def __init__(self, folder: Path, whole: Incoming) -> None:
        self.folder = folder
        self.whole = whole
        self._next = 1
        self._joining = Lock()

    def advance(self) -> None:
        # Whoever holds the lock looks again after each part, so nobody needs to wait for it.
        while self._path.is_file() and self._joining.acquire(blocking=False):
            try:
                self._join()
            finally:
                self._joining.release()

    def finish(self, numbers: Sequence[int], expected: str) -> str:
        with self._joining:
            while self._path.is_file():
                self._join()
            if list(numbers) != list(range(1, self._next)):
                raise NotFoundError(f"{self._next - 1} parts came in a row, and {len(numbers)} were announced")
            return self.whole.finish(expected)

    @property
    def _path(self) -> Path:
        return self.folder / str(self._next)

    def _join(self) -> None:
        if not (path := self._path).is_file():
            return  # joined by another thread, between our look and our lock
        with path.open("rb") as part:
            while chunk := part.read(COPY_BYTES):
                self.whole.write(chunk)
        self._next += 1
        path.unlink()
