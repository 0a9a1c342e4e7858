"""The types of the Kubernetes API, read from the OpenAPI document of version 1.36: what a field may hold, and how its
lists and maps are merged (x-kubernetes-list-type, -map-keys, -map-type, -patch-merge-key, -patch-strategy).

The document is the one that kubernetes-validate ships; custom resources have no schema here and are free of form, as
under a definition with x-kubernetes-preserve-unknown-fields.
"""

import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from typing import Any

VERSION = "1.36.0"

# The OpenAPI document leaves these defaults out; the API server has them, and needs them to complete the keys of lists.
KEY_DEFAULTS = {"protocol": "TCP"}


@dataclass
class Type:
    """One type; `form` is struct, map, list, string, integer, number, boolean, quantity, int-or-string or any."""

    form: str
    go: str = ""
    fields: dict[str, "Type"] = field(default_factory=dict)
    element: "Type | None" = None
    keys: tuple[str, ...] = ()
    relation: str = "atomic"  # of a list: atomic, set or map; of a map or struct: granular or atomic
    merge_key: str = ""
    merges: bool = False  # a list that a strategic merge patch merges
    retain_keys: bool = False
    required: bool = False  # written out even when it is empty

    def child(self, key: str) -> "Type | None":
        """The type of a field or entry, None for a field that the type does not have."""
        if self.form == "struct":
            return self.fields.get(key)
        if self.form == "map":
            return self.element
        return ANY if self.form == "any" else None


ANY = Type("any", relation="granular")


@cache
def _definitions() -> dict[str, Any]:
    path = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}-local" / "_definitions.json"
    definitions: dict[str, Any] = json.loads(path.read_text())["$defs"]
    return definitions


@cache
def _named(name: str) -> Type:
    short = name.rsplit(".", 1)[-1]
    if short == "Quantity":
        return Type("quantity")
    if short == "IntOrString":
        return Type("int-or-string")
    if short in ("FieldsV1", "RawExtension", "JSON", "JSONSchemaProps"):
        return ANY
    definition = _definitions()[name]
    made = Type("any", go=short, relation="granular")  # before its fields: some types hold themselves
    _fill(made, definition)
    return made


class _Fields(dict[str, Type]):
    """Fields, each built when it is asked for: a Deployment has 600 types below it and a test meets a few of them."""

    def __init__(self, properties: dict[str, Any], required: list[str]) -> None:
        super().__init__()
        self.properties, self.needed = properties, required

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self and key in self.properties:
            made = _property(self.properties[key])
            made.required = key in self.needed
            self[key] = made
        return super().get(key, default)


def _property(definition: dict[str, Any]) -> Type:
    if "$ref" in definition:
        base = _named(definition["$ref"].rsplit("/", 1)[-1])
        made = Type(base.form, base.go, base.fields, base.element, base.keys, base.relation)
    else:
        made = Type("any", relation="granular")
        _fill(made, definition)
    strategy = definition.get("x-kubernetes-patch-strategy", "")
    made.merges = strategy.startswith("merge")
    made.retain_keys = strategy.endswith("retainKeys")
    made.merge_key = definition.get("x-kubernetes-patch-merge-key", "")
    if made.form == "list" and made.merges and "x-kubernetes-list-type" not in definition:
        made.relation, made.keys = ("map", (made.merge_key,)) if made.merge_key else ("set", ())
    if definition.get("x-kubernetes-map-type") == "atomic":
        made.relation = "atomic"
    return made


def _fill(made: Type, definition: dict[str, Any]) -> None:
    kinds = definition.get("type", "object")
    kind = next((each for each in kinds if each != "null"), "object") if isinstance(kinds, list) else kinds
    if kind == "array":
        made.form = "list"
        made.element = _property(definition.get("items", {}))
        made.relation = definition.get("x-kubernetes-list-type", "atomic")
        made.keys = tuple(definition.get("x-kubernetes-list-map-keys", ()))
        return
    if kind != "object":
        made.form = kind
        return
    made.relation = "atomic" if definition.get("x-kubernetes-map-type") == "atomic" else "granular"
    if "properties" in definition:
        made.form, made.fields = "struct", _Fields(definition["properties"], definition.get("required", []))
    elif "additionalProperties" in definition:
        made.form, made.element = "map", _property(definition["additionalProperties"])


