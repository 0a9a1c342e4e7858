"""The fake's server-side apply beside the library of the real one.

tests/golden/structured_merge.json was recorded from sigs.k8s.io/structured-merge-diff 4.1.2, merge.Updater: lists of
[apply or update, manager, force, object, what came of it] by several managers. Order in associative lists is left out:
the library changed it in 4.3.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes import managers
from tests.fakes.kubernetes.managers import Manager
from tests.fakes.kubernetes.schema import ANY, Type
from tests.fakes.kubernetes.statuses import ApiFailure

SEQUENCES = json.loads((Path(__file__).parents[1] / "golden" / "structured_merge.json").read_text())


def struct(**fields: Type) -> Type:
    return Type("struct", relation="granular", fields=fields)


def items(element: Type, *keys: str) -> Type:
    return Type("list", element=element, keys=keys, relation="map" if keys else "set")


STRING, NUMBER = Type("string"), Type("integer")
NESTED = struct(a=STRING, b=STRING)
NESTED.fields["deep"] = NESTED
ITEM = struct(name=STRING, value=STRING, tags=items(STRING))
ITEM.fields["env"] = items(ITEM, "name")
KIND = struct(
    scalar=STRING,
    count=NUMBER,
    struct=NESTED,
    labels=Type("map", element=STRING, relation="granular"),
    atomicmap=Type("map", element=STRING, relation="atomic"),
    items=items(ITEM, "name"),
    atomiclist=Type("list", element=STRING, relation="atomic"),
    ports=items(struct(port=NUMBER, protocol=STRING, title=STRING), "port", "protocol"),
    set=items(STRING),
    metadata=ANY,
)


def unordered(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: unordered(each, key) for key, each in value.items()}
    if isinstance(value, list) and name != "atomiclist":
        return sorted((unordered(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


@pytest.mark.parametrize("sequence", SEQUENCES, ids=range(len(SEQUENCES)))
def test_as_the_library(sequence: list[Any]) -> None:
    live: dict[str, Any] = {}
    for operation, name, force, thing, wanted in sequence:
        manager = Manager(name, operation.capitalize(), "v1")
        got: dict[str, Any] = {}
        try:
            if operation == "apply":
                live = managers.apply(live, thing, KIND, manager, "now", force)
            else:
                owned = managers.update(live, {**thing, "metadata": live.get("metadata", {})}, KIND, manager, "now")
                live = {**thing, "metadata": {"managedFields": owned}}
        except ApiFailure as failure:
            assert failure.details
            causes = failure.details["causes"]
            got["conflicts"] = sorted(f"{each['message'].split(chr(34))[1]} {each['field']}" for each in causes)
        got["object"] = {key: value for key, value in live.items() if key != "metadata"}
        entries = live.get("metadata", {}).get("managedFields", [])
        got["managers"] = {each["manager"]: each["fieldsV1"] for each in entries}
        assert unordered({key: value for key, value in got.items() if value}) == unordered(wanted)
