"""Which manager owns which field: the sets and the merge of sigs.k8s.io/structured-merge-diff.

A path is a tuple of the strings that managedFields are written with: `f:replicas`, `k:{"name":"web"}`, `v:"finalizer"`.
"""

import json
from collections.abc import Iterable
from typing import Any

from tests.fakes.kubernetes.schema import ANY, KEY_DEFAULTS, Type

Path = tuple[str, ...]
Paths = set[Path]


class Untyped(Exception):
    """A configuration that does not fit the schema; the message as the API server says it."""


def _granular(kind: Type) -> bool:
    return kind.form in ("struct", "map", "any", "custom") and kind.relation != "atomic"


def _associative(kind: Type) -> bool:
    return kind.form == "list" and kind.relation in ("map", "set")


def _form(kind: Type, value: Any) -> Type:
    """Where there is no schema, a map is granular and a list atomic."""
    return ANY if kind.form == "any" and isinstance(value, dict) else kind


def item_name(item: Any, kind: Type) -> str:
    """The path element of an item of an associative list."""
    if kind.relation == "set":
        return "v:" + json.dumps(item, separators=(",", ":"))
    keys = {}
    for key in kind.keys:
        if (found := item.get(key, KEY_DEFAULTS.get(key))) is not None:
            keys[key] = found
        elif not any(each in item for each in kind.keys):
            raise Untyped(f'associative list with keys has an element that omits key field "{key}"')
    return "k:" + json.dumps(keys, separators=(",", ":"), sort_keys=True)


def leaves(value: Any, kind: Type, path: Path = ()) -> Paths:
    """The paths that a configuration sets."""
    found: Paths = set()
    _leaves(value, kind, path, found)
    return found


def _leaves(value: Any, kind: Type, path: Path, found: Paths) -> None:
    if isinstance(value, dict) and _granular(kind):
        for key, each in value.items():
            at = (*path, f"f:{key}")
            inner = kind.child(key) or ANY
            _leaves(each, inner, at, found)
            if each is None or each == {} or kind.form == "map":
                found.add(at)
    elif isinstance(value, list) and _associative(kind):
        for item in value:
            at = (*path, item_name(item, kind))
            _leaves(item, kind.element or ANY, at, found)
            found.add(at)
    else:
        found.add(path)


def check(value: Any, kind: Type, path: str = "") -> Iterable[str]:
    """What in a configuration does not fit the schema."""
    if isinstance(value, dict) and kind.form in ("struct", "map", "custom"):
        for key, each in value.items():
            inner = kind.child(key)
            if inner is None:
                yield f"{path}.{key}: field not declared in schema"
            else:
                yield from check(each, inner, f"{path}.{key}")
    elif isinstance(value, list) and kind.form == "list":
        seen = set()
        for index, item in enumerate(value):
            name = f"[{index}]"
            if _associative(kind):
                try:
                    element = item_name(item, kind)
                except Untyped as error:
                    yield f"{path}: element {index}: {error}"
                    continue
                name = shown((element,))
                if element in seen:
                    yield f"{path}: duplicate entries for key {name}"
                seen.add(element)
            yield from check(item, kind.element or ANY, path + name)
    elif value is not None and kind.form in _EXPECTED:
        name, good = _EXPECTED[kind.form]
        if not isinstance(value, good) or (isinstance(value, bool) and bool not in good):
            yield f"{path}: expected {name}, got {_told(value, name)}"


_EXPECTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "struct": ("map", (dict,)),
    "map": ("map", (dict,)),
    "list": ("list", (list,)),
    "string": ("string", (str,)),
    "boolean": ("boolean", (bool,)),
    "integer": ("numeric (int or float)", (int, float)),
    "number": ("numeric (int or float)", (int, float)),
}


def _told(value: Any, wanted: str) -> str:
    """A value of the wrong type, as it is printed there."""
    if wanted.startswith("numeric"):
        return {str: "string", bool: "boolean", dict: "map", list: "list"}[type(value)]
    return f"&{{{value}}}" if isinstance(value, str) else f"&value.valueUnstructured{{Value:{json.dumps(value)}}}"


def compare(old: Any, new: Any, kind: Type) -> tuple[Paths, Paths, Paths]:
    """The paths that were added, modified and removed. `old` or `new` may be absent (None)."""
    added: Paths = set()
    modified: Paths = set()
    removed: Paths = set()
    _compare(old, new, kind, (), added, modified, removed)
    return added, modified, removed


def _compare(old: Any, new: Any, kind: Type, path: Path, added: Paths, modified: Paths, removed: Paths) -> None:
    if old is new:
        return
    is_map = isinstance(old, dict) or isinstance(new, dict)
    is_list = isinstance(old, list) or isinstance(new, list)
    if is_map and _granular(kind):
        before, after = (each if isinstance(each, dict) else {} for each in (old, new))
        for key in {**before, **after}:
            inner = kind.child(key) or ANY
            a, b = before.get(key, _ABSENT), after.get(key, _ABSENT)
            _compare(a, b, inner, (*path, f"f:{key}"), added, modified, removed)
    elif is_list and _associative(kind):
        before, after = (_items(each, kind) if isinstance(each, list) else {} for each in (old, new))
        for name in {**before, **after}:
            a, b = before.get(name, _ABSENT), after.get(name, _ABSENT)
            _compare(a, b, kind.element or ANY, (*path, name), added, modified, removed)
    elif old is not _ABSENT and new is not _ABSENT:
        if old != new:
            modified.add(path)
        return
    if old is _ABSENT:
        added.add(path)
    elif new is _ABSENT:
        removed.add(path)


