"""Who lets a waiting run go on, and why: claimed on the workflow, recorded in W&B, and only then carried out.

Argo itself keeps one label of who resumed a run last, and overwrites it: that is no record. The claim is an annotation
that only one decider can write; whoever breaks off after it repeats the command, and the same decision goes on.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from ekiben.errors import ConflictError, UnsupportedError, UsageError
from ekiben.pipeline.argo import Run, follow
from ekiben.pipeline.argo import status as statuses
from ekiben.pipeline.argo.status import Status, Step
from ekiben.types import BentoRef, ImageRef, ModelVersion, Release

Json = dict[str, Any]
ANNOTATION = "ekiben.dev/approval"
OUTPUT = "decision"
"""The value that a step asks for whose answer is approve or reject."""
LONGEST = {"who": 200, "why": 2000}
Verb = Literal["approve", "reject"]
Record = Callable[[ModelVersion, Mapping[str, str]], None]


@dataclass(frozen=True)
class Decision:
    """`recorded` says whether W&B has it; `time` is UTC, ISO 8601."""

    run: str
    step: str
    decision: str
    by: str
    why: str
    time: str
    recorded: bool = False

    def __str__(self) -> str:
        how = {"approve": "approved", "reject": "rejected"}.get(self.decision, self.decision)
        return f"{self.run} was {how} by {self.by} at {self.time[:19]}Z: {self.why}"


def decide(run: Run, verb: Verb, by: str, why: str, record: Record) -> Decision:
    """Let the run that waits for a decision go on. The same again is no mistake: it finishes what broke off.

    `record` writes who and why to the model's record. UsageError where nothing waits, ConflictError where somebody
    decided otherwise.
    """
    by, why = _said("who", by), _said("why", why)
    workflow = run.client.get(run.name)
    status = statuses.read(workflow)
    status.readable()
    written = status.annotations.get(ANNOTATION)
    claimed = _parsed(written)
    step = _asking(status)
    if step is None:
        return _decided(run, status, claimed, verb, by)
    if claimed and claimed.step == step.id:
        if (claimed.decision, claimed.by) != (verb, by):
            raise ConflictError(
                f"{claimed}",
                wanted="one decision",
                next_step=f"it is not carried out yet: {claimed.by} repeats `ekiben {claimed.decision}`,"
                f" or somebody ends the run: `ekiben workflow stop {run.name}`",
            )
        decision = claimed
    else:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        decision = Decision(run.name, step.id, verb, by, why, now)
        model_of(workflow)  # a run without one is refused before anything is written
        written = _write(run, decision, written)
    if not decision.recorded:
        told = {"run": run.name, "decision": decision.decision, "by": decision.by, "why": decision.why}
        record(model_of(workflow), {**told, "time": decision.time})
        decision = replace(decision, recorded=True)
        _write(run, decision, written)
    message = f"{'approved' if verb == 'approve' else 'rejected'} by {decision.by}: {decision.why}"
    try:
        run.client.resume_step(run.name, step, {OUTPUT: verb}, message)
    except ConflictError as error:  # its time was up, or somebody resumed it in Argo itself: the record must say so
        record(model_of(workflow), {"run": run.name, "decision": "not carried out", "by": by, "why": error.seen})
        raise
    return decision


def model_of(workflow: Json) -> ModelVersion:
    """The model version that a run is about: what a step put out, or what the run was given. UnsupportedError where
    there is none."""
    for text in _values(workflow):
        for kind in (ModelVersion, BentoRef, ImageRef, Release):
            try:
                found = kind.model_validate_json(text)
            except ValidationError:
                continue
            if isinstance(found, Release):
                return found.bento.model
            if isinstance(found, ImageRef):
                return found.bento.model
            return found.model if isinstance(found, BentoRef) else found
        try:
            return ModelVersion.parse(text)
        except UsageError:
            continue
    name = workflow["metadata"]["name"]
    raise UnsupportedError(
        f"{name} names no model version, so there is no record to write the decision to",
        wanted="a step with a model, Bento or image as its output, or a parameter with ENTITY/PROJECT/NAME:vN",
        next_step=f"ekiben workflow resume {name} --output {OUTPUT}=…",
    )


def _values(workflow: Json) -> Iterator[str]:
    """What steps put out, the newest first; then what the run was given."""
    nodes = sorted(statuses.nodes(workflow).values(), key=lambda node: node.get("finishedAt") or "", reverse=True)
    holders = [node.get("outputs") or {} for node in nodes]
    holders += [(workflow.get("spec") or {}).get("arguments") or {}]
    for holder in holders:
        for each in holder.get("parameters") or ():
            if isinstance(each.get("value"), str):
                yield each["value"]


def _asking(status: Status) -> Step | None:
    """The step that waits for a decision. UsageError where several do."""
    found = [step for step in status.waiting if OUTPUT in step.outputs and step.outputs[OUTPUT] is None]
    if len(found) > 1:
        raise UsageError(f"{len(found)} steps of {status.name} wait: {', '.join(step.name for step in found)}")
    return found[0] if found else None


def _decided(run: Run, status: Status, claimed: Decision | None, verb: Verb, by: str) -> Decision:
    """What was decided before, if it is the same."""
    step = next((step for step in status.steps if step.type == "Suspend" and step.outputs.get(OUTPUT)), None)
    if step is None:
        raise UsageError(
            f"nothing waits in {run.name}: {follow.standing(status)}",
            wanted=f"a step that asks for {OUTPUT}",
            next_step=f"ekiben workflow watch {run.name}",
        )
    if claimed is None or (claimed.step, claimed.decision) != (step.id, step.outputs[OUTPUT]):
        how = step.message or "nobody said so here: its time was up, or it was resumed in Argo itself"
        raise ConflictError(f"{run.name} was decided: {step.outputs[OUTPUT]} ({how})", wanted="a run that waits")
    if (claimed.decision, claimed.by) != (verb, by):
        raise ConflictError(str(claimed), wanted="a run that waits")
    return claimed


def _write(run: Run, decision: Decision, instead_of: str | None) -> str:
    """On the workflow, unless somebody else wrote there meanwhile: that is a conflict."""
    text = json.dumps(asdict(decision), ensure_ascii=False)
    run.client.annotate(run.name, ANNOTATION, text, instead_of)
    return text


def _parsed(text: str | None) -> Decision | None:
    try:
        return Decision(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        return None


def _said(what: str, text: str) -> str:
    text = " ".join(text.split())
    if not text or len(text) > LONGEST[what] or not text.isprintable():
        raise UsageError(f"{what}: {text[:50]!r}", wanted=f"words, at most {LONGEST[what]:,} characters")
    return text
