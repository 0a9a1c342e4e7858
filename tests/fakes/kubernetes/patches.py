"""JSON patch (RFC 6902, with the habits of evanphx/json-patch), merge patch (RFC 7386) and strategic merge patch."""

import json
from typing import Any

from tests.fakes.kubernetes.schema import Type
from tests.fakes.kubernetes.statuses import bad_request, patch_failed


def copied(value: Any) -> Any:
    """A deep copy of JSON; several times faster than copy.deepcopy."""
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [copied(each) for each in value]
    return value


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 is not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(each, b[key]) for key, each in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def json_patch(document: Any, operations: Any) -> Any:
    """Raises 400 for what is no patch and 422 for one that does not apply."""
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        kind = "string" if isinstance(operations, str) else "object"
        wrong = f"json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        raise bad_request(f"error decoding patch: {wrong}")
    for operation in operations:
        if why := _no_operation(operation):
            raise bad_request(f"invalid operation {json.dumps(operation, separators=(',', ':'))}: {why}")
    document = copied(document)
    for operation in operations:
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise patch_failed() from error
    return document


def _no_operation(operation: dict[str, Any]) -> str:
    """Why it is none; '' if it is one."""
    if operation.get("op") not in ("add", "remove", "replace", "move", "copy", "test"):
        return "unsupported operation"
    if "path" not in operation:
        return "failed to decode 'path': operation missing path field: missing value"
    if operation["op"] in ("add", "replace") and "value" not in operation:
        return "failed to decode 'value': operation, missing value field: missing value"
    return ""


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    path = _tokens(operation["path"])
    match operation["op"]:
        case "test":
            parent = _find(document, path[:-1])
            found = parent.get(path[-1]) if isinstance(parent, dict) else _at(parent, path[-1])
            if not same(found, operation.get("value")):  # a missing value equals null
                raise ValueError("test failed")
        case "add":
            _add(document, path, copied(operation["value"]))
        case "remove":
            _remove(document, path)
        case "replace":
            _remove(document, path, only_look=True)
            parent = _find(document, path[:-1])
            parent[path[-1] if isinstance(parent, dict) else int(path[-1])] = copied(operation["value"])
        case "move":
            taken = _remove(document, _tokens(operation["from"]))
            _add(document, path, taken)
        case "copy":
            start = _tokens(operation["from"])
            parent = _find(document, start[:-1])
            _add(document, path, copied(parent[start[-1]] if isinstance(parent, dict) else _at(parent, start[-1])))
    return document


def _tokens(path: str) -> list[str]:
    if not path.startswith("/"):
        raise ValueError("a path starts with /")
    return [token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]


def _at(items: list[Any], token: str) -> Any:
    if not token.isdigit():
        raise ValueError("not an index")
    return items[int(token)]


def _find(document: Any, tokens: list[str]) -> Any:
    for token in tokens:
        document = document[token] if isinstance(document, dict) else _at(document, token)
    if not isinstance(document, dict | list):
        raise TypeError("no container")
    return document


def _add(document: Any, path: list[str], value: Any) -> None:
    parent, last = _find(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif last == "-":
        parent.append(value)
    elif not last.isdigit() or int(last) > len(parent):
        raise IndexError(last)
    else:
        parent.insert(int(last), value)


def _remove(document: Any, path: list[str], only_look: bool = False) -> Any:
    parent, last = _find(document, path[:-1]), path[-1]
    if only_look:
        return parent[last] if isinstance(parent, dict) else _at(parent, last)
    return parent.pop(last) if isinstance(parent, dict) else parent.pop(int(last))


def merge_patch(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def strategic_merge(document: Any, patch: Any, kind: Type) -> Any:
    """What kubectl patch sends by default: lists are merged by the merge key that the API's types name; `$patch`
    (replace, delete, merge), `$retainKeys`, `$deleteFromPrimitiveList/…` and `$setElementOrder/…` are directives."""
    if not isinstance(patch, dict):
        return copied(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copied(value) for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(document) if isinstance(document, dict) else {}
    if "$retainKeys" in patch:
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            merged[name] = [each for each in merged.get(name, []) if each not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            merged.pop(key, None)
        else:
            inner = kind.child(key) or Type("any", relation="granular")
            if isinstance(value, list):
                merged[key] = _merge_lists(merged.get(key) or [], value, inner, patch.get(f"$setElementOrder/{key}"))
            else:
                merged[key] = strategic_merge(merged.get(key), value, inner)
    return merged


def _merge_lists(items: list[Any], patch: list[Any], kind: Type, order: list[Any] | None) -> list[Any]:
    if not kind.merges or {"$patch": "replace"} in patch:
        return [copied(each) for each in patch if each != {"$patch": "replace"}]
    key = kind.merge_key
    if not key:
        return [*items, *(each for each in patch if each not in items)]
    merged = list(items)
    for each in patch:
        if key not in each:
            raise bad_request(f"map: {each} does not contain declared merge key: {key}")
        found = [i for i, item in enumerate(merged) if item.get(key) == each[key]]
        if each.get("$patch") == "delete":
            merged = [item for item in merged if item.get(key) != each[key]]
        elif found:
            merged[found[0]] = strategic_merge(merged[found[0]], each, kind.element or kind)
        else:
            merged.append(strategic_merge({}, each, kind.element or kind))
    if order:
        places = {each[key]: i for i, each in enumerate(order)}
        merged.sort(key=lambda item: places.get(item[key], len(places)))
    return merged
