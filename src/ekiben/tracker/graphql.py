"""Answers a parsed operation from objects whose methods are GraphQL's fields. Knows nothing of W&B.

A type is a subclass of `Node`; each method marked with `@field` is a field of the same name in camel case and takes the
field's arguments as `Args`. A field may return a Node, a mapping of fields (to values, or to functions that compute
them when asked), a list of these, a scalar, or None.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from ekiben.tracker.syntax import Directive, Document, Field, GraphQLSyntaxError, Operation, Selection, Variable

Resolver = Callable[[Any, "Args"], Any]
T = TypeVar("T", bound=Resolver)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
MAX_FIELDS = 200_000  # in one answer; a page of 1,000 artifacts has under 50,000


class GraphQLError(Exception):
    """What the client is told. `unknown` marks a field that this server does not have."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


def field(method: T) -> T:
    method.field_name = ""  # type: ignore[attr-defined]
    return method


def field_named(name: str) -> Callable[[T], T]:
    """For names that are not the camel case of a Python name."""

    def mark(method: T) -> T:
        method.field_name = name  # type: ignore[attr-defined]
        return method

    return mark


class Node:
    """An object of the graph. `typename` is what GraphQL calls its type; `also` are interfaces it implements."""

    typename: str
    also: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[dict[str, Resolver]]

    def __init_subclass__(cls) -> None:
        cls.fields = {
            method.field_name or _camel(name): method
            for base in reversed(cls.__mro__)
            for name, method in vars(base).items()
            if hasattr(method, "field_name")
        }


def _camel(name: str) -> str:
    first, *rest = name.strip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


class Args:
    """The arguments of a field, or an input object in them: read by name, checked for kind and size."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def text(self, name: str, limit: int = 1024) -> str:
        """A string that must be there; at most `limit` characters."""
        value = self.optional_text(name, limit)
        if value is None:
            raise GraphQLError(f"{self._where}: {name} is required")
        return value

    def optional_text(self, name: str, limit: int = 1024) -> str | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise GraphQLError(f"{self._where}: {name} must be a string, not {type(value).__name__}")
        if len(value) > limit:
            raise GraphQLError(f"{self._where}: {name} has {len(value)} characters; at most {limit} are allowed")
        if _UNSTORABLE.search(value):
            raise GraphQLError(f"{self._where}: {name} holds characters that cannot be stored")
        return value

    def integer(self, name: str) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise GraphQLError(f"{self._where}: {name} must be a whole number, not {str(value)[:40]!r}")
        if abs(value) >= 1 << 62:
            raise GraphQLError(f"{self._where}: {name} is out of range")
        return value

    def number(self, name: str) -> float:
        value = self._values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise GraphQLError(f"{self._where}: {name} must be a number")
        return float(value)

    def flag(self, name: str) -> bool:
        return self._values.get(name) is True

    def texts(self, name: str, limit: int = 1024) -> list[str]:
        return [Args({name: item}, self._where).text(name, limit) for item in self._items(name)]

    def object(self, name: str) -> "Args":
        value = self._values.get(name)
        if not isinstance(value, Mapping):
            raise GraphQLError(f"{self._where}: {name} must be an object")
        return Args(value, f"{self._where}.{name}")

    def objects(self, name: str) -> "list[Args]":
        return [Args({name: item}, self._where).object(name) for item in self._items(name)]

    def json(self, name: str, limit: int = 16 << 20) -> Any:
        """What a JSONString holds; None where it is absent."""
        value = self.optional_text(name, limit)
        if value is None:
            return None
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise GraphQLError(f"{self._where}: {name} is not JSON") from None

    def has(self, name: str) -> bool:
        """Whether it was given a value: W&B's mutations leave alone what they are not given."""
        return self._values.get(name) is not None

    def _items(self, name: str) -> list[Any]:
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise GraphQLError(f"{self._where}: {name} must be a list")
        if len(value) > 100_000:
            raise GraphQLError(f"{self._where}: {name} has {len(value)} items; at most 100,000 are allowed")
        return value


def choose(document: Document, name: str | None) -> Operation:
    """The operation that the request names, or the only one."""
    found = [op for op in document.operations if not name or op.name == name]
    if len(found) != 1:
        raise GraphQLSyntaxError(f"the document holds {len(found)} operations of that name; exactly one is wanted")
    return found[0]


def execute(document: Document, operation: Operation, variables: Mapping[str, Any], root: Node) -> dict[str, Any]:
    """The `data` of the answer. Raises GraphQLError; nothing is answered in part."""
    return _Execution(document, {**operation.defaults, **variables}).select(root, operation.selection)


class _Execution:
    def __init__(self, document: Document, variables: Mapping[str, Any]) -> None:
        self.document = document
        self.variables = variables
        self.budget = MAX_FIELDS

    def select(self, node: Node | Mapping[str, Any], selection: tuple[Selection, ...]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for chosen in self._flatten(node, selection, ()):
            value = self._resolve(node, chosen)
            if isinstance(value, dict) and isinstance(before := answer.get(chosen.key), dict):
                before.update(value)  # the same field selected by two fragments
            else:
                answer[chosen.key] = value
        return answer

    def _resolve(self, node: Node | Mapping[str, Any], chosen: Field) -> Any:
        if isinstance(node, Node):
            if chosen.name == "__typename":
                return node.typename
            if resolver := node.fields.get(chosen.name):
                arguments = {name: self._value(value) for name, value in chosen.arguments.items()}
                return self._complete(chosen, resolver(node, Args(arguments, chosen.name)))
        elif chosen.name in node:
            value = node[chosen.name]
            return self._complete(chosen, value() if callable(value) else value)
        # The client looks for these very words to learn what a server lacks.
        raise GraphQLError(f'Cannot query field "{chosen.name}" on type "{_typename(node)}".', unknown=True)

    def _complete(self, chosen: Field, value: Any) -> Any:
        if isinstance(value, list):
            return [self._complete(chosen, item) for item in value]
        if isinstance(value, Node) or (chosen.selection and isinstance(value, Mapping)):
            return self.select(value, chosen.selection)
        return value

    def _flatten(self, node: Any, selection: tuple[Selection, ...], within: tuple[str, ...]) -> list[Field]:
        found: list[Field] = []
        for item in selection:
            self.budget -= 1
            if self.budget < 0:
                raise GraphQLError(f"the answer would hold more than {MAX_FIELDS} fields; ask for a smaller page")
            if not all(self._wanted(directive) for directive in item.directives):
                continue
            if isinstance(item, Field):
                found.append(item)
                continue
            on, inner, path = item.on, item.selection, within
            if item.name:
                fragment = self.document.fragments.get(item.name)
                if fragment is None or item.name in within:
                    raise GraphQLError(f"fragment {item.name!r} is not defined, or holds itself")
                on, inner, path = fragment.on, fragment.selection, (*within, item.name)
            if not on or on == _typename(node) or on in getattr(node, "also", ()) or isinstance(node, Mapping):
                found.extend(self._flatten(node, inner, path))
        return found

    def _wanted(self, directive: Directive) -> bool:
        condition = bool(self._value(directive.arguments.get("if")))
        return condition if directive.name == "include" else not condition if directive.name == "skip" else True

    def _value(self, value: Any) -> Any:
        if isinstance(value, Variable):
            return self.variables.get(value.name)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {name: self._value(item) for name, item in value.items()}
        return value


def _typename(node: Node | Mapping[str, Any]) -> str:
    return node.typename if isinstance(node, Node) else str(node.get("__typename", "Object"))
