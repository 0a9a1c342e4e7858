"""The digest of a recipe's data: equal for equal values, different for different ones, silent where it cannot know."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ekiben.pipeline import fingerprint


@dataclass
class Split:
    x: Any
    y: Any


def test_one_value_or_type_or_shape_makes_another_digest() -> None:
    x, y = np.arange(12.0).reshape(3, 4), np.arange(3)
    other = x.copy()
    other[2, 3] += 1e-12
    digests = {
        fingerprint.of(each)
        for each in (
            Split(x, y), Split(other, y), Split(x.astype("float32"), y), Split(x.reshape(4, 3), y), Split(y, x),
        )
    }  # fmt: skip
    assert len(digests) == 5
    assert fingerprint.of(Split(x, y)) == fingerprint.of(Split(np.asfortranarray(x), y.copy()))


def test_what_has_no_known_bytes_has_no_digest() -> None:
    assert fingerprint.of(Split(object(), 1)) == ""
    assert fingerprint.of([np.array([object()], dtype=object)]) == ""
    assert fingerprint.of([np.array(["a", "b"], dtype=object)]) != ""


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(_VALUES, _VALUES)
def test_different_values_have_different_digests(one: object, two: object) -> None:
    assert (fingerprint.of(one) == fingerprint.of(two)) == (repr(one) == repr(two) or _sorted(one) == _sorted(two))


def _sorted(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_sorted(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_sorted, value)) + "]"
    return repr(value)
