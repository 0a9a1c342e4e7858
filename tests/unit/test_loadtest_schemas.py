import json
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ekiben.errors import UnsupportedError
from ekiben.loadtest.schemas import resolved, sample, violation

numbers = st.builds(
    lambda kind, low, width: {"type": kind, "minimum": low, "maximum": low + width},
    st.sampled_from(["number", "integer"]),
    st.integers(-1000, 1000),
    st.integers(0, 50),
)
leaves = st.one_of(
    numbers,
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda a, b: {"type": "string", "minLength": a, "maxLength": a + b}, st.integers(0, 90), st.integers(0, 9)
    ),
    st.builds(lambda values: {"enum": values}, st.lists(st.one_of(st.integers(), st.text(max_size=4)), min_size=1)),
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
    return names.flatmap(
        lambda properties: st.builds(
            lambda required, more: {"type": "object", "properties": properties, "required": required,
                                    "additionalProperties": more},
            st.lists(st.sampled_from(sorted(properties)), unique=True) if properties else st.just([]), st.booleans(),
        )
    )  # fmt: skip


schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        _objects(inner),
        st.builds(
            lambda items, low, width: {"type": "array", "items": items, "minItems": low, "maxItems": low + width},
            inner,
            st.integers(0, 4),
            st.integers(0, 4),
        ),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@given(schemas, st.integers(0, 2**32))
def test_what_is_made_up_fits_its_schema(schema: dict[str, Any], seed: int) -> None:
    made = sample(schema, Random(seed))
    assert violation(schema, made) == ("", "")
    json.dumps(made)
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(schema).validate(made)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner),
)


@given(schemas, values)
def test_violations_are_those_that_jsonschema_finds(schema: dict[str, Any], value: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assume('"minLength"' not in json.dumps(schema))  # lengths of texts are not checked
    assume("true" not in json.dumps(value) and "false" not in json.dumps(value))  # Python: True == 1
    assert bool(violation(schema, value)[0]) == (not jsonschema.Draft202012Validator(schema).is_valid(value))


def test_a_violation_says_where_and_its_kind_does_not_count() -> None:
    schema = {"type": "object", "required": ["rows"], "properties": {"rows": {"items": {"type": "integer"}}}}
    assert violation(schema, {"rows": [1, 2, "x"]}) == (
        "answer.rows[] is no integer",
        "answer.rows[2]: wanted integer, got string",
    )
    assert violation(schema, {}) == ("answer.rows is missing", "answer: rows is missing")


def test_the_outermost_free_array_has_as_many_items_as_asked_for() -> None:
    pixels = {"type": "array", "minItems": 64, "maxItems": 64, "items": {"type": "number", "minimum": 0, "maximum": 16}}
    schema = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": pixels}}}
    made = sample(schema, Random(1), items=7)
    assert len(made["rows"]) == 7 and {len(row) for row in made["rows"]} == {64}
    assert all(0 <= pixel <= 16 for row in made["rows"] for pixel in row)


def test_tensors_have_their_shape() -> None:
    made = sample({"type": "tensor", "shape": [-1, 3], "dtype": "float32"}, Random(1), items=2)
    assert len(made) == 2 and {len(row) for row in made} == {3} and isinstance(made[0][0], float)


def test_references_are_resolved_and_those_without_end_are_cut() -> None:
    itself = {"$ref": "#/components/schemas/A"}
    document = {"components": {"schemas": {"A": {"type": "object", "properties": {"next": itself}}}}}
    found = resolved(itself, document)
    assert found["properties"]["next"]["properties"]["next"]["type"] == "object"
    json.dumps(found)


@pytest.mark.parametrize("schema", [{"type": "file"}, {"type": "dataframe"}, {"type": "string", "pattern": "a+"}])
def test_what_cannot_be_made_up_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="--golden"):
        sample(schema, Random(1))


def test_the_same_seed_gives_the_same() -> None:
    schema = {"type": "array", "items": {"type": "number"}, "maxItems": 9}
    assert (
        sample(schema, Random(5), items=9) == sample(schema, Random(5), items=9) != sample(schema, Random(6), items=9)
    )
