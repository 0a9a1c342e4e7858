"""What an automation sends: a JSON object that its author wrote, with W&B's variables as values. Pure.

{"event_type": "${event_type}", "event_author": "${event_author}", "alias": "${alias}",
 "artifact_collection_name": "${artifact_collection_name}", "artifact_version_string": "${artifact_version_string}",
 "entity_name": "${entity_name}", "project_name": "${project_name}"}
"""

import json
import re
from typing import Any, NoReturn

DEEPEST = 20
LONGEST = 512  # characters of a field that is used
_STRING = re.compile(
    r"(?P<entity_name>[^/:\s]+)/(?P<project_name>[^/:\s]+)/(?P<artifact_collection_name>[^/:\s]+):(?P<alias>[^/:\s]+)"
)
_TAKEN = ("event_type", "event_author", "alias", "artifact_collection_name", "entity_name", "project_name")
_NEEDED = ("event_type", "artifact_collection_name")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class MalformedError(ValueError):
    """It is no JSON object."""


class UnusableError(ValueError):
    """It is one, and does not say what is needed."""


def read(body: bytes) -> dict[str, str]:
    """Its fields: all that it has of _TAKEN, those of _NEEDED in any case. `artifact_version_string`
    (ENTITY/PROJECT/COLLECTION:ALIAS) gives what is not there otherwise. MalformedError, UnusableError."""
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        raise MalformedError(f"the body is nested deeper than {DEEPEST}") from None
    except ValueError as error:
        raise MalformedError(f"the body is not JSON: {error}"[:200]) from None
    if not isinstance(value, dict):
        raise MalformedError("the body is not a JSON object")
    _shallow(value)
    found = {name: _text(name, value[name]) for name in _TAKEN if value.get(name) not in (None, "")}
    whole = _STRING.fullmatch(_text("artifact_version_string", value.get("artifact_version_string") or ""))
    event = {**(whole.groupdict() if whole else {}), **found}
    missing = [name for name in _NEEDED if name not in event]
    if missing:
        raise UnusableError(f"the body has no {', '.join(missing)}; see the automation's payload in W&B")
    return event


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableError(f"{name} is not a string")
    if len(value) > LONGEST or _UNSEEN.search(value):
        raise UnusableError(f"{name} is longer than {LONGEST} characters, or has characters that are none")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two would hold depends on the reader."""
    if len(made := dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _shallow(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        holders = [each for each in level if isinstance(each, (dict, list))]
        level = [inner for each in holders for inner in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return
    raise MalformedError(f"the body is nested deeper than {DEEPEST}")
