"""What resuming a suspended step changes in a Workflow, as `argo node set` and `argo resume` do it. Pure."""

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ekiben.errors import UsageError
from ekiben.pipeline.argo.status import nodes, packed

Json = dict[str, Any]


def waits(node: Json) -> bool:
    return node.get("type") == "Suspend" and node.get("phase") == "Running"


def done(node: Json, outputs: Mapping[str, str], message: str) -> bool:
    """Whether the node was ended well with just these words and values."""
    values = {each["name"]: each.get("value") for each in (node.get("outputs") or {}).get("parameters") or ()}
    same = all(values.get(name) == value for name, value in outputs.items())
    return node.get("phase") == "Succeeded" and same and message in ("", node.get("message"))


def resumed(workflow: Json, node: Json, outputs: Mapping[str, str], message: str, now: datetime) -> list[Json]:
    """The JSON patch that ends the node well. It fails where the node waits no longer. UsageError for an output that
    the step does not ask for, a value that is none of its choices, and one that nobody gives."""
    ended, shared = _ended(node, outputs, message, now)
    status = workflow["status"]
    changes: list[Json]
    if status.get("nodes"):
        here = f"/status/nodes/{escaped(node['id'])}"
        changed = {key: value for key, value in ended.items() if value != node.get(key)}
        changes = [{"op": "test", "path": f"{here}/phase", "value": "Running"}]
        changes += [{"op": "add", "path": f"{here}/{key}", "value": value} for key, value in changed.items()]
    else:
        changes = [
            {"op": "test", "path": "/status/compressedNodes", "value": status["compressedNodes"]},
            {"op": "replace", "path": "/status/compressedNodes", "value": packed(_with(nodes(workflow), ended))},
        ]
    if shared:
        known = copy.deepcopy(status.get("outputs") or {})
        kept = [each for each in known.get("parameters") or () if each["name"] not in shared]
        known["parameters"] = kept + [{"name": name, "value": value} for name, value in shared.items()]
        changes.append({"op": "add", "path": "/status/outputs", "value": known})
    return changes


def check(
    node_inputs: Mapping[str, Json], wanted: Mapping[str, str | None], outputs: Mapping[str, str], step: str
) -> None:
    """UsageError for what the step does not ask for; `wanted` has None for what waits to be supplied."""
    for name, value in outputs.items():
        if name not in wanted:
            raise UsageError(f"{step} does not ask for {name!r}", wanted=f"one of {', '.join(wanted) or 'nothing'}")
        choices = [str(each) for each in node_inputs.get(name, {}).get("enum") or ()]
        if choices and value not in choices:
            raise UsageError(f"{step}: {name}={value!r}", wanted=f"one of {', '.join(choices)}")


def escaped(part: str) -> str:
    """For a JSON pointer."""
    return part.replace("~", "~0").replace("/", "~1")


def _with(found: Mapping[str, Json], node: Json) -> dict[str, Json]:
    return {key: node if each["id"] == node["id"] else each for key, each in found.items()}


def supplied(node: Json, outputs: Mapping[str, str]) -> dict[str, str]:
    """The value of everything that the node asks for: what is given, or its default. UsageError as in `resumed`."""
    parameters = (node.get("outputs") or {}).get("parameters") or []
    inputs = {each["name"]: each for each in (node.get("inputs") or {}).get("parameters") or ()}
    name = node.get("displayName") or node["name"]
    check(inputs, {each["name"]: each.get("value") for each in parameters}, outputs, name)
    found: dict[str, str] = {}
    for each in parameters:
        source = each.get("valueFrom") or {}
        if source.get("supplied") is None:
            if each["name"] in outputs:
                raise UsageError(f"{each['name']} of {name} is not asked for, or was given before")
        elif each["name"] in outputs:
            found[each["name"]] = outputs[each["name"]]
        elif source.get("default") is not None:
            found[each["name"]] = source["default"]
        else:
            raise UsageError(
                f"{name} waits for {each['name']}, which has no default", wanted=f"a value for {each['name']}"
            )
    return found


def _ended(node: Json, outputs: Mapping[str, str], message: str, now: datetime) -> tuple[Json, dict[str, str]]:
    """The node as it ends, and the outputs that are the workflow's too (globalName)."""
    made = copy.deepcopy(node)
    values = supplied(node, outputs)
    shared = {}
    for each in (made.get("outputs") or {}).get("parameters") or []:
        if each["name"] in values:
            each["value"] = values[each["name"]]
            del each["valueFrom"]
            if each.get("globalName"):
                shared[each["globalName"]] = each["value"]
    made |= {"phase": "Succeeded", "finishedAt": now.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if message:
        made["message"] = message
    return made, shared
