"""Small facts about objects that several controllers need."""

from typing import Any

from tests.fakes.kubernetes.clock import seconds

Json = dict[str, Any]


def owner(thing: Json) -> str:
    """The uid of the controller that owns it, or ""."""
    references = thing["metadata"].get("ownerReferences", ())
    return next((each["uid"] for each in references if each.get("controller")), "")


def reference(thing: Json) -> Json:
    """An owner's reference to `thing`."""
    at = thing["metadata"]
    return {
        "apiVersion": thing["apiVersion"],
        "kind": thing["kind"],
        "name": at["name"],
        "uid": at["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(thing: Json, kind: str) -> Json | None:
    conditions = (thing.get("status") or {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == kind), None)


def ready(pod: Json) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def ready_since(pod: Json) -> float:
    found = condition(pod, "Ready")
    assert found is not None
    return seconds(found["lastTransitionTime"])


def going(thing: Json) -> bool:
    return "deletionTimestamp" in thing["metadata"]


def without_zeros(status: Json) -> Json:
    """As Go's omitempty writes counts."""
    return {key: value for key, value in status.items() if value not in (0, None, []) or key == "terminatingReplicas"}
