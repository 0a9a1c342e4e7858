"""Golden answers: requests and the answers that the model under test must give to them. They travel with the model.

    {"version": 1, "route": "/predict", "examples": [{"request": {"rows": [[0, …]]}, "response": {"classes": [3]}}, …]}

An example may have a `route` of its own. An answer is right when every key of the expected response equals that of the
answer; numbers may differ by 1e-6.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from ekiben.errors import NotFoundError, UsageError
from ekiben.types import Value

TOLERANCE = 1e-6


class GoldenExample(Value):
    request: Any
    response: Any
    route: str = Field("", pattern="^(/.*)?$", description="Where it is posted; empty: the file's own route.")

    @property
    def body(self) -> bytes:
        """The request as it is sent: JSON, UTF-8."""
        return json.dumps(self.request, separators=(",", ":")).encode()


class Golden(Value):
    version: Literal[1]
    route: str = Field(pattern="^/")
    examples: tuple[GoldenExample, ...] = Field(min_length=1)

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


def mismatch(expected: Any, body: bytes) -> str:
    """What is wrong with an answer's body, as a phrase; '' when it holds everything that is expected."""
    try:
        answer = json.loads(body)
    except ValueError:
        return f"wanted JSON, got {body[:60]!r}"
    return difference(expected, answer)


def difference(expected: Any, answer: Any, where: str = "answer") -> str:
    """The first place where `answer` lacks or contradicts something in `expected`; '' when there is none."""
    if isinstance(expected, Mapping):
        if not isinstance(answer, Mapping):
            return f"{where}: wanted an object, got {_short(answer)}"
        for key, value in expected.items():
            if key not in answer:
                return f"{where}: {key} is missing"
            if found := difference(value, answer[key], f"{where}.{key}"):
                return found
        return ""
    if isinstance(expected, list) and isinstance(answer, list) and len(expected) == len(answer):
        parts = (difference(e, a, f"{where}[{i}]") for i, (e, a) in enumerate(zip(expected, answer, strict=True)))
        return next((text for text in parts if text), "")
    return "" if _same(expected, answer) else f"{where}: wanted {_short(expected)}, got {_short(answer)}"


def _same(expected: Any, answer: Any) -> bool:
    numbers = isinstance(expected, int | float) and isinstance(answer, int | float)
    if numbers and not isinstance(expected, bool) and not isinstance(answer, bool):
        return math.isclose(expected, answer, rel_tol=0.0, abs_tol=TOLERANCE)
    return type(expected) is type(answer) and bool(expected == answer)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
