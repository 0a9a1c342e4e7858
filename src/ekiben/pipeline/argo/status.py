"""What a Workflow object says of its run: phase, steps, what it waits for, which step failed. Pure."""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ekiben.errors import IntegrityError, NotFoundError, UnsupportedError

Json = dict[str, Any]
FINISHED = ("Succeeded", "Failed", "Error")
"""Phases of a workflow that is over. An empty phase is one that no controller has taken up yet."""
BAD = ("Failed", "Error")
POD_NAMES = "workflows.argoproj.io/pod-name-format"
LOG = "main-logs"
"""Argo's name of the artifact that a step's log is archived as."""
MOST_NODES = 64 * 1024 * 1024
"""Bytes that unpacked node statuses may have. Argo packs them when a workflow is larger than 1 MiB."""
_STEPS = ("Pod", "Suspend", "HTTP", "Plugin", "Skipped", "Retry")
_ATTEMPTS = ("Pod", "HTTP", "Plugin", "Suspend", "Skipped")
_ATTEMPT = re.compile(r"\((\d+)\)$", re.ASCII)
_HASH = re.compile(r"-(\d+)$")


@dataclass(frozen=True)
class Step:
    """One step as a person sees it. `outputs` that wait to be supplied are None; `attempts` are the ids of the nodes
    whose pods ran it, the last one last; `lock` is what it waits for; `archived` is whether Argo keeps its log."""

    id: str
    name: str
    type: str
    template: str
    phase: str
    message: str
    started: datetime | None
    finished: datetime | None
    inputs: Mapping[str, Json]
    outputs: Mapping[str, str | None]
    exit_code: int | None
    attempts: tuple[str, ...]
    lock: str
    boundary: str
    archived: bool

    @property
    def waits(self) -> bool:
        """Whether somebody must resume it."""
        return self.type == "Suspend" and self.phase == "Running"

    @property
    def on_exit(self) -> bool:
        return self.name.startswith("onExit")

    def called(self, wanted: str) -> bool:
        """Whether a person who says `wanted` means this step: its path, its last part, or its template."""
        return wanted in (self.name, self.name.rpartition(".")[2], self.template)

    @property
    def why(self) -> str:
        """What it waits for, or what became of it; '' where there is nothing to say."""
        if self.waits:
            asked = ", ".join(
                f"{name} ({'|'.join(map(str, self.inputs.get(name, {}).get('enum') or ())) or 'any value'})"
                for name, value in self.outputs.items()
                if value is None
            )
            return f"waits for {asked}" if asked else "waits to be resumed"
        if self.lock and self.phase == "Pending" and "lock" not in self.message:
            return f"Waiting for {self.lock} lock"
        return self.message


@dataclass(frozen=True)
class Status:
    """A run at one moment. `hidden` says why its steps cannot be read, where they cannot; `pod_gc` is when Argo deletes
    its pods, '' for never."""

    name: str
    uid: str
    version: str
    created: datetime | None
    phase: str
    message: str
    started: datetime | None
    finished: datetime | None
    suspended: bool
    shutdown: str
    progress: str
    steps: tuple[Step, ...]
    other: tuple[Step, ...]
    hidden: str
    annotations: Mapping[str, str]
    pod_gc: str

    @property
    def over(self) -> bool:
        return self.phase in FINISHED

    def readable(self) -> None:
        """UnsupportedError where the steps cannot be read."""
        if self.hidden:
            raise UnsupportedError(
                f"the steps of {self.name} cannot be read: {self.hidden}",
                wanted="node statuses in the Workflow itself",
                next_step="name the Argo Server that has them: ARGO_SERVER and ARGO_TOKEN",
            )

    def failed_step(self) -> Step | None:
        """The step to blame: the first that failed and was not made good, rather one of the workflow than of its exit
        handler. None where no step failed."""
        failed = [step for step in self.steps if step.phase in BAD]
        if not failed:  # a group that failed by itself: a reference that nothing provides, a `when` that cannot be read
            failed = [step for step in self.other if step.phase in BAD and step.message]
            failed.sort(key=lambda step: -step.name.count("."))
        first = sorted(failed, key=lambda step: (step.on_exit, step.finished is None, step.finished))
        return first[0] if first else None

    def without_log(self, step: Step) -> NotFoundError:
        """Why a step's log cannot be read any more."""
        why = f": podGC {self.pod_gc} deletes pods" if self.pod_gc else ""
        next_step = "keep them longer (podGC.deleteDelayDuration), or have Argo archive logs (archiveLogs)"
        if step.archived:
            next_step = "its log is archived: name the Argo Server that has it, ARGO_SERVER and ARGO_TOKEN"
        return NotFoundError(
            f"the pods of {step.name} are gone, and their logs with them{why}",
            wanted="pods that are still there",
            next_step=next_step,
        )

    @property
    def waiting(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.waits)


def read(workflow: Json) -> Status:
    """Of a Workflow as the API server or the Argo Server gives it."""
    metadata, spec, status = workflow["metadata"], workflow.get("spec") or {}, workflow.get("status") or {}
    given = status.get("storedWorkflowTemplateSpec") or spec  # where it names a template, the spec itself is bare
    hidden, found = "", {}
    try:
        found = nodes(workflow)
    except UnsupportedError as error:
        hidden = error.seen
    every = {each["id"]: each for each in found.values()}
    attempts = _attempts(every)
    of_retries = {each for ids in attempts.values() for each in ids}
    steps: list[Step] = []
    other: list[Step] = []
    for node in every.values():
        step = _step(metadata["name"], _with_last(node, every, attempts), attempts.get(node["id"], ()))
        (steps if _shown(node, step) and node["id"] not in of_retries else other).append(step)
    steps.sort(key=lambda step: (step.started is None, step.started, step.name))
    return Status(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        version=metadata.get("resourceVersion", ""),
        created=_time(metadata.get("creationTimestamp")),
        phase=status.get("phase") or "Pending",
        message=status.get("message") or "" if status.get("phase") else "no controller has taken it up yet",
        started=_time(status.get("startedAt")),
        finished=_time(status.get("finishedAt")),
        suspended=bool(spec.get("suspend")),
        shutdown=spec.get("shutdown") or "",
        progress=status.get("progress") or "",
        steps=tuple(steps),
        other=tuple(other),
        hidden=hidden,
        annotations=metadata.get("annotations") or {},
        pod_gc=(given.get("podGC") or {}).get("strategy") or "",
    )


