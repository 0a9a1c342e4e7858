"""What the local engine executes: an Argo document, read. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Retry:
    """At most `limit` further attempts (a number, or text to fill in; None: without end), on these phases and while
    `expression` holds, waiting between them (in seconds)."""

    limit: str | None = "0"
    phases: frozenset[str] = frozenset()
    expression: str = ""
    wait: float = 0.0
    factor: float = 1.0
    longest_wait: float | None = None  # backoff.cap
    max_seconds: float | None = None  # backoff.maxDuration: since the first attempt began


@dataclass(frozen=True)
class Loop:
    """Where a task's items come from: one of the three is set, as the document has it."""

    items: tuple[object, ...] | None = None
    param: str = ""
    sequence: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Hook:
    """A template that runs beside, or after, what it belongs to. `exit` runs at the end, any other when `expression`
    first holds."""

    name: str
    template: str
    parameters: Mapping[str, str]
    artifacts: Mapping[str, str]
    expression: str


@dataclass(frozen=True)
class Task:
    """One task of a DAG, or one step of a steps template, whose group waits for the group before."""

    name: str
    template: str
    parameters: Mapping[str, str]
    artifacts: Mapping[str, str]  # input name -> "tasks.<name>.outputs.artifacts.<output>" or "inputs.artifacts.<name>"
    depends: str
    when: str
    loop: Loop | None = None
    hooks: tuple[Hook, ...] = ()
    tolerated: frozenset[str] = frozenset()  # phases that do not fail what it is part of: continueOn


@dataclass(frozen=True)
class Source:
    """Where an output comes from: a file, what a DAG passes up, an expression, or a person."""

    path: str = ""
    parameter: str = ""
    expression: str = ""
    supplied: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Memo:
    """An entry of this key and cache, not older than `max_age` seconds, takes the place of running."""

    key: str
    cache: str
    max_age: float | None


@dataclass(frozen=True)
class Template:
    """A DAG of tasks (`kind` "tasks", or "steps" for a steps template), one Hera runner script ("script"), or a wait
    for a person or a time ("suspend")."""

    name: str
    kind: str
    inputs: Mapping[str, str | None]  # parameter -> default
    choices: Mapping[str, tuple[str, ...]]  # parameter -> enum
    input_artifacts: Mapping[str, bool]  # name -> optional
    outputs: Mapping[str, Source]
    output_artifacts: Mapping[str, str]
    shared: Mapping[str, str] = field(default_factory=dict)  # output -> its name among the workflow's own outputs
    tasks: tuple[Task, ...] = ()
    fail_fast: bool = True
    entrypoint: str = ""  # module:function
    env: Mapping[str, str] = field(default_factory=dict)
    retry: Retry = Retry()
    deadline: str = ""  # of each attempt, in s
    timeout: str = ""  # of all attempts, a duration
    pause: str | None = None  # of "suspend": its duration; "": until somebody resumes it
    memo: Memo | None = None
    mutexes: tuple[str, ...] = ()
    parallelism: int | None = None


@dataclass(frozen=True)
class Document:
    name: str
    entrypoint: str
    exit: Hook | None
    hooks: tuple[Hook, ...]
    arguments: Mapping[str, str | None]
    templates: Mapping[str, Template]
    parallelism: int | None
    deadline: float | None  # in s
    mutexes: tuple[str, ...]
