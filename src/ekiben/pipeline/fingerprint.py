"""A digest of a recipe's data, so that a model can say what it was trained on."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def of(data: Any) -> str:
    """SHA-256 of the values in `data`: arrays, and what holds them (dataclasses, mappings, sequences).

    Arrays count with their type and shape. Empty where `data` holds something whose bytes are not known: no digest is
    better than one that stays the same when the data changes.
    """
    digest = hashlib.sha256()
    try:
        for part in _parts(data):
            digest.update(part)
    except TypeError:
        return ""
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Each value begins with its kind and size, so that no two different values make the same bytes."""
    if value is None or isinstance(value, bool | int | float | str | Path):
        yield _framed(type(value).__name__, str(value).encode())
    elif isinstance(value, bytes):
        yield _framed("bytes", value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _parts({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        yield _framed("mapping", str(len(value)).encode())
        for key in sorted(value, key=str):
            yield from _parts(str(key))
            yield from _parts(value[key])
    elif hasattr(value, "__array__"):
        yield from _array(value)
    elif isinstance(value, Sequence):
        yield _framed("sequence", str(len(value)).encode())
        for item in value:
            yield from _parts(item)
    else:
        raise TypeError(f"no known bytes: {type(value)}")


def _array(value: Any) -> Iterator[bytes]:
    import numpy as np

    array = np.asarray(value)
    if array.dtype.hasobject:
        yield from _parts([array.shape, array.tolist()])
        return
    yield _framed("array", f"{array.dtype.str} {array.shape}".encode())
    yield np.ascontiguousarray(array).tobytes()


def _framed(kind: str, content: bytes) -> bytes:
    return f"{kind} {len(content)}\n".encode() + content
