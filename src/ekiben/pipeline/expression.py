"""Argo's two small languages: `depends` (which results start a task) and `when` (a comparison that may skip it). Pure.

Grammar of both: or-terms of and-terms of `!`-terms; parentheses group. A `depends` atom is `task` or `task.Result`; a
`when` atom is `value op value` or a lone boolean, where values are words, numbers or quoted text.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ekiben.errors import UnsupportedError

RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed")
BARE = ("Succeeded", "Skipped", "Daemoned")
"""A task named without a result means any of these (Argo: fields, "Enhanced Depends Logic")."""

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(r"""\s*(?:(&&|\|\||==|!=|<=|>=|[!()<>])|'([^']*)'|"([^"]*)"|([^\s&|!()<>='"]+))""")
_ARITHMETIC = re.compile(r"[-+*/%^~?:,\[\]]")
_TAG = re.compile(r"\{\{.*?\}\}", re.DOTALL)


@dataclass(frozen=True)
class Token:
    text: str
    kind: str  # "op", "text" (quoted) or "word"


def tokens(source: str) -> list[Token]:
    found, at = [], 0
    while source[at:].strip():
        match = _TOKEN.match(source, at)
        if match is None:
            raise UnsupportedError(f"cannot read {source[at:].strip()!r} in the expression {source!r}")
        op, single, double, word = match.groups()
        quoted = single if single is not None else double
        found.append(Token(op, "op") if op else Token(word, "word") if word else Token(quoted, "text"))
        at = match.end()
    return found


class _Parser:
    """Evaluates while it parses; `atom` reads one operand from the parser and returns its truth."""

    def __init__(self, source: str, atom: "Callable[[_Parser], bool]") -> None:
        self.source, self.atom, self.rest = source, atom, tokens(source)[::-1]

    def peek(self) -> str:
        return self.rest[-1].text if self.rest and self.rest[-1].kind == "op" else ""

    def take(self) -> Token:
        if not self.rest:
            raise UnsupportedError(f"the expression {self.source!r} ends too early")
        return self.rest.pop()

    def whole(self) -> bool:
        value = self.either()
        if self.rest:
            raise UnsupportedError(f"unexpected {self.rest[-1].text!r} in the expression {self.source!r}")
        return value

    def either(self) -> bool:
        value = self.both()
        while self.peek() == "||":
            self.take()
            value = self.both() or value  # both sides are always read: reading is what consumes them
        return value

    def both(self) -> bool:
        value = self.unary()
        while self.peek() == "&&":
            self.take()
            value = self.unary() and value
        return value

    def unary(self) -> bool:
        if self.peek() == "!":
            self.take()
            return not self.unary()
        if self.peek() == "(":
            self.take()
            value = self.either()
            if self.take().text != ")":
                raise UnsupportedError(f"a parenthesis is not closed in the expression {self.source!r}")
            return value
        return self.atom(self)


def dependencies(depends: str) -> set[str]:
    """The names of the tasks that a `depends` expression speaks of."""
    return {token.text.partition(".")[0] for token in tokens(depends) if token.kind == "word"}


def depends(source: str, results: Mapping[str, Collection[str]]) -> bool:
    """Whether `source` holds, where `results` has the words of RESULTS that are true of each finished task."""

    def atom(parser: _Parser) -> bool:
        task, result = _atom(parser)
        if task not in results:
            raise UnsupportedError(f"depends on {task!r}, which is not a task of this DAG")
        return any(word in results[task] for word in ([result] if result else BARE))

    return _Parser(source, atom).whole()


def depends_words(source: str) -> None:
    """UnsupportedError unless it can be read and all its results are such as there are."""

    def atom(parser: _Parser) -> bool:
        return bool(_atom(parser))

    if source:
        _Parser(source, atom).whole()


def _atom(parser: _Parser) -> tuple[str, str]:
    task, _, result = parser.take().text.partition(".")
    if result and result not in RESULTS:
        raise UnsupportedError(f"no such result: {task}.{result}", wanted=f"one of {', '.join(RESULTS)}")
    return task, result


def when(source: str) -> bool:
    """Whether a `when` condition holds; its `{{…}}` must have been filled in already."""

    def atom(parser: _Parser) -> bool:
        left = _value(parser.take())
        if parser.peek() in _COMPARE:
            compare, right = _COMPARE[parser.take().text], _value(parser.take())
            if type(left) is not type(right):  # numbers compare with numbers, everything else as text
                left, right = str(left), str(right)
            return compare(left, right)
        if isinstance(left, bool):
            return left
        raise UnsupportedError(f"{left!r} is neither true, false nor a comparison in the condition {source!r}")

    return _Parser(source, atom).whole()


def _value(token: Token) -> object:
    if token.kind == "op":
        raise UnsupportedError(f"expected a value, found {token.text!r}")
    if token.kind == "word":
        if token.text in ("true", "false"):
            return token.text == "true"
        try:
            return float(token.text)
        except ValueError:
            if _ARITHMETIC.search(token.text):
                raise UnsupportedError(
                    f"{token.text} stands without quotes: Argo calculates with it",
                    next_step=f"write '{token.text}', or put quotes round the {{{{…}}}} that it came from",
                ) from None
    return token.text


def calculated(source: str) -> list[str]:
    """The words of a `when` that Argo takes for sums, as `release-1` is to it; its `{{…}}` need not be filled in."""
    try:
        found = tokens(_TAG.sub("1", source))
    except UnsupportedError:  # Argo's language has more than ours
        return []
    return [
        each.text for each in found if each.kind == "word" and each.text[0].isalpha() and _ARITHMETIC.search(each.text)
    ]
