"""Fields that Argo's custom resource definitions do not know. Pure but for reading them.

An API server drops what it does not know without a word: a typo would be lost, not refused.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ekiben.errors import NotFoundError
from ekiben.pipeline.checks.problem import Problem, one_of

Json = dict[str, Any]
_TYPES = {"string": str, "boolean": bool, "array": list, "object": dict}


def problems(document: Json, crds: Path) -> Iterator[Problem]:
    """Unknown fields, wrong types and values that are none of a field's choices. `crds` holds one definition a file,
    named after its plural: workflowtemplates.json. NotFoundError if the document's is not there."""
    file = crds / f"{document['kind'].lower()}s.json"
    if not file.is_file():
        raise NotFoundError(f"no {file}", wanted="the full custom resource definitions of Argo Workflows, as JSON")
    schema = json.loads(file.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    yield from _walk("spec", document.get("spec"), schema["properties"]["spec"])


def _walk(path: str, value: Any, schema: Json) -> Iterator[Problem]:
    kind = _TYPES.get(schema.get("type", ""))
    numeric = schema.get("type") in ("integer", "number")
    wrong = (kind and not isinstance(value, kind)) or (
        numeric and (isinstance(value, bool) or not isinstance(value, int | float))
    )
    if wrong and not schema.get("x-kubernetes-int-or-string"):
        yield Problem(path, f"{value!r} is no {schema['type']}")
        return
    choices = schema.get("enum")
    if choices and value not in choices:
        yield Problem(path, f"{value!r} is not known", one_of(choices))
    if isinstance(value, dict):
        yield from _object(path, value, schema)
    elif isinstance(value, list):
        for at, each in enumerate(value):
            name = each.get("name", at) if isinstance(each, dict) else at
            yield from _walk(f"{path}.{name}", each, schema.get("items") or {})


def _object(path: str, value: Json, schema: Json) -> Iterator[Problem]:
    known = schema.get("properties")
    below = schema.get("additionalProperties")
    for key, each in value.items():
        if known and key in known:
            yield from _walk(f"{path}.{key}", each, known[key])
        elif isinstance(below, dict):
            yield from _walk(f"{path}.{key}", each, below)
        elif known and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield Problem(f"{path}.{key}", "Argo does not know this field", one_of(known))
    for key in schema.get("required") or ():
        if key not in value:
            yield Problem(path, f"{key} is missing")
