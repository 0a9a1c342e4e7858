"""What became of a task, what is told of it, and how it is kept on disk."""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from ekiben.errors import UsageError
from ekiben.files import write_atomically

BAD = ("Error", "Failed")
_WORD = {"Error": "Errored"}
_WORST = ("Error", "Failed", "Succeeded", "Skipped", "Omitted")
_UNSAFE = re.compile(r"[^\w.()=,-]")
_KEY = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")


class Try(NamedTuple):
    """One attempt, or a wait, of which the phase is Suspended; `started` in seconds since the epoch."""

    started: float
    seconds: float
    phase: str


@dataclass(frozen=True)
class Node:
    """What became of one task. `phase` is Argo's: Succeeded, Failed, Error, Skipped or Omitted; `started` in seconds
    since the epoch, `seconds` with all its attempts; `words` what else `depends` may ask of it."""

    name: str
    phase: str
    seconds: float = 0.0
    exit_code: int = 0
    message: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    folder: Path | None = None
    started: float = 0.0
    result: str = ""
    template: str = ""
    words: frozenset[str] = frozenset()
    tries: tuple[Try, ...] = ()

    @property
    def results(self) -> frozenset[str]:
        """The words of `depends` that are true of it."""
        return self.words | {_WORD.get(self.phase, self.phase)}


@dataclass(frozen=True)
class Event:
    """Something worth telling: kind is "start", "line", "retry" or "end"; `node` only at the end."""

    kind: str
    task: str
    text: str = ""
    node: Node | None = None


@dataclass(frozen=True)
class Result:
    """How a workflow ended. `nodes` holds every task in the order in which they ended, exit handler last."""

    name: str
    phase: str
    nodes: tuple[Node, ...]
    folder: Path
    seconds: float
    stopped: bool = False  # somebody asked it to end before its time


def joined(name: str, items: Sequence[Node], started: float) -> Node:
    """The node of a task that was unrolled into `items`: it fails with any of them, and its outputs are lists."""
    bad = [node.phase for node in items if node.phase in BAD]
    ended = [node for node in items if node.outputs or node.result]
    names = sorted({key for node in ended for key in node.outputs})
    outputs = {key: json.dumps([node.outputs[key] for node in ended if key in node.outputs]) for key in names}
    outputs[""] = json.dumps([dict(node.outputs) for node in ended if node.outputs])  # of all together
    words = {"AnySucceeded"} if any(node.phase == "Succeeded" for node in items) else set[str]()
    if all(node.phase == "Failed" for node in items):
        words.add("AllFailed")
    return Node(
        name,
        bad[-1] if bad else "Succeeded",
        seconds=time.time() - started,
        outputs=outputs,
        started=started,
        result=json.dumps([node.result for node in ended]),
        words=frozenset(words),
    )


def phase(waits: Mapping[str, set[str]], ended: Mapping[str, str]) -> str:
    """A DAG ends as the worst of its leaves that have ended; one that did not run stands for what it waited for."""

    def effective(name: str) -> str:
        if ended[name] in ("Omitted", "Skipped") and waits[name]:
            return min((effective(need) for need in waits[name]), key=_WORST.index)
        return ended[name]

    leaves = (set(waits) - {name for needs in waits.values() for name in needs}) & set(ended)
    worst = min((effective(leaf) for leaf in leaves), key=_WORST.index, default="Succeeded")
    return worst if worst in BAD else "Succeeded"


def file_name(name: str) -> str:
    """As a file or folder may be called; different names stay different."""
    plain = _UNSAFE.sub("_", name)
    if plain == name and len(plain) <= 100:
        return plain
    return f"{plain[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class Ledger:
    """The steps that have ended, each in a file of its own, so that a run that was cut off can go on after them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, node: Node, inputs: Mapping[str, str]) -> None:
        made = {**asdict(node), "words": sorted(node.words), "inputs": dict(inputs)}
        write_atomically(self._folder / f"{file_name(node.name)}.json", json.dumps(made, default=str))

    def found(self, name: str, inputs: Mapping[str, str]) -> Node | None:
        """The node of that name, if it had the same inputs and its files are still there."""
        path = self._folder / f"{file_name(name)}.json"
        if not path.is_file():
            return None
        kept = json.loads(path.read_text())
        if kept.pop("inputs") != dict(inputs):
            return None
        artifacts = {key: Path(where) for key, where in kept.pop("artifacts").items()}
        if not all(each.exists() for each in artifacts.values()):
            return None
        folder, words = kept.pop("folder"), frozenset(kept.pop("words"))
        tries = tuple(Try(*each) for each in kept.pop("tries"))
        place = Path(folder) if folder else None
        return Node(**kept, artifacts=artifacts, folder=place, words=words, tries=tries)


class Memory:
    """What memoized steps came to, by cache and key, across runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def found(self, cache: str, key: str, max_age: float | None) -> Node | None:
        path = self._path(cache, key)
        if not path.is_file():
            return None
        kept = json.loads(path.read_text())
        artifacts = {name: Path(where) for name, where in kept["artifacts"].items()}
        old = max_age is not None and time.time() - kept["made"] > max_age
        if old or not all(each.exists() for each in artifacts.values()):
            return None
        return Node("", "Succeeded", outputs=kept["outputs"], artifacts=artifacts, result=kept["result"])

    def keep(self, cache: str, key: str, node: Node) -> None:
        made = {
            "made": time.time(),
            "outputs": dict(node.outputs),
            "result": node.result,
            "artifacts": {name: str(path) for name, path in node.artifacts.items()},
        }
        write_atomically(self._path(cache, key), json.dumps(made))

    def _path(self, cache: str, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise UsageError(f"the memoization key {key!r}", wanted="letters, digits and hyphens only, as with Argo")
        return self._folder / file_name(cache) / f"{file_name(key)}.json"
