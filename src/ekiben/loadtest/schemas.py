"""JSON Schema as far as BentoML's OpenAPI documents use it: values that fit one, and what of a value does not. Pure.

Beside JSON's own types there is BentoML's `tensor`. What cannot be made up (files, data frames, patterns) is refused.
"""

import math
import re
from collections.abc import Mapping
from random import Random
from typing import Any

from ekiben.errors import UnsupportedError

Schema = Mapping[str, Any]

DEEPEST = 12  # of what is resolved and made up; a schema that refers to itself has no end
MORE_ITEMS = 3  # of an array beyond its fewest, where the schema sets no other limit
TEXT = "The quick brown fox jumps over the lazy dog. "
FORMATS = {
    "date": "2024-02-29",
    "date-time": "2024-02-29T12:30:00Z",
    "time": "12:30:00Z",
    "duration": "PT5S",
    "email": "person@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "6b3c8d2e-7f0a-4c51-9d8e-2a1f5b7c9e04",
}
_INDEX = re.compile(r"\[\d+\]")
_JSON = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def resolved(schema: Any, document: Schema, depth: int = 0) -> Any:
    """The schema with what its `$ref`s name in place of them; deeper than DEEPEST references anything is allowed."""
    if isinstance(schema, list):
        return [resolved(part, document, depth) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, Mapping) else {}
        return resolved(target, document, depth + 1) if depth < DEEPEST else {}
    return {key: resolved(part, document, depth) for key, part in schema.items()}


