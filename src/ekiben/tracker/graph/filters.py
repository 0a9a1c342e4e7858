"""The filters and orders that `wandb.Api()` sends (a part of MongoDB's query language) as SQL. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ekiben.tracker.graphql import GraphQLError

Where = tuple[str, list[Any]]

MAX_DEPTH = 20
MAX_CLAUSES = 200
_COMPARE = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


@dataclass(frozen=True)
class Fields:
    """What rows of one kind can be filtered and ordered by, in camel case, and the SQL of each.

    `lists` are columns of JSON arrays; `documents` columns of JSON objects, whose members are named `prefix.a.b`.
    """

    columns: Mapping[str, str]
    lists: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)

    def expression(self, name: str) -> str | None:
        prefix, dot, path = name.partition(".")
        if dot and (column := self.documents.get(_camel(prefix))):
            return f"{'config_at' if column == 'config' else 'json_at'}({column}, '{_quoted(path)}')"
        return self.columns.get(_camel(name))


_TIMES = {"createdAt": "created_at", "updatedAt": "updated_at"}

RUNS = Fields(
    columns={
        "createdAt": "created_at",
        "heartbeatAt": "heartbeat_at",
        "name": "name",
        "displayName": "display_name",
        "state": "run_state(state, heartbeat_at)",
        "group": "group_name",
        "jobType": "job_type",
        "description": "description",
        "notes": "notes",
        "sweep": "sweep",
        "host": "host",
        "commit": "git_commit",
        "username": "user",
    },
    lists={"tags": "tags"},
    documents={"config": "config", "summaryMetrics": "summary"},
)
PROJECTS = Fields(columns={"id": "id", "name": "name", "description": "description", **_TIMES})
COLLECTIONS = Fields(
    columns={"id": "id", "name": "name", "description": "description", "type": "type", **_TIMES},
    lists={"tag": "tags", "tags": "tags"},
)
VERSIONS = Fields(
    columns={
        "id": "id",
        "version": "version",
        "versionIndex": "version",
        "digest": "digest",
        "description": "description",
        "state": "state",
        "size": "size",
        **_TIMES,
    },
    lists={"tag": "tags", "tags": "tags", "alias": "aliases", "aliases": "aliases"},
    documents={"metadata": "metadata"},
)


def order(text: str | None, fields: Fields, default: str) -> tuple[str, bool]:
    """The SQL to order by, and whether it descends. `text` and `default` are such as `-created_at`."""
    wanted = text or default
    expression = fields.expression(wanted.lstrip("+-"))
    if expression is None:
        raise GraphQLError(f"order: {wanted[:80]!r} is not something that can be ordered by")
    return expression, wanted.startswith("-")


def where(wanted: Any, fields: Fields) -> Where:
    """`wanted` as a condition with its parameters. Raises GraphQLError for what cannot be expressed."""
    if wanted is None:
        return "1", []
    if not isinstance(wanted, dict):
        raise GraphQLError("filters: an object is wanted")
    return _Builder(fields).all(wanted, 0)


class _Builder:
    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.clauses = 0

    def all(self, wanted: dict[str, Any], depth: int) -> Where:
        if depth > MAX_DEPTH:
            raise GraphQLError(f"filters: nested deeper than {MAX_DEPTH} levels")
        return _joined([self.clause(name, condition, depth) for name, condition in wanted.items()], "AND")

    def clause(self, name: str, condition: Any, depth: int) -> Where:
        self.clauses += 1
        if self.clauses > MAX_CLAUSES:
            raise GraphQLError(f"filters: more than {MAX_CLAUSES} conditions")
        if name in ("$and", "$or", "$nor"):
            if not isinstance(condition, list) or not all(isinstance(item, dict) for item in condition):
                raise GraphQLError(f"filters: {name} wants a list of objects")
            parts = [self.all(item, depth + 1) for item in condition]
            sql, parameters = _joined(parts, "AND" if name == "$and" else "OR")
            return (f"NOT {sql}" if name == "$nor" else sql), parameters
        operators = condition if isinstance(condition, dict) else {"$eq": condition}
        if (column := self.fields.lists.get(name)) is not None:
            return _joined([_among(column, operator, operand) for operator, operand in operators.items()], "AND")
        expression = self.fields.expression(name)
        if expression is None:
            raise GraphQLError(f"filters: {name[:80]!r} is not something that can be filtered by")
        return _joined([_compare(expression, operator, operand) for operator, operand in operators.items()], "AND")


def _joined(parts: list[Where], word: str) -> Where:
    if not parts:
        return ("1" if word == "AND" else "0"), []
    return "(" + f" {word} ".join(sql for sql, _ in parts) + ")", [p for _, parameters in parts for p in parameters]


def _compare(expression: str, operator: str, operand: Any) -> Where:
    """A condition that is always true or false, never SQL's unknown."""
    if operator == "$not" and isinstance(operand, dict):
        sql, parameters = _joined([_compare(expression, name, value) for name, value in operand.items()], "AND")
        return f"NOT {sql}", parameters
    if operator in ("$in", "$nin"):
        marks = [_scalar(item) for item in _list(operator, operand)]
        sql, parameters = _joined([(f"{expression} IS ?", [mark]) for mark in marks], "OR")
        return (f"NOT {sql}" if operator == "$nin" else sql), parameters
    if operator in ("$eq", "$ne"):
        return f"{expression} {'IS' if operator == '$eq' else 'IS NOT'} ?", [_scalar(operand)]
    if operator in _COMPARE:
        value = _scalar(operand)
        if value is None:
            return "0", []  # nothing is more or less than nothing
        kind = "('text')" if isinstance(value, str) else "('integer', 'real')"
        # As in MongoDB, numbers compare with numbers and texts with texts.
        return f"(typeof({expression}) IN {kind} AND {expression} {_COMPARE[operator]} ?)", [value]
    if operator == "$exists":
        return f"{expression} IS {'NOT ' if operand else ''}NULL", []
    if operator == "$regex":
        return f"matches({expression}, ?)", [_pattern(operand)]
    if operator == "$contains":
        return f"COALESCE(instr({expression}, ?), 0) > 0", [str(_scalar(operand))]
    raise GraphQLError(f"filters: the operator {operator[:40]!r} is not one this server knows")


