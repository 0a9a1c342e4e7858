"""Puts values in place of `{{…}}`, and unrolls what a task loops over. Pure."""

import json
import re
from collections.abc import Mapping

from ekiben.errors import UsageError
from ekiben.pipeline import expr
from ekiben.pipeline.model import Loop

Values = Mapping[str, str | None]
"""By name, such as `tasks.a.outputs.parameters.x`. None: an output of what was skipped or omitted."""

_FORMAT = re.compile(r"%[-+ #0]*\d*[dxXo]")


def fill(text: str, values: Values) -> str:
    """Replace each `{{reference}}` by its value and each `{{=expression}}` by what it comes to. What has no value stays
    as it is. UsageError for an output of what was skipped: from 4.0.7 on Argo then ends the node in Error."""

    def value(match: re.Match[str]) -> str:
        inner = match[1]
        if inner.startswith("="):
            return computed(inner[1:], values)
        name = inner.strip()
        if name not in values:
            return match[0]
        if (known := values[name]) is None:
            raise UsageError(
                f"{match[0]} is an output of what did not run",
                wanted="a value also then",
                next_step="give the output valueFrom.default, or the input that takes it a default",
            )
        return known

    return expr.TAG.sub(value, text)


def computed(expression: str, values: Values) -> str:
    """What it comes to, as text. UsageError where that is nothing."""
    found = expr.evaluated(expression, values)
    if found is None:
        raise UsageError(
            f"the expression {expression.strip()!r} comes to nothing",
            wanted="a value also where what it speaks of did not run",
            next_step="say what to take instead: … ?? 'this'",
        )
    return expr.text(found)


def absent(text: str, values: Values) -> bool:
    """Whether it is a reference to an output of what was skipped, and nothing else: the input's default then holds."""
    match = expr.TAG.fullmatch(text.strip())
    return match is not None and values.get(match[1].strip(), "") is None


def items(loop: Loop, values: Values) -> list[tuple[str, dict[str, str]]]:
    """Of each item its label and its variables."""
    if loop.sequence is not None:
        return [(each, {"item": each}) for each in _sequence(loop.sequence, values)]
    if loop.items is not None:
        return [_item(each, values) for each in loop.items]
    text = fill(loop.param, values)
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise UsageError(f"withParam {loop.param} is {text[:200]!r}", wanted="a JSON list")
    return [_item(each, values) for each in found]


def _item(item: object, values: Values) -> tuple[str, dict[str, str]]:
    if isinstance(item, dict):
        parts = {str(key): fill(_text(value), values) for key, value in item.items()}
        label = ",".join(f"{key}:{value}" for key, value in sorted(parts.items()))
        return label, {"item": json.dumps(item), **{f"item.{key}": value for key, value in parts.items()}}
    text = fill(_text(item), values)
    return text, {"item": text}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _sequence(given: Mapping[str, str], values: Values) -> list[str]:
    try:
        asked = {key: int(fill(value, values)) for key, value in given.items() if key != "format"}
    except ValueError as error:
        raise UsageError(f"withSequence: {error}", wanted="whole numbers") from None
    start = asked.get("start", 0)
    if "count" in asked:
        numbers = range(start, start + asked["count"])
    else:
        end = asked.get("end", start)
        numbers = range(start, end + 1) if end >= start else range(start, end - 1, -1)
    form = given.get("format") or "%d"
    if not _FORMAT.search(form):
        raise UsageError(f"withSequence.format {form!r}", wanted="one number, such as worker-%02d")
    return [form % number for number in numbers]
