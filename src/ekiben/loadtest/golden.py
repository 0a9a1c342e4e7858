"""Golden answers: requests and the answers that the model under test must give to them. They travel with the model.

    {"version": 1, "route": "/predict", "examples": [{"request": {"rows": [[0, …]]}, "response": {"classes": [3]}}, …]}

An example may have a `route` of its own. An answer is right when every key of the expected response equals that of the
answer; numbers may differ by 1e-6.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.schemas import violation
from ekiben.types import Value

TOLERANCE = 1e-6
WRONG = "wrong answer"
CONTRACT = "contract: "
"""What the kind of an error begins with that is a 2xx answer of another shape than was promised."""
_INDEX = re.compile(r"\[\d+\]")


class GoldenExample(Value):
    request: Any
    response: Any
    route: str = Field("", pattern="^(/.*)?$", description="Where it is posted; empty: the file's own route.")
    contract: dict[str, Any] | None = Field(None, description="JSON Schema of an answer that is not known in advance.")
    _right: bytes = PrivateAttr(b"")

    @cached_property
    def body(self) -> bytes:
        """The request as it is sent: JSON, UTF-8."""
        return json.dumps(self.request, separators=(",", ":")).encode()

    def check(self, body: bytes) -> tuple[str, str]:
        """What kind of error an answer's body is, and a phrase that says more; both '' when it is right."""
        if body and body == self._right:  # most answers are like the one before, to the byte
            return "", ""
        kind, phrase = check(self.response, body) if self.contract is None else keeps(self.contract, body)
        if not kind:
            self._right = body
        return kind, phrase


class Golden(Value):
    version: Literal[1]
    route: str = Field(pattern="^/")
    examples: tuple[GoldenExample, ...] = Field(min_length=1)

    def route_of(self, example: GoldenExample) -> str:
        return example.route or self.route

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Each endpoint that is asked, such as "POST /predict", in the order of the examples."""
        return tuple(dict.fromkeys(f"POST {self.route_of(example)}" for example in self.examples))

    @classmethod
    def read(cls, path: Path) -> Self:
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(
                f"no golden answers at {path}", next_step="train the model with ekiben: its recipe writes them"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(
                f"golden answers {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                wanted='{"version": 1, "route": "/…", "examples": [{"request": …, "response": …}, …]}',
            ) from None


def keeps(contract: Mapping[str, Any], body: bytes) -> tuple[str, str]:
    """As `check`, for an answer of which only the JSON Schema is known."""
    try:
        kind, phrase = violation(contract, json.loads(body))
    except ValueError:
        return f"{CONTRACT}not JSON", f"wanted JSON, got {body[:60]!r}"
    return (f"{CONTRACT}{kind}", phrase) if kind else ("", "")


def check(expected: Any, body: bytes) -> tuple[str, str]:
    """The kind of error that an answer's body is, and a phrase that says more; both '' when all is as expected.

    The kind is CONTRACT with what is missing or of another type, by which one kind of error stays one kind, or WRONG.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        return f"{CONTRACT}not JSON", f"wanted JSON, got {body[:60]!r}"
    return compare(expected, answer)


def difference(expected: Any, answer: Any) -> str:
    """The first place where `answer` lacks or contradicts something in `expected`; '' when there is none."""
    return compare(expected, answer)[1]


def compare(expected: Any, answer: Any, where: str = "answer") -> tuple[str, str]:
    """As `check`, for an answer that has been read."""
    if expected is not None and answer is not None and _type(expected) != _type(answer):
        kind = f"{CONTRACT}{_INDEX.sub('[]', where)} is no {_type(expected)}"
        return kind, f"{where}: wanted {_article(_type(expected))}, got {_short(answer)}"
    if isinstance(expected, Mapping) and isinstance(answer, Mapping):
        for key, value in expected.items():
            if key not in answer:
                return f"{CONTRACT}{_INDEX.sub('[]', where)}.{key} is missing", f"{where}: {key} is missing"
            if (found := compare(value, answer[key], f"{where}.{key}"))[0]:
                return found
        return "", ""
    if isinstance(expected, list) and isinstance(answer, list) and len(expected) == len(answer):
        parts = (compare(e, a, f"{where}[{i}]") for i, (e, a) in enumerate(zip(expected, answer, strict=True)))
        return next((found for found in parts if found[0]), ("", ""))
    if _same(expected, answer):
        return "", ""
    return WRONG, f"{where}: wanted {_short(expected)}, got {_short(answer)}"


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = ((int | float, "number"), (str, "string"), (list, "array"), (Mapping, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "ao" else f"a {name}"


def _same(expected: Any, answer: Any) -> bool:
    numbers = isinstance(expected, int | float) and isinstance(answer, int | float)
    if numbers and not isinstance(expected, bool) and not isinstance(answer, bool):
        return math.isclose(expected, answer, rel_tol=0.0, abs_tol=TOLERANCE)
    return type(expected) is type(answer) and bool(expected == answer)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
