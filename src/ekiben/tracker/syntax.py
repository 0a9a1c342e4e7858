"""GraphQL's query language, as far as the `wandb` client writes it: text to a tree. Pure.

Operations, fragments, variables with defaults, aliases, arguments and directives. No type system definitions.
"""

import re
from dataclasses import dataclass, field
from typing import Any

MAX_DOCUMENT = 200_000  # characters; the client's longest query has under 6,000
MAX_DEPTH = 40

_TOKEN = re.compile(
    r"""(?P<skip>[\s,\ufeff]+|\#[^\n\r]*)
      |(?P<name>[_A-Za-z][_0-9A-Za-z]*)
      |(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      |(?P<block>\"\"\"(?:[^"\\]|\\.|\"(?!\"\"))*\"\"\")
      |(?P<string>"(?:[^"\\\n\r]|\\.)*")
      |(?P<punct>\.\.\.|[!$&()\[\]{}:=@|])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/bfnrt]))')
_ESCAPED = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class GraphQLSyntaxError(ValueError):
    """The text is not GraphQL; the message says where."""


@dataclass(frozen=True)
class Variable:
    name: str


@dataclass(frozen=True)
class Directive:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Field:
    name: str
    key: str  # its alias, or its name
    arguments: dict[str, Any]
    directives: tuple[Directive, ...]
    selection: "tuple[Selection, ...]"


@dataclass(frozen=True)
class Spread:
    """`...Name`, or an inline `... on Type {…}` (then `name` is empty)."""

    name: str
    on: str
    directives: tuple[Directive, ...]
    selection: "tuple[Selection, ...]"


Selection = Field | Spread


@dataclass(frozen=True)
class Operation:
    kind: str  # query or mutation
    name: str
    defaults: dict[str, Any]
    selection: tuple[Selection, ...]


@dataclass(frozen=True)
class Fragment:
    on: str
    selection: tuple[Selection, ...]


@dataclass
class Document:
    operations: list[Operation] = field(default_factory=list)
    fragments: dict[str, Fragment] = field(default_factory=dict)


def parse(text: str) -> Document:
    """The document's tree. Raises GraphQLSyntaxError."""
    if len(text) > MAX_DOCUMENT:
        raise GraphQLSyntaxError(f"the document has {len(text)} characters; at most {MAX_DOCUMENT} are read")
    return _Parser(_tokens(text)).document()


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise GraphQLSyntaxError(f"unexpected character {text[at]!r} at position {at}")
        kind = match.lastgroup or ""
        if kind != "skip":
            found.append((kind, match.group(), at))
        at = match.end()
    found.append(("end", "", at))
    return found


class _Parser:
    def __init__(self, tokens: list[tuple[str, str, int]]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def document(self) -> Document:
        document = Document()
        while self.tokens[self.at][0] != "end":
            if self._peek("fragment"):
                self._next()
                name = self._name()
                self._expect("on")
                document.fragments[name] = Fragment(self._name(), self._after_directives())
            else:
                document.operations.append(self._operation())
        return document

    def _operation(self) -> Operation:
        if self._peek("{"):
            return Operation("query", "", {}, self._selection())
        kind = self._name()
        if kind not in ("query", "mutation"):
            raise self._error(f"an operation starts with query or mutation, not {kind[:40]!r}", back=1)
        name = self._name() if self.tokens[self.at][0] == "name" else ""
        defaults: dict[str, Any] = {}
        if self._take("("):
            while not self._take(")"):
                self._expect("$")
                variable = self._name()
                self._expect(":")
                self._type()
                if self._take("="):
                    defaults[variable] = self._value()
        return Operation(kind, name, defaults, self._after_directives())

    def _type(self) -> None:
        if self._take("["):
            self._nest(self._type)
            self._expect("]")
        else:
            self._name()
        self._take("!")

    def _after_directives(self) -> tuple[Selection, ...]:
        self._directives()
        return self._selection()

    def _selection(self) -> tuple[Selection, ...]:
        self._expect("{")
        found: list[Selection] = []
        while not self._take("}"):
            found.append(self._nest(self._spread if self._take("...") else self._field))
        return tuple(found)

    def _field(self) -> Field:
        name = key = self._name()
        if self._take(":"):
            name = self._name()
        arguments, directives = self._arguments(), self._directives()
        return Field(name, key, arguments, directives, self._selection() if self._peek("{") else ())

    def _spread(self) -> Spread:
        if self._peek("on"):
            self._next()
            on = self._name()
            return Spread("", on, self._directives(), self._selection())
        if self.tokens[self.at][0] == "name":
            return Spread(self._name(), "", self._directives(), ())
        return Spread("", "", self._directives(), self._selection())

    def _arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._take("("):
            while not self._take(")"):
                name = self._name()
                self._expect(":")
                found[name] = self._value()
        return found

    def _directives(self) -> tuple[Directive, ...]:
        found = []
        while self._take("@"):
            found.append(Directive(self._name(), self._arguments()))
        return tuple(found)

    def _value(self) -> Any:
        return self._nest(self._any_value)

    def _any_value(self) -> Any:
        kind, text, _ = self._next()
        if kind == "number":
            return float(text) if set(text) & set(".eE") else int(text) if len(text) < 20 else float(text)
        if kind == "string":
            return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _ESCAPED[m[2]], text[1:-1])
        if kind == "block":
            return text[3:-3].replace('\\"""', '"""')
        if kind == "name":
            return {"true": True, "false": False, "null": None}.get(text, text)  # an enum's value is its name
        if text == "$":
            return Variable(self._name())
        if text == "[":
            items = []
            while not self._take("]"):
                items.append(self._value())
            return items
        if text == "{":
            members: dict[str, Any] = {}
            while not self._take("}"):
                name = self._name()
                self._expect(":")
                members[name] = self._value()
            return members
        raise self._error("a value was expected", back=1)

    def _nest(self, read: Any) -> Any:
        # Recursion is bounded here, so that no document can exhaust the stack.
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels")
        found = read()
        self.depth -= 1
        return found

    def _next(self) -> tuple[str, str, int]:
        token = self.tokens[self.at]
        if token[0] == "end":
            raise self._error("the document ends too early")
        self.at += 1
        return token

    def _peek(self, text: str) -> bool:
        kind, seen, _ = self.tokens[self.at]
        return seen == text and kind in ("name", "punct")

    def _take(self, text: str) -> bool:
        if self._peek(text):
            self.at += 1
            return True
        if self.tokens[self.at][0] == "end" and text in (")", "]", "}"):
            raise self._error(f"the document ends where {text!r} was expected")
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._error(f"{text!r} was expected")

    def _name(self) -> str:
        kind, text, _ = self._next()
        if kind != "name":
            raise self._error("a name was expected", back=1)
        return text

    def _error(self, message: str, back: int = 0) -> GraphQLSyntaxError:
        kind, text, position = self.tokens[self.at - back]
        seen = "" if kind == "end" else f", saw {text[:40]!r}"
        return GraphQLSyntaxError(f"{message}{seen} at position {position}")
