"""Refuses model folders that hold pickles: loading one runs whatever code it names.

A file is known by its name and by its content, because neither alone is enough: a pickle can be called `weights.bin`,
and archives (`torch.save` writes a zip, old versions a tar) hold pickles inside.
"""

import bz2
import gzip
import io
import lzma
import pickletools
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from ekiben.errors import IntegrityError, UsageError

SUFFIXES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth")
"""Names that announce a pickle."""

_HEAD = 1 << 16  # bytes of a compressed file that are looked into
_OPCODES = {opcode.code for opcode in pickletools.opcodes}
_DEPTH = 3  # archives in archives
_PACKED: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", lambda data: gzip.GzipFile(fileobj=io.BytesIO(data)).read1(_HEAD)),
    (b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data, _HEAD)),
    (b"\xfd7zXZ", lambda data: lzma.LZMADecompressor().decompress(data, _HEAD)),
    (b"\x5d\x00", lambda data: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data, _HEAD)),
    (b"\x78", lambda data: zlib.decompressobj().decompress(data, _HEAD)),
)


def refuse(folder: Path, allowed: Mapping[str, str]) -> None:
    """IntegrityError for the first file below `folder` that is or holds a pickle and is not in `allowed`.

    `allowed` maps a path relative to `folder`, with /, to the reason why that file is loaded all the same.
    """
    for path, reason in allowed.items():
        if not reason.strip():
            raise UsageError(f"pickles[{path!r}] has no reason", wanted="why this file must be a pickle")
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name not in allowed and (found := kind(file)):
            raise IntegrityError(
                f"the model holds {found}: {name}",
                wanted="a format that cannot run code when it is loaded, such as skops or safetensors",
                next_step=f"change the recipe's save(), or say in it why you trust it: pickles={{{name!r}: 'reason'}}",
            )


def kind(path: Path) -> str:
    """What makes the file unsafe, as a phrase; empty if nothing does."""
    with path.open("rb") as file:
        return _kind(path.name, file, _DEPTH)


def _kind(name: str, file: IO[bytes], depth: int) -> str:
    if name.lower().endswith(SUFFIXES):
        return "a pickle by its name"
    head = file.read(_HEAD)
    file.seek(0)
    if _is_pickle(file) or _is_pickle(io.BytesIO(_unpacked(head))):
        return "a pickle by its content"
    if _holds_objects(head):
        return "a NumPy array of pickled objects"
    if depth == 0:
        return "archives nested too deep to look into" if zipfile.is_zipfile(file) else ""
    file.seek(0)
    try:
        for inner, opened in _members(file):
            if found := _kind(inner.rpartition("/")[2], opened, depth - 1):
                return f"{found} ({inner} in the archive)"
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:
        return f"an archive that cannot be looked into ({error})"
    return ""


def _unpacked(head: bytes) -> bytes:
    for magic, unpack in _PACKED:
        if head.startswith(magic):
            try:
                return unpack(head)
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                return b""
    return b""


def _is_pickle(file: IO[bytes]) -> bool:
    """Whether this is a pickle; nothing in it is run.

    Protocols 2 and later begin with their number and an opcode. 0 and 1 begin like any text, so they are known by
    being opcodes from the first byte to a STOP.
    """
    start = file.read(3)
    file.seek(0)
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return start[2:].decode("latin-1") in _OPCODES
    try:
        return sum(1 for _ in pickletools.genops(file)) > 1
    except Exception:  # pickletools has no error of its own for "not a pickle"
        return False


def _holds_objects(head: bytes) -> bool:
    return head.startswith(b"\x93NUMPY") and b"'|O'" in head[:512]


def _members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """The files in a zip or tar; none if it is neither."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    with archive.open(entry) as opened:
                        yield entry.filename, opened
        return
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=file)  # noqa: SIM115 - closed below
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError):
        return
    with tar:
        for member in tar:
            extracted = tar.extractfile(member) if member.isfile() else None
            if extracted is not None:
                yield member.name, extracted
