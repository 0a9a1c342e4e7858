"""What all types of the graph share: their context, their ids, rows as nodes, and pages of them."""

import base64
import binascii
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ekiben.tracker.blobs import Blobs
from ekiben.tracker.graphql import Args, GraphQLError, Node, Resolver, field
from ekiben.tracker.multipart import Uploads
from ekiben.tracker.urls import Urls

MAX_PAGE = 1000


@dataclass(frozen=True)
class User:
    """Who asks: the name of their key, and the entity that it logs to unless told otherwise."""

    name: str
    entity: str
    admin: bool = False  # may move protected aliases
    keyless: bool = False  # nobody has made a key yet


@dataclass(frozen=True)
class Context:
    """One request: its transaction, the blobs, who asks, and how to make addresses for them."""

    db: sqlite3.Connection
    blobs: Blobs
    uploads: Uploads
    user: User
    urls: Urls
    protected_aliases: frozenset[str] = frozenset()

    def one(self, sql: str, *parameters: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.db.execute(sql, parameters).fetchone()
        return row

    def value(self, sql: str, *parameters: Any) -> Any:
        row = self.one(sql, *parameters)
        return row[0] if row is not None else None

    def node(self, typename: str, row_id: int | None) -> "Row | None":
        """The node of a table's row, or None where there is none."""
        if row_id is None:
            return None
        kind = Row.registry[typename]
        row = self.one(f"SELECT * FROM {kind.table} WHERE id = ?", row_id)
        return kind(self, row) if row is not None else None

    def found(self, typename: str, text: str) -> "Row":
        """The node that an id names. Raises GraphQLError where there is none."""
        node = self.node(typename, from_id(typename, text))
        if node is None:
            raise GraphQLError(f"no {typename} has the id {text[:80]!r}")
        return node


def to_id(typename: str, row_id: int) -> str:
    # The client decodes ids as base64 in references from one artifact to another.
    return base64.b64encode(f"{typename}:{row_id}".encode()).decode()


def from_id(typename: str, text: str) -> int:
    try:
        kind, _, number = base64.b64decode(text, validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        kind, number = "", ""
    if kind != typename or not number.isdecimal() or len(number) > 18:
        raise GraphQLError(f"{text[:80]!r} is not the id of a {typename}")
    return int(number)


class Row(Node):
    """A row of the store as a node. `plain` maps fields to the columns that answer them as they are."""

    table: ClassVar[str]
    plain: ClassVar[dict[str, str]] = {}
    registry: ClassVar[dict[str, type["Row"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.fields = {name: _column(column) for name, column in cls.plain.items()} | cls.fields
        Row.registry[cls.typename] = cls

    def __init__(self, context: Context, row: sqlite3.Row) -> None:
        self.context = context
        self.row = row

    @property
    def key(self) -> int:
        return int(self.row["id"])

    @field
    def id(self, args: Args) -> str:
        return to_id(type(self).typename, self.key)


def _column(name: str) -> Resolver:
    return lambda node, args: node.row[name]


def page(
    context: Context,
    args: Args,
    source: str,
    parameters: Sequence[Any],
    make: Callable[[sqlite3.Row], Any],
    *,
    key: str = "id",
    descending: bool = False,
) -> dict[str, Any]:
    """A connection: the rows of `source` (a SELECT that yields `id` and `key`), a page at a time.

    The cursor holds the last row's key and id, so rows that come or go meanwhile neither repeat nor hide others.
    """
    limit = min(max(args.integer("first") or 50, 1), MAX_PAGE)
    after = args.optional_text("after", 4096)
    where, bounds = "", list[Any]()
    if after:
        where = f"WHERE (COALESCE({key}, ''), id) {'<' if descending else '>'} (?, ?)"
        bounds = _read_cursor(after)
    way = "DESC" if descending else "ASC"
    rows = context.db.execute(
        f"SELECT *, COALESCE({key}, '') AS _key FROM ({source}) {where} ORDER BY _key {way}, id {way} LIMIT ?",
        (*parameters, *bounds, limit + 1),
    ).fetchall()
    more, rows = len(rows) > limit, rows[:limit]
    edges = [{"node": make(row), "cursor": _cursor(row)} for row in rows]
    return {
        "edges": edges,
        "pageInfo": {
            "__typename": "PageInfo",
            "endCursor": edges[-1]["cursor"] if edges else None,
            "hasNextPage": more,
        },
        "totalCount": lambda: context.value(f"SELECT COUNT(*) FROM ({source})", *parameters),
    }


def _cursor(row: sqlite3.Row) -> str:
    return base64.urlsafe_b64encode(json.dumps([row["_key"], row["id"]]).encode()).decode()


def _read_cursor(text: str) -> list[Any]:
    try:
        key, row_id = json.loads(base64.urlsafe_b64decode(text))
    except (binascii.Error, ValueError, TypeError):
        key = row_id = None
    if not isinstance(key, str | int | float) or not isinstance(row_id, str | int):
        raise GraphQLError(f"not a cursor of this server: {text[:80]!r}")
    return [key, row_id]


def listing(items: Sequence[Any]) -> dict[str, Any]:
    """A connection that holds all there is."""
    return {
        "edges": [{"node": item, "cursor": str(number)} for number, item in enumerate(items)],
        "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False},
        "totalCount": len(items),
    }
