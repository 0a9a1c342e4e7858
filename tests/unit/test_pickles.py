"""What the pickle guard refuses, and what it lets through."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.errors import IntegrityError, UsageError
from ekiben.packaging import pickles


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def _joblib(compress: object) -> bytes:
    target = io.BytesIO()
    joblib.dump({"weights": np.zeros(1000), "evil": Evil()}, target, compress=compress)
    return target.getvalue()


def _zip(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, content)
    return target.getvalue()


def _tar(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def _npy(array: np.ndarray, allow: bool) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=allow)
    return target.getvalue()


REFUSED = {
    **{f"protocol {number}": pickle.dumps(Evil(), number) for number in range(6)},
    **{f"padded, protocol {number}": pickle.dumps([b"x" * 200_000, Evil()], number) for number in range(6)},
    **{f"joblib {kind}": _joblib(kind) for kind in (0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3))},
    "torch before its zip format": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(Evil(), 2),
    "torch": _zip("archive/data.pkl", pickle.dumps(Evil(), 2)),
    "torch, renamed inside": _zip("archive/weights", pickle.dumps(Evil(), 2)),
    "zip in a zip": _zip("inner.bin", _zip("weights", pickle.dumps(Evil()))),
    "tar": _tar("weights", pickle.dumps(Evil())),
    "array of objects": _npy(np.array([Evil()], dtype=object), True),
    "zip of a damaged member": _zip("a.txt", b"a" * 99).replace(b"a" * 99, b"a" * 98 + b"b"),
    "npz of objects": _zip("a.npy", _npy(np.array([Evil()], dtype=object), True)),
}
KEPT = {
    "labels.txt": b"cat\ndog\nbird\n",
    "network.py": b"import torch\nimport numpy\n\n\nclass Network(torch.nn.Module):\n    pass\n",
    "golden.json": b'{"version": 1}',
    "README.md": b"I am a model. Yes.\n",
    "empty": b"",
    "weights.npy": _npy(np.zeros(3), False),
    "model.safetensors": (128).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}'.ljust(128) + bytes(64),
    "model.skops": _zip("schema.json", b"{}"),
    "model.onnx": b"\x08\x07\x12\x07pytorch",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pickle_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    (tmp_path / "weights.bin").write_bytes(REFUSED[name])
    with pytest.raises(IntegrityError, match=r"weights\.bin"):
        pickles.refuse(tmp_path, {})


@pytest.mark.parametrize("name", ["model.pkl", "sub/MODEL.JOBLIB", "a.pt", "b.pth", "c.pickle"])
def test_a_pickle_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"nothing that could be read")
    with pytest.raises(IntegrityError, match=name):
        pickles.refuse(tmp_path, {})


def test_other_files_are_let_through(tmp_path: Path) -> None:
    for name, content in KEPT.items():
        (tmp_path / name).write_bytes(content)
    pickles.refuse(tmp_path, {})


def test_a_real_skops_file_is_let_through(tmp_path: Path) -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    skops.io.dump(LogisticRegression().fit([[0], [1]], [0, 1]), tmp_path / "model.skops")
    pickles.refuse(tmp_path, {})


def test_only_the_very_file_that_the_recipe_lists_is_allowed_and_only_with_a_reason(tmp_path: Path) -> None:
    for name in ("a.pkl", "sub/a.pkl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pickle.dumps({}))
    with pytest.raises(IntegrityError, match=r"sub/a\.pkl"):
        pickles.refuse(tmp_path, {"a.pkl": "a vendor's format"})
    with pytest.raises(UsageError, match="no reason"):
        pickles.refuse(tmp_path, {"a.pkl": "a vendor's format", "sub/a.pkl": " "})
    pickles.refuse(tmp_path, {"a.pkl": "a vendor's format", "sub/a.pkl": "the same"})


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(_PLAIN, st.integers(0, 5))
def test_whatever_pickle_writes_is_a_pickle(tmp_path_factory: pytest.TempPathFactory, value: object, how: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(pickle.dumps([value], how))
    assert pickles.kind(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_the_guard(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(content)
    pickles.kind(path)
