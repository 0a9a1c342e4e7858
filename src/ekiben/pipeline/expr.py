"""The part of the language expr that workflows use in `{{=…}}`, in retries and in hooks. Pure.

Values are those of JSON. What Argo's expr knows beyond this, such as closures and sprig, is refused by name.
Source: expr-lang's language definition, and Argo's "Expression destructuring" and "Retrying with expressions".
"""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from ekiben.errors import UnsupportedError

Env = Mapping[str, Any]
Value = Callable[[Env], Any]

TAG = re.compile(r"\{\{(=.*?|[^{}]*?)\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<op>\?\?|\?\.|==|!=|<=|>=|&&|\|\||\*\*|[!<>+\-*/%?:.,()\[\]{}]))"""
)
_WORDS = {"and": "&&", "or": "||", "not": "!"}
_ORDERED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "contains": lambda text, part: part in text,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}
_PATH = re.compile(r"""\.(\w+)|\[(\d+)\]|\[['"]([^'"]+)['"]\]""")


def compiled(source: str) -> Value:
    """What `source` means, to be asked with its variables. UnsupportedError where it cannot be read."""
    parser = _Parser(source)
    value = parser.choice()
    if parser.rest:
        parser.stop(f"unexpected {parser.rest[-1][1]!r}")
    return value


def env(values: Mapping[str, str | None]) -> dict[str, Any]:
    """Names with dots as objects in each other, as `tasks.a.status` is found at `tasks["a"].status`."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        at = made
        for part in path:
            if not isinstance(at.get(part), dict):
                at[part] = {}
            at = at[part]
        if not isinstance(at.get(last), dict):
            at[last] = value
    return made


def evaluated(source: str, values: Mapping[str, str | None]) -> Any:
    try:
        return compiled(source)(env(values))
    except (TypeError, ValueError, ZeroDivisionError, re.error) as error:
        raise UnsupportedError(f"the expression {source.strip()!r} cannot be evaluated: {error}") from None


def holds(source: str, values: Mapping[str, str | None]) -> bool:
    """As a condition. UnsupportedError unless it is true or false."""
    value = evaluated(source, values)
    if not isinstance(value, bool):
        raise UnsupportedError(f"the condition {source.strip()!r} is {value!r}", wanted="true or false")
    return value


def text(value: Any) -> str:
    """As it is put in place of `{{=…}}`: text as it is, all else as JSON."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source.strip()
        found, at = list[tuple[str, str]](), 0
        while source[at:].strip():
            match = _TOKEN.match(source, at)
            if match is None:
                raise self.unread(f"cannot read {source[at:].strip()[:20]!r}")
            kind = str(match.lastgroup)
            word = match[kind]
            if kind == "name" and word in _WORDS and not (word == "not" and found and found[-1][1] == "."):
                kind, word = "op", _WORDS[word]
            found.append((kind, word))
            at = match.end()
        self.rest = found[::-1]

    def unread(self, why: str) -> UnsupportedError:
        return UnsupportedError(
            f"{why} in the expression {self.source!r}", wanted="what the local engine knows of Argo's expressions"
        )

    def stop(self, why: str) -> None:
        raise self.unread(why)

    def at(self, *ops: str) -> bool:
        return bool(self.rest) and self.rest[-1][0] != "text" and self.rest[-1][1] in ops

    def take(self, *ops: str) -> str:
        if not self.rest:
            self.stop("it ends too early")
        if ops and not self.at(*ops):
            self.stop(f"{self.rest[-1][1]!r} instead of {' or '.join(ops)}")
        return self.rest.pop()[1]

    def choice(self) -> Value:
        condition = self.coalesce()
        if not self.at("?"):
            return condition
        self.take()
        first = self.choice()
        self.take(":")
        second = self.choice()
        return lambda env: first(env) if _truth(condition(env)) else second(env)

    def coalesce(self) -> Value:
        left = self.either()
        while self.at("??"):
            self.take()
            left = _coalesced(left, self.either())
        return left

    def either(self) -> Value:
        left = self.both()
        while self.at("||"):
            self.take()
            left = _either(left, self.both())
        return left

    def both(self) -> Value:
        left = self.compared()
        while self.at("&&"):
            self.take()
            left = _both(left, self.compared())
        return left

    def compared(self) -> Value:
        left = self.sum()
        while self.at("==", "!=", *_ORDERED, "in", *_TEXTS) or self._not_in():
            negated = self.at("!") and bool(self.take())
            left = _compared(self.take(), left, self.sum(), negated)
        return left

    def _not_in(self) -> bool:
        return self.at("!") and len(self.rest) > 1 and self.rest[-2][1] in ("in", *_TEXTS)

    def sum(self) -> Value:
        left = self.product()
        while self.at("+", "-"):
            left = _calculated(self.take(), left, self.product())
        return left

    def product(self) -> Value:
        left = self.unary()
        while self.at("*", "/", "%", "**"):
            left = _calculated(self.take(), left, self.unary())
        return left

    def unary(self) -> Value:
        if self.at("!"):
            self.take()
            inner = self.unary()
            return lambda env: not _truth(inner(env))
        if self.at("-"):
            self.take()
            inner = self.unary()
            return lambda env: -_number(inner(env))
        return self.member(self.primary())

    def member(self, value: Value) -> Value:
        while self.at(".", "?.", "["):
            if self.take() == "[":
                key = self.choice()
                self.take("]")
            else:
                name = self.take()
                key = _constant(name)
            value = _member(value, key)
        return value

    def primary(self) -> Value:
        if not self.rest:
            self.stop("it ends too early")
        kind, word = self.rest.pop()
        if kind == "number":
            return _constant(float(word) if "." in word else int(word))
        if kind == "text":
            return _constant(re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), word[1:-1]))
        if word == "(":
            inner = self.choice()
            self.take(")")
            return inner
        if word == "[":
            items = self.listed("]")
            return lambda env: [item(env) for item in items]
        if word == "{":
            return self.mapping()
        if kind != "name":
            self.stop(f"unexpected {word!r}")
        if word in ("true", "false", "nil"):
            return _constant({"true": True, "false": False, "nil": None}[word])
        if self.at("("):
            self.take()
            if word not in FUNCTIONS:
                self.stop(f"no such function: {word}")
            function, given = FUNCTIONS[word], self.listed(")")
            return lambda env: function(*(each(env) for each in given))
        if word == "sprig":
            self.stop("sprig's functions are not known")
        return lambda env: _variable(env, word)

    def listed(self, end: str) -> list[Value]:
        found: list[Value] = []
        while not self.at(end):
            found.append(self.choice())
            if not self.at(end):
                self.take(",")
        self.take(end)
        return found

    def mapping(self) -> Value:
        found: list[tuple[str, Value]] = []
        while not self.at("}"):
            key = self.rest[-1][1].strip("'\"") if self.rest else ""
            self.take()
            self.take(":")
            found.append((key, self.choice()))
            if not self.at("}"):
                self.take(",")
        self.take("}")
        return lambda env: {key: value(env) for key, value in found}