def _among(column: str, operator: str, operand: Any) -> Where:
    """A list holds what is asked for: any of it, or with $all all of it."""
    if operator in ("$eq", "$ne"):
        wanted = [operand]
    elif operator in ("$in", "$nin", "$all"):
        wanted = _list(operator, operand)
    else:
        raise GraphQLError(f"filters: lists know $in, $nin, $all, $eq and $ne, not {operator[:40]!r}")
    each: list[Where] = [(f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value = ?)", [_scalar(t)]) for t in wanted]
    sql, parameters = _joined(each, "AND" if operator == "$all" else "OR")
    return (f"NOT {sql}" if operator in ("$nin", "$ne") else sql), parameters


def _list(operator: str, operand: Any) -> list[Any]:
    if not isinstance(operand, list) or len(operand) > MAX_CLAUSES:
        raise GraphQLError(f"filters: {operator} wants a list of at most {MAX_CLAUSES}")
    return operand


def _scalar(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return float(value) if abs(value) < 10**300 else None
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


def _pattern(operand: Any) -> str:
    """The regular expression, if no text can make it run for long: no repeated groups, at most two repetitions."""
    pattern = str(_scalar(operand))
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]", "x", pattern)
    if len(pattern) > 200 or re.search(r"\)[*+?{]|\\[0-9]|\(\?P=", pattern) or len(re.findall(r"[*+{]", bare)) > 2:
        raise GraphQLError("filters: $regex takes up to 200 characters, two repetitions, and no repeated groups")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        raise GraphQLError(f"filters: {pattern[:80]!r} is not a regular expression") from None
    return pattern


def _quoted(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "").replace("'", "''")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
