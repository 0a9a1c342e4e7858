"""What commands share: the project they are called in, and how they tell what they found."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ekiben.errors import UsageError

if TYPE_CHECKING:
    from ekiben.config import Project

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def here() -> "Project":
    from ekiben.config import Project

    return Project.here()


def out(value: Any) -> None:
    """Text as it is, everything else as JSON."""
    sys.stdout.write((value if isinstance(value, str) else json.dumps(value)) + "\n")


def pairs(flag: str, texts: list[str]) -> dict[str, str]:
    """name=value as a dictionary; UsageError for what is none."""
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{flag}: {text!r} is not name=value")
    return dict(text.split("=", 1) for text in texts)