def _constant(value: Any) -> Value:
    return lambda env: value


def _variable(env: Env, name: str) -> Any:
    if name not in env:
        raise ValueError(f"there is no {name} here")
    return env[name]


def _member(value: Value, key: Value) -> Value:
    def found(env: Env) -> Any:
        holder, at = value(env), key(env)
        if isinstance(holder, dict):
            return holder.get(at)
        if isinstance(holder, list | str) and isinstance(at, int):
            return holder[at] if -len(holder) <= at < len(holder) else None
        if holder is None:
            raise ValueError(f"nothing has a member {at!r} here")
        raise TypeError(f"{holder!r} has no members")

    return found


def _coalesced(left: Value, right: Value) -> Value:
    def value(env: Env) -> Any:
        try:
            found = left(env)
        except ValueError:
            found = None
        return right(env) if found is None else found

    return value


def _either(left: Value, right: Value) -> Value:
    return lambda env: _truth(left(env)) or _truth(right(env))


def _both(left: Value, right: Value) -> Value:
    return lambda env: _truth(left(env)) and _truth(right(env))


def _compared(op: str, left: Value, right: Value, negated: bool) -> Value:
    def value(env: Env) -> bool:
        a, b = left(env), right(env)
        if op in ("==", "!="):
            same = a == b and isinstance(a, bool) == isinstance(b, bool)
            return same == (op == "==")
        if op == "in":
            return (b is not None and a in b) != negated
        if op in _TEXTS:
            if not isinstance(a, str) or not isinstance(b, str):
                raise TypeError(f"{op} is asked of {a!r} and {b!r}, which are not both text")
            return _TEXTS[op](a, b) != negated
        if isinstance(a, str) != isinstance(b, str) or not isinstance(a, str | int | float):
            raise TypeError(f"{a!r} {op} {b!r}: not of one kind")
        return bool(_ORDERED[op](a, b))

    return value


def _calculated(op: str, left: Value, right: Value) -> Value:
    def value(env: Env) -> Any:
        a, b = left(env), right(env)
        if op == "+" and isinstance(a, str) and isinstance(b, str):
            return a + b
        x, y = _number(a), _number(b)
        match op:
            case "+":
                return x + y
            case "-":
                return x - y
            case "*":
                return x * y
            case "/":
                return x / y
            case "**":
                return float(x) ** y
        return math.fmod(x, y) if isinstance(x, float) else int(math.fmod(x, y))

    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number; asInt and asFloat read text")
    return value


def _int(value: Any) -> int:
    return int(float(value)) if not isinstance(value, str) else int(value)


def _jsonpath(source: str, path: str) -> Any:
    value = json.loads(source)
    if not path.startswith("$") or _PATH.sub("", path[1:]):
        raise ValueError(f"only plain paths such as $.a[0] are known, not {path!r}")
    for name, index, quoted in _PATH.findall(path[1:]):
        try:
            value = value[int(index)] if index else value[name or quoted]
        except (KeyError, IndexError):
            raise ValueError(f"there is no {path} in it") from None
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "asInt": _int,
    "int": _int,
    "asFloat": float,
    "float": float,
    "string": text,
    "toJson": lambda value: json.dumps(value, separators=(",", ":")),
    "toJSON": lambda value: json.dumps(value, indent=2),
    "fromJSON": json.loads,
    "jsonpath": _jsonpath,
    "len": len,
    "trim": lambda value: value.strip(),
    "upper": lambda value: value.upper(),
    "lower": lambda value: value.lower(),
    "split": lambda value, by: value.split(by),
    "join": lambda values, by="": by.join(values),
    "concat": lambda *lists: [each for one in lists for each in one],
}
