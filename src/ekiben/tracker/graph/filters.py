"""The filters and orders that `wandb.Api()` sends (a part of MongoDB's query language) as SQL. Pure."""

import json
import re
from collections.abc import Callable
from typing import Any

from ekiben.tracker.graphql import GraphQLError

Where = tuple[str, list[Any]]
Column = Callable[[str], str | None]

_COMPARE = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_RUN_COLUMNS = {
    "name": "name",
    "displayName": "display_name",
    "state": "state",
    "group": "group_name",
    "jobType": "job_type",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "description": "description",
    "notes": "notes",
    "sweep": "sweep",
    "host": "host",
    "commit": "git_commit",
    "username": "user",
}
_COLLECTION_COLUMNS = {
    "name": "name",
    "description": "description",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "type": "type",
}
_ARTIFACT_COLUMNS = {
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "digest": "digest",
    "description": "description",
    "state": "state",
    "versionIndex": "version",
    "size": "size",
}


def runs(wanted: Any) -> Where:
    return where(wanted, _run_column)


def collections(wanted: Any) -> Where:
    return where(wanted, lambda name: _COLLECTION_COLUMNS.get(_camel(name)))


def artifacts(wanted: Any) -> Where:
    return where(wanted, _artifact_column)


def run_order(text: str | None) -> tuple[str, bool]:
    """The SQL expression to order runs by, and whether it descends. `-created_at`, `+summary_metrics.loss`."""
    return _order(text, _run_column, "created_at")


def collection_order(text: str | None) -> tuple[str, bool]:
    return _order(text, lambda name: _COLLECTION_COLUMNS.get(_camel(name)), "created_at")


def artifact_order(text: str | None) -> tuple[str, bool]:
    # Unless told otherwise the client wants the newest version first.
    return _order(text or "-versionIndex", _artifact_column, "version")


def where(wanted: Any, column: Column) -> Where:
    """`wanted` as a condition with its parameters. Raises GraphQLError for what cannot be expressed."""
    if wanted is None:
        return "1", []
    if not isinstance(wanted, dict):
        raise GraphQLError("filters: an object is wanted")
    return _all(wanted, column, 0)


def _all(wanted: dict[str, Any], column: Column, depth: int) -> Where:
    if depth > 20:
        raise GraphQLError("filters: nested deeper than 20 levels")
    parts = [_clause(name, condition, column, depth) for name, condition in wanted.items()]
    return _joined(parts, "AND")


def _joined(parts: list[Where], word: str) -> Where:
    if not parts:
        return ("1" if word == "AND" else "0"), []
    return "(" + f" {word} ".join(sql for sql, _ in parts) + ")", [p for _, parameters in parts for p in parameters]


def _clause(name: str, condition: Any, column: Column, depth: int) -> Where:
    if name in ("$and", "$or", "$nor"):
        if not isinstance(condition, list) or not all(isinstance(item, dict) for item in condition):
            raise GraphQLError(f"filters: {name} wants a list of objects")
        sql, parameters = _joined([_all(c, column, depth + 1) for c in condition], "AND" if name == "$and" else "OR")
        return (f"NOT {sql}" if name == "$nor" else sql), parameters
    if name == "tags":
        return _tags(condition)
    expression = column(name)
    if expression is None:
        raise GraphQLError(f"filters: {name[:80]!r} is not something that can be filtered by")
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    return _joined([_compare(expression, operator, operand) for operator, operand in condition.items()], "AND")


def _compare(expression: str, operator: str, operand: Any) -> Where:
    if operator == "$not" and isinstance(operand, dict):
        sql, parameters = _joined([_compare(expression, op, value) for op, value in operand.items()], "AND")
        return f"NOT COALESCE({sql}, 0)", parameters
    if operator in ("$in", "$nin"):
        if not isinstance(operand, list):
            raise GraphQLError(f"filters: {operator} wants a list")
        sql, parameters = _joined([_compare(expression, "$eq", item) for item in operand], "OR")
        return (f"NOT {sql}" if operator == "$nin" else sql), parameters
    if operator in ("$eq", "$ne"):
        word = "IS" if operator == "$eq" else "IS NOT"
        return f"{expression} {word} ?", [_scalar(operand)]
    if operator in _COMPARE:
        return f"COALESCE({expression} {_COMPARE[operator]} ?, 0)", [_scalar(operand)]
    if operator == "$exists":
        return f"{expression} IS {'NOT ' if operand else ''}NULL", []
    if operator in ("$regex", "$contains"):
        pattern = str(_scalar(operand))
        try:
            re.compile(pattern if operator == "$regex" else "")
        except (re.error, OverflowError, RecursionError):
            raise GraphQLError(f"filters: {pattern[:80]!r} is not a regular expression") from None
        return f"{'matches' if operator == '$regex' else 'instr'}({expression}, ?)", [pattern]
    raise GraphQLError(f"filters: the operator {operator[:40]!r} is not one this server knows")


def _tags(condition: Any) -> Where:
    """Tags are a list: a plain value asks whether it is among them."""
    if not isinstance(condition, dict):
        condition = {"$in": [condition]}
    parts: list[Where] = []
    for operator, operand in condition.items():
        wanted = operand if isinstance(operand, list) else [operand]
        if operator not in ("$in", "$nin", "$all", "$eq", "$ne"):
            raise GraphQLError(f"filters: tags know $in, $nin, $all, $eq and $ne, not {operator[:40]!r}")
        each: list[Where] = [("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", [_scalar(t)]) for t in wanted]
        sql, parameters = _joined(each, "AND" if operator == "$all" else "OR")
        parts.append((f"NOT {sql}" if operator in ("$nin", "$ne") else sql, parameters))
    return _joined(parts, "AND")


def _scalar(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return float(value)
    if value is None or isinstance(value, int | float | str):
        return value
    return json.dumps(value)


def _run_column(name: str) -> str | None:
    for prefix, column in (("config.", "config"), ("summary_metrics.", "summary"), ("summaryMetrics.", "summary")):
        if name.startswith(prefix):
            return f"json_at({column}, {_quoted(name.removeprefix(prefix))})"
    return _RUN_COLUMNS.get(_camel(name))


def _artifact_column(name: str) -> str | None:
    if name.startswith("metadata."):
        return f"json_at(metadata, {_quoted(name.removeprefix('metadata.'))})"
    return _ARTIFACT_COLUMNS.get(_camel(name))


def _order(text: str | None, column: Column, default: str) -> tuple[str, bool]:
    if not text:
        return default, False
    expression = column(text.lstrip("+-"))
    if expression is None:
        raise GraphQLError(f"order: {text[:80]!r} is not something that can be ordered by")
    return expression, text.startswith("-")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