def sample(schema: Schema, random: Random, items: int | None = None, depth: int = 0) -> Any:
    """A value that fits the resolved schema. `items`: how long the outermost array is, where its length is free.

    An example that the schema gives is taken as it is. UnsupportedError for what cannot be made up.
    """
    if depth > DEEPEST:
        raise UnsupportedError("a request's schema is nested too deeply", next_step="give examples: --golden FILE")
    if depth == 0 and items is None and (given := _given(schema)):
        return random.choice(given)
    if "const" in schema:
        return schema["const"]
    if enum := schema.get("enum"):
        return random.choice(enum)
    if parts := schema.get("allOf"):
        return sample(_merged([*parts, {k: v for k, v in schema.items() if k != "allOf"}]), random, items, depth + 1)
    for key in ("anyOf", "oneOf"):
        if parts := schema.get(key):
            return sample(random.choice(parts), random, items, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        kind = random.choice(kind)
    match kind:
        case "object":
            return _object(schema, random, items, depth)
        case "array":
            return _array(schema, random, items, depth)
        case "tensor":
            return _tensor(schema, random, items)
        case "number":
            return _number(schema, random)
        case "integer":
            return _integer(schema, random)
        case "string":
            return _string(schema, random)
        case "boolean":
            return random.random() < 0.5
        case "null":
            return None
        case None:
            return _given(schema)[0] if _given(schema) else {}
    raise UnsupportedError(
        f"no value can be made up for a schema of type {kind!r}", next_step="give examples: --golden FILE"
    )


def violation(schema: Schema, value: Any, where: str = "answer") -> tuple[str, str]:
    """(kind, phrase): what of `value` does not fit the resolved schema, ('', '') when all does.

    The kind names the place without array indices, so that one kind of violation stays one kind.
    """
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        wanted = " or ".join(kinds)
        return f"{_place(where)} is no {wanted}", f"{where}: wanted {wanted}, got {_JSON.get(type(value), 'null')}"
    for key in ("anyOf", "oneOf"):
        if (parts := schema.get(key)) and all(violation(part, value, where)[0] for part in parts):
            return f"{_place(where)} fits no alternative", f"{where}: fits none of {len(parts)} alternatives"
    for part in schema.get("allOf", ()):
        if (found := violation(part, value, where))[0]:
            return found
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return f"{_place(where)} is not one of those allowed", f"{where}: {str(value)[:60]!r} is not allowed"
    if isinstance(value, dict):
        return _object_violation(schema, value, where)
    if isinstance(value, list):
        return _array_violation(schema, value, where)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if isinstance(value, int | float) and not isinstance(value, bool) and not low <= value <= high:
        return f"{_place(where)} is out of range", f"{where}: {value} is not in {low:g}..{high:g}"
    return "", ""


def _object_violation(schema: Schema, value: dict[str, Any], where: str) -> tuple[str, str]:
    for key in schema.get("required", ()):
        if key not in value:
            return f"{_place(where)}.{key} is missing", f"{where}: {key} is missing"
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, part in value.items():
        if key not in properties and more is False:
            return f"{_place(where)} has more keys than promised", f"{where}: {key} was not promised"
        inner = properties.get(key, more)
        if isinstance(inner, Mapping) and (found := violation(inner, part, f"{where}.{key}"))[0]:
            return found
    return "", ""


def _array_violation(schema: Schema, value: list[Any], where: str) -> tuple[str, str]:
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        return f"{_place(where)} has another length", f"{where}: {len(value)} items, wanted {low}..{high}"
    first, rest = schema.get("prefixItems", []), schema.get("items", {})
    for i, part in enumerate(value):
        inner = first[i] if i < len(first) else rest
        if isinstance(inner, Mapping) and inner and (found := violation(inner, part, f"{where}[{i}]"))[0]:
            return found
    return "", ""


def _object(schema: Schema, random: Random, items: int | None, depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    made = {}
    for name, part in schema.get("properties", {}).items():
        if name in required or random.random() < 0.5:
            inner = items if _free_array(part) else None
            made[name] = sample(part, random, inner, depth + 1)
    return made


def _array(schema: Schema, random: Random, items: int | None, depth: int) -> list[Any]:
    first, fewest = schema.get("prefixItems", []), schema.get("minItems", 0)
    most = schema.get("maxItems", len(first) if first and "items" not in schema else math.inf)
    usual = max(fewest, len(first)) + random.randint(0, MORE_ITEMS)
    count = int(min(max(usual if items is None else items, fewest), most))
    parts = [*first, *[schema.get("items", {})] * max(0, count - len(first))]
    return [sample(part, random, None, depth + 1) for part in parts[: max(count, fewest)]]


def _tensor(schema: Schema, random: Random, items: int | None) -> Any:
    """Nested lists of BentoML's `shape`, where -1 or null is free; one dimension where it says none."""
    whole = "int" in str(schema.get("dtype", ""))
    shape = [size if isinstance(size, int) and size >= 0 else None for size in schema.get("shape") or [None]]

    def build(sizes: list[int | None], free: int) -> Any:
        if not sizes:
            return random.randint(0, 9) if whole else round(random.random(), 4)
        return [build(sizes[1:], MORE_ITEMS) for _ in range(free if sizes[0] is None else sizes[0])]

    return build(shape, items or MORE_ITEMS)


def _number(schema: Schema, random: Random) -> float:
    low, high = _range(schema)
    if step := schema.get("multipleOf"):
        return float(random.randint(math.ceil(low / step), math.floor(high / step)) * step)
    value = round(random.uniform(low, high), 4)
    inside = low <= value <= high and value not in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
    return value if inside else (low + high) / 2


def _integer(schema: Schema, random: Random) -> int:
    low, high = _range(schema)
    step = int(schema.get("multipleOf", 1))
    first = math.floor(low) + 1 if schema.get("exclusiveMinimum") == low else math.ceil(low)
    last = math.ceil(high) - 1 if schema.get("exclusiveMaximum") == high else math.floor(high)
    return random.randint(math.ceil(first / step), math.floor(last / step)) * step


def _range(schema: Schema) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return 0, 100
    return (high - 100 if low is None else low), (low + 100 if high is None else high)


def _string(schema: Schema, random: Random) -> str:
    form = schema.get("format")
    if "pattern" in schema or form in ("binary", "byte"):
        what = f"the pattern {schema['pattern']!r}" if "pattern" in schema else "a file"
        raise UnsupportedError(f"no text can be made up for {what}", next_step="give examples: --golden FILE")
    if form in FORMATS:
        return FORMATS[form]
    fewest = schema.get("minLength", 0)
    length = random.randint(max(fewest, 1), max(fewest, min(schema.get("maxLength", 80), fewest + 40), 1))
    start = random.randrange(len(TEXT))
    return (TEXT[start:] + TEXT * (length // len(TEXT) + 1))[: min(length, schema.get("maxLength", length))]


def _given(schema: Schema) -> list[Any]:
    given = schema.get("examples", [schema["example"]] if "example" in schema else [])
    return given if isinstance(given, list) else []


def _merged(parts: list[Schema]) -> Schema:
    """All of several schemas: what is in one level of each."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key == "properties":
                value = {**merged.get(key, {}), **value}
            elif key == "required":
                value = [*merged.get(key, []), *value]
            merged[key] = value
    return merged


def _free_array(schema: Schema) -> bool:
    if schema.get("type") == "tensor":
        return True
    return schema.get("type") == "array" and schema.get("minItems", 0) != schema.get("maxItems", -1)


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    return True  # a type that JSON Schema does not have promises nothing


def _place(where: str) -> str:
    return _INDEX.sub("[]", where)