@cache
def kind_type(group: str, version: str, kind: str) -> Type:
    """The type of a built-in kind; a custom one has typed metadata and is free otherwise."""
    for name, definition in _definitions().items():
        for each in definition.get("x-kubernetes-group-version-kind", ()):
            if (each["group"], each["version"], each["kind"]) == (group, version, kind):
                return _named(name)
    metadata = _named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    return _Custom("custom", relation="granular", fields={"metadata": metadata})


class _Custom(Type):
    def child(self, key: str) -> Type | None:
        return self.fields.get(key, ANY)


class Mistake(Exception):
    """A value of the wrong type: what Go's JSON decoder says."""


def decode(value: Any, kind: Type, unknown: list[str], path: str = "", owner: str = "") -> Any:
    """The value as the API server keeps it: unknown fields, nulls and empty optional maps and lists left out, and
    quantities in canonical form. Paths of unknown fields go to `unknown`. Raises Mistake for a wrong type."""
    match kind.form:
        case "struct" | "custom":
            if not isinstance(value, dict):
                raise _wrong(value, path, owner, kind.go)
            kept = {}
            for key, each in value.items():
                inner = kind.child(key)
                at = f"{path}.{key}" if path else key
                if inner is None:
                    unknown.append(at)
                elif each is not None:
                    made = decode(each, inner, unknown, at, kind.go or owner)
                    if inner.required or not (inner.form in ("map", "list") and not made):
                        kept[key] = made
            return kept
        case "map":
            if not isinstance(value, dict):
                raise _wrong(value, path, owner, "map[string]string")
            assert kind.element is not None
            empty = {"string": ""}.get(kind.element.form)
            return {
                key: empty if each is None else decode(each, kind.element, unknown, path, owner)
                for key, each in value.items()
                if each is not None or empty is not None
            }
        case "list":
            if not isinstance(value, list):
                raise _wrong(value, path, owner, f"[]{kind.element.go if kind.element else 'string'}")
            assert kind.element is not None
            return [decode(each, kind.element, unknown, f"{path}[{i}]", owner) for i, each in enumerate(value)]
        case "string":
            if not isinstance(value, str):
                raise _wrong(value, path, owner, "string")
        case "boolean":
            if not isinstance(value, bool):
                raise _wrong(value, path, owner, "bool")
        case "integer":
            if isinstance(value, bool) or not isinstance(value, int):
                raise _wrong(value, path, owner, "int32")
        case "number":
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise _wrong(value, path, owner, "float64")
        case "int-or-string":
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise _wrong(value, path, owner, "intstr.IntOrString")
        case "quantity":
            return canonical_quantity(value)
    return value


def _wrong(value: Any, path: str, owner: str, wanted: str) -> Mistake:
    names = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}
    where = f"Go struct field {owner}.{path}" if path else "Go value"
    return Mistake(f"json: cannot unmarshal {names.get(type(value), 'null')} into {where} of type {wanted}")


_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity(value: Any) -> Decimal:
    """A quantity such as 500m or 1Gi as a number. Raises Mistake."""
    text = str(value)
    try:
        for suffix, factor in _BINARY.items():
            if text.endswith(suffix):
                return Decimal(text[:-2]) * factor
        if text[-1:] in _DECIMAL and not text[-1:].isdigit():
            return Decimal(text[:-1]).scaleb(_DECIMAL[text[-1]])
        number = Decimal(text)
    except (InvalidOperation, ValueError):
        number = Decimal("nan")
    if isinstance(value, bool) or not number.is_finite():
        pattern = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
        raise Mistake(f"quantities must match the regular expression '{pattern}'")
    return number


def canonical_quantity(value: Any) -> str:
    """The shortest form with an integer: 0.5 is 500m, 1024Mi is 1Gi, 1000m is 1 (Quantity.CanonicalizeBytes)."""
    number = quantity(value)
    if str(value).endswith("i"):
        fitting = [s for s, factor in _BINARY.items() if number and number % factor == 0]
        if fitting:
            return f"{int(number / _BINARY[fitting[-1]])}{fitting[-1]}"
    if not number:
        return "0"
    for suffix, exponent in reversed(_DECIMAL.items()):
        scaled = number.scaleb(-exponent)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{-int(-number.scaleb(9) // 1)}n"  # finer than a nano is rounded up