_ABSENT = object()


def _items(items: list[Any], kind: Type) -> dict[str, Any]:
    return {item_name(item, kind): item for item in items}


def merge(live: Any, config: Any, kind: Type) -> Any:
    """The live object with everything that the configuration says."""
    if isinstance(config, dict) and isinstance(live, dict) and _granular(kind):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = merge(live[key], value, kind.child(key) or ANY) if key in live else value
        return merged
    if isinstance(config, list) and isinstance(live, list) and _associative(kind):
        return _merge_lists(live, config, kind)
    return config


def _merge_lists(live: list[Any], config: list[Any], kind: Type) -> list[Any]:
    """The order of the configuration wins; what only the live list has keeps its place between its neighbours."""
    left, right = [item_name(each, kind) for each in live], [item_name(each, kind) for each in config]
    left_items, right_items = dict(zip(left, live, strict=True)), dict(zip(right, config, strict=True))
    shared = [name for name in right if name in left_items]
    merged: list[Any] = []
    done: set[str] = set()

    def take(name: str) -> None:
        if name in left_items and name in right_items:
            merged.append(merge(left_items[name], right_items[name], kind.element or ANY))
        else:
            merged.append(left_items.get(name, right_items.get(name)))

    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            if left[i] == right[j]:
                done.add(right[j])
                take(left[i])
                i, j, shared = i + 1, j + 1, shared[1:]
                continue
            if left[i] in right_items and shared and shared[0] != left[i]:
                i += 1
                continue
        if i < len(left):
            if left[i] not in right_items:
                take(left[i])
                i += 1
                continue
            if left[i] in done:
                i += 1
        if j < len(right):
            done.add(right[j])
            take(right[j])
            if shared and shared[0] == right[j]:
                shared = shared[1:]
            j += 1
    return merged


def without(value: Any, kind: Type, paths: Paths, path: Path = ()) -> Any:
    """The value without what is at the paths; a map or list that becomes empty becomes null."""
    if not paths:
        return value
    prefixes = {each[:n] for each in paths for n in range(1, len(each))}
    return _without(value, kind, paths, prefixes, path)


def _without(value: Any, kind: Type, paths: Paths, prefixes: Paths, path: Path) -> Any:
    if isinstance(value, dict) and _granular(kind):
        kept = {}
        for key, each in value.items():
            at = (*path, f"f:{key}")
            if at not in paths:
                kept[key] = _without(each, kind.child(key) or ANY, paths, prefixes, at) if at in prefixes else each
        return kept or None
    if isinstance(value, list) and _associative(kind):
        items = []
        for item in value:
            at = (*path, item_name(item, kind))
            if at not in paths:
                items.append(_without(item, kind.element or ANY, paths, prefixes, at) if at in prefixes else item)
        return items or None
    return value


def with_parents(paths: Paths, kind: Type) -> Paths:
    """The paths and the struct fields above them (EnsureNamedFieldsAreMembers)."""
    found = set(paths)
    for path in paths:
        here: Type | None = kind
        for n, name in enumerate(path[:-1], start=1):
            if here is None:
                break
            if name.startswith("f:"):
                if here.form in ("struct", "custom", "any"):
                    found.add(path[:n])
                here = here.child(name[2:])
            else:
                here = here.element
    return found


def prune(merged: Any, kind: Type, last: Paths, managed: Paths) -> Any:
    """The merged object without what its manager applied last time (`last`) and nobody owns now."""
    if last <= managed:
        return merged
    everything = with_parents(leaves(merged, kind), kind)
    last, managed = with_parents(last, kind), with_parents(managed, kind)
    first = without(merged, kind, last)
    kept = with_parents(leaves(first, kind), kind)
    owned = without(merged, kind, everything - (kept | managed))
    return without(merged, kind, (everything - with_parents(leaves(owned, kind), kind)) & last)


def to_fields(paths: Paths) -> dict[str, Any]:
    """As in managedFields[].fieldsV1."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        here = tree
        for name in path:
            here = here.setdefault(name, {})
        here["."] = {}
    return _trim(tree)


def _trim(tree: dict[str, Any]) -> dict[str, Any]:
    if tree.keys() == {"."}:
        return {}
    return {name: below if name == "." else _trim(below) for name, below in tree.items()}


def from_fields(tree: dict[str, Any], path: Path = ()) -> Paths:
    found: Paths = set()
    for name, below in tree.items():
        if name == ".":
            found.add(path)
        elif not below:
            found.add((*path, name))
        else:
            found |= from_fields(below, (*path, name))
    return found


def shown(path: Path) -> str:
    """A path as conflicts name it: .spec.template.spec.containers[name="web"].image"""
    text = ""
    for name in path:
        if name.startswith("f:"):
            text += f".{name[2:]}"
        elif name.startswith("k:"):
            keys = json.loads(name[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
        else:
            text += f"[={name[2:]}]"
    return text