def nodes(workflow: Json) -> dict[str, Json]:
    """Node statuses by id, unpacked where Argo packed them. UnsupportedError where they lie in Argo's database."""
    status = workflow.get("status") or {}
    found: dict[str, Json] = status.get("nodes") or {}
    if found:
        return found
    if status.get("offloadNodeStatusVersion"):
        raise UnsupportedError("Argo keeps its node statuses in a database (nodeStatusOffLoad)")
    if status.get("compressedNodes"):
        return unpacked(status["compressedNodes"])
    return {}


def unpacked(text: str) -> dict[str, Json]:
    """Argo's compressedNodes: JSON, gzip, base64. IntegrityError for what is no such thing or too large."""
    try:
        reader = zlib.decompressobj(wbits=31)
        data = reader.decompress(base64.b64decode(text, validate=True), MOST_NODES)
        if not reader.eof:
            raise ValueError(f"it is cut off, or larger than {MOST_NODES:,} bytes")
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, zlib.error, binascii.Error) as error:
        raise IntegrityError(f"status.compressedNodes cannot be unpacked: {error}") from None
    return found


def packed(nodes: Mapping[str, Json]) -> str:
    """The reverse of `unpacked`."""
    writer = zlib.compressobj(wbits=31)
    data = json.dumps(nodes, separators=(",", ":")).encode()
    return base64.b64encode(writer.compress(data) + writer.flush()).decode()


def pod_name(status: Status, step: Step, node_id: str) -> str:
    """The name that Argo gives the pod of a node: in version 2, its default, by the hash that the node's id ends in; in
    version 1 the id itself."""
    found = _HASH.search(node_id)
    if status.annotations.get(POD_NAMES) == "v1":
        return node_id
    if found is None or node_id == status.name:
        return status.name
    return f"{f'{status.name}-{step.template}'[:242]}-{found[1]}"


def _shown(node: Json, step: Step) -> bool:
    """Whether a node is a step of its own. A group is not, unless it waits for a lock: then nothing is in it yet. What
    is memoized is a Retry node with nothing in it; one with a group in it is none."""
    if step.phase == "Pending" and not node.get("children"):
        return True
    return step.type in _STEPS and (step.type != "Retry" or bool(step.attempts) or not node.get("children"))


def _attempts(every: Mapping[str, Json]) -> dict[str, tuple[str, ...]]:
    """The pods of each Retry node, in order, by its id."""
    retries = {node["name"]: node["id"] for node in every.values() if node.get("type") == "Retry"}
    found: dict[str, list[tuple[int, str]]] = {each: [] for each in retries.values()}
    for node in every.values():
        number = _ATTEMPT.search(node["name"])
        of = retries.get(node["name"][: number.start()]) if number else None
        if of and number and node.get("type") in _ATTEMPTS:
            found[of].append((int(number[1]), node["id"]))
    return {of: tuple(each for _, each in sorted(tried)) for of, tried in found.items()}


def _with_last(node: Json, every: Mapping[str, Json], attempts: Mapping[str, tuple[str, ...]]) -> Json:
    """A Retry node tells of itself only that it runs, or that no retries are left: its last attempt knows more."""
    ids = attempts.get(node["id"])
    if not ids or node.get("phase") in ("Succeeded", "Skipped", "Omitted"):
        return node
    last = every[ids[-1]]
    told = {key: last[key] for key in ("message", "synchronizationStatus", "outputs") if last.get(key)}
    if last.get("phase") in ("Pending", None, ""):
        told["phase"] = "Pending"
    return {**node, **told}


def _step(workflow: str, node: Json, attempts: tuple[str, ...]) -> Step:
    inputs = {each["name"]: each for each in (node.get("inputs") or {}).get("parameters") or ()}
    outputs = node.get("outputs") or {}
    code = outputs.get("exitCode")
    lock = node.get("synchronizationStatus") or {}
    kind = node.get("type", "")
    return Step(
        id=node["id"],
        name=node["name"].removeprefix(workflow).lstrip(".") or node.get("displayName") or workflow,
        type=kind,
        template=node.get("templateName") or (node.get("templateRef") or {}).get("template") or "",
        phase=node.get("phase") or "Pending",
        message=node.get("message") or _remembered(node.get("memoizationStatus") or {}),
        started=_time(node.get("startedAt")),
        finished=_time(node.get("finishedAt")),
        inputs=inputs,
        outputs={each["name"]: _value(each) for each in outputs.get("parameters") or ()},
        exit_code=int(code) if code and str(code).lstrip("-").isdigit() else None,
        attempts=(node["id"],) if kind == "Pod" else attempts,
        lock=lock.get("waiting") or "",
        boundary=node.get("boundaryID") or "",
        archived=any(each.get("name") == LOG for each in outputs.get("artifacts") or ()),
    )


def _remembered(memory: Json) -> str:
    return f"known already: {memory.get('key')} in {memory.get('cacheName')}" if memory.get("hit") else ""


def _value(parameter: Json) -> str | None:
    value = parameter.get("value")
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
