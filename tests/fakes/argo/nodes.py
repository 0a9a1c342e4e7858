"""Node statuses as Argo's controller writes them: ids, names, references, and what `depends` makes of results."""

import gzip
import json
import re
from base64 import b64decode, b64encode
from typing import Any

from ekiben.pipeline import expr

Json = dict[str, Any]
ENDED = ("Succeeded", "Failed", "Error", "Skipped", "Omitted")
BAD = ("Failed", "Error")
_REFERENCE = re.compile(r"\{\{\s*([^}=]+?)\s*\}\}")
_ATOM = re.compile(r"([A-Za-z0-9_-]+)(?:\.(Succeeded|Failed|Errored|Skipped|Omitted|Daemoned))?")
_RESULTS = {"Errored": "Error"}


def fnv32a(text: str) -> int:
    found = 0x811C9DC5
    for byte in text.encode():
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return found


def node_id(workflow: str, name: str) -> str:
    return workflow if name == workflow else f"{workflow}-{fnv32a(name)}"


def pod_name(workflow: str, name: str, template: str) -> str:
    """Pod names of version 2, which is Argo's default since 3.4."""
    return workflow if name == workflow else f"{f'{workflow}-{template}'[:242]}-{fnv32a(name)}"


def filled(text: str, scope: dict[str, str]) -> str:
    """`text` with its references replaced; what nothing provides stays."""
    return _REFERENCE.sub(lambda match: scope.get(match[1], match[0]), text)


def depends(expression: str, phases: dict[str, str]) -> bool | None:
    """Whether a task may start; None while tasks that it speaks of have not ended."""
    named = {match[1] for match in _ATOM.finditer(expression)}
    if any(phases.get(name) not in ENDED for name in named):
        return None

    def held(match: re.Match[str]) -> str:
        phase, result = phases[match[1]], match[2]
        return str(phase == _RESULTS.get(result, result) if result else phase in ("Succeeded", "Skipped"))

    python = _ATOM.sub(held, expression).replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    return bool(eval(python, {"__builtins__": {}}))


def when(condition: str) -> bool:
    """`a == b` and `a != b`; empty holds. A hyphen without quotes is a minus in Argo's language (govaluate)."""
    if minus := re.search(r"[A-Za-z0-9_]+ *-", re.sub(r"'[^']*'|\"[^\"]*\"", "", condition)):
        raise ValueError(f"{condition}: {minus[0]!r}: cannot be used with the modifier '-', it is not a number")
    for sign, same in (("==", True), ("!=", False)):
        left, found, right = condition.partition(sign)
        if found:
            return (left.strip(" '\"") == right.strip(" '\"")) is same
    return condition.strip() in ("", "true")


def again(expression: str, last: Json) -> bool:
    """Whether retryStrategy.expression asks for one more attempt; without one, it does."""
    known = {"status": last["phase"], "exitCode": last.get("outputs", {}).get("exitCode", "-1")}
    known["message"] = last.get("message", "")
    return not expression or expr.holds(expression, {f"lastRetry.{key}": value for key, value in known.items()})


def packed(found: Json) -> str:
    """Node statuses as compressedNodes."""
    return b64encode(gzip.compress(json.dumps(found).encode(), mtime=0)).decode()


def unpacked(text: str) -> Json:
    found: Json = json.loads(gzip.decompress(b64decode(text)))
    return found
