"""Label selectors (in a query and in objects) and field selectors."""

import re
from collections.abc import Callable
from typing import Any

from tests.fakes.kubernetes.statuses import bad_request

Match = Callable[[dict[str, Any]], bool]

_REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<name>[\w./-]+)"
    r"|(?P<key>[\w./-]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)|\s(?P<set>in|notin)\s*\((?P<values>[^)]*)\))?)\s*(?:,|$)"
)


def label_selector(text: str) -> Match:
    """Of a query. Raises 400."""
    tests: list[Callable[[dict[str, str]], bool]] = []
    place = 0
    while place < len(text):
        found = _REQUIREMENT.match(text, place)
        if not found:
            raise bad_request(f"unable to parse requirement: found '{text[place:]}', expected: identifier")
        place = found.end()
        tests.append(_requirement(found))
    return lambda thing: all(test(thing["metadata"].get("labels") or {}) for test in tests)


def _requirement(found: re.Match[str]) -> Callable[[dict[str, str]], bool]:
    key, value = found["key"], found["value"]
    if found["absent"]:
        return lambda labels: found["name"] not in labels
    if found["set"]:
        values = {each.strip() for each in found["values"].split(",")}
        return (
            (lambda labels: labels.get(key) in values)
            if found["set"] == "in"
            else (lambda labels: labels.get(key) not in values)
        )
    if found["op"] == "!=":
        return lambda labels: labels.get(key) != value
    return (lambda labels: labels.get(key) == value) if found["op"] else (lambda labels: key in labels)


def matches(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """A LabelSelector of an object; none selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or []:
        found, values = labels.get(each["key"]), each.get("values") or []
        good = {
            "In": found in values,
            "NotIn": found not in values,
            "Exists": found is not None,
            "DoesNotExist": found is None,
        }
        if not good[each["operator"]]:
            return False
    return True


# What may be selected by, beside metadata.name and metadata.namespace.
_FIELDS = {
    "Pod": [
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ],
    "Event": [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "reason",
        "source",
        "type",
    ],
    "Secret": ["type"],
    "Namespace": ["status.phase"],
    "ReplicaSet": ["status.replicas"],
    "Service": ["spec.clusterIP", "spec.type"],
    "Node": ["spec.unschedulable"],
}


def field_selector(text: str, kind: str) -> Match:
    """Of a query. Raises 400 for a field that the kind cannot be selected by."""
    tests: list[tuple[list[str], str, bool]] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([\w.]+)(==|=|!=)(.*)", part)
        if not found:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        path, operator, value = found.groups()
        if path not in ("metadata.name", "metadata.namespace", *_FIELDS.get(kind, ())):
            raise bad_request(f"field label not supported: {path}")
        tests.append((path.split("."), value, operator != "!="))
    return lambda thing: all((str(_field(thing, path)) == value) is wanted for path, value, wanted in tests)


def _field(thing: Any, path: list[str]) -> Any:
    for name in path:
        thing = thing.get(name, "") if isinstance(thing, dict) else ""
    return thing.get("component", "") if isinstance(thing, dict) else thing
