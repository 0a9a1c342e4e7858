"""What a suspended step of a local run waits for: a question and its answer, each a file in the run's folder."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ekiben.errors import ConflictError, NotFoundError, UsageError
from ekiben.files import write_atomically
from ekiben.pipeline.nodes import file_name


@dataclass(frozen=True)
class Question:
    """`choices` of each output that a person supplies; empty: any text."""

    node: str
    choices: Mapping[str, tuple[str, ...]]


def ask(run: Path, question: Question) -> None:
    write_atomically(_path(run, question.node, "asked"), json.dumps(asdict(question)))


def answer(run: Path, node: str) -> dict[str, str] | None:
    """What somebody decided, if anybody has."""
    path = _path(run, node, "answered")
    return dict(json.loads(path.read_text())["outputs"]) if path.is_file() else None


def closed(run: Path, node: str) -> None:
    _path(run, node, "asked").unlink(missing_ok=True)


def open_questions(run: Path) -> list[Question]:
    found = sorted((run / "decisions").glob("*.asked.json"))
    return [Question(q["node"], {k: tuple(v) for k, v in q["choices"].items()}) for q in map(_load, found)]


def decide(run: Path, value: str, by: str, why: str) -> Question:
    """Answer the one open question of that run. NotFoundError without one, ConflictError when it was answered."""
    questions = open_questions(run)
    if not questions:
        raise NotFoundError(f"{run.name} waits for nobody's decision", wanted="a run with a suspended step")
    question = questions[0]
    for name, choices in question.choices.items():
        if choices and value not in choices:
            raise UsageError(f"{question.node} takes no {value!r} as {name}", wanted=f"one of {', '.join(choices)}")
    path = _path(run, question.node, "answered")
    if path.is_file():
        raise ConflictError(f"{question.node} of {run.name} was decided already, by {_load(path)['by']}")
    made = {"outputs": dict.fromkeys(question.choices, value), "by": by, "why": why, "time": time.time()}
    write_atomically(path, json.dumps(made))
    return question


def _path(run: Path, node: str, what: str) -> Path:
    return run / "decisions" / f"{file_name(node)}.{what}.json"


def _load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))
