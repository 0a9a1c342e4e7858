"""Workflows on Argo from Python: submit, wait, read logs, resume, stop.

run = argo.submit(release.define(), parameters={"recipe": "digits"}, namespace="ml")
argo.wait(run, timeout=3600)

A document runs as it stands; the name of a WorkflowTemplate runs what the cluster holds under it. By Kubernetes' API,
or by the Argo Server's where ARGO_SERVER is set.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ekiben.errors import UsageError
from ekiben.pipeline.argo import documents, follow, suspension
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.connection import connect, instance
from ekiben.pipeline.argo.status import Status, Step, read

Json = dict[str, Any]
__all__ = ["Run", "Status", "Step", "find", "logs", "look", "prepared", "resume", "stop", "submit", "terminate", "wait"]


@dataclass(frozen=True)
class Run:
    """A workflow in a cluster; `uid` is empty for one that was only named."""

    name: str
    namespace: str
    uid: str = ""
    client: Client = field(compare=False, repr=False, kw_only=True)


def prepared(
    client: Client, document: Any, parameters: Mapping[str, Any], key: str = "", labels: Mapping[str, str] | None = None
) -> Json:
    """The Workflow that `submit` creates. The cluster is asked for the template where only its name is given.
    UsageError for parameters that do not fit, NotFoundError for a template that is not there."""
    if not isinstance(document, (str, dict)):  # Hera's own dictionaries hold enums and other Python values
        document = yaml.safe_load(document.to_yaml())
    declared = client.template(document) if isinstance(document, str) else document
    what = document if isinstance(document, str) else f"the {document.get('kind', 'document')}"
    values = documents.texts(parameters)
    documents.check(documents.parameters_of(declared), values, what)
    marked = {**instance(), **(labels or {})}
    return documents.workflow(document, values, client.namespace, key or uuid.uuid4().hex, marked)


def submit(
    document: Any,
    parameters: Mapping[str, Any] | None = None,
    *,
    namespace: str = "",
    context: str = "",
    key: str = "",
    labels: Mapping[str, str] | None = None,
    client: Client | None = None,
) -> Run:
    """Start a workflow: a Hera object, a document as dictionaries, or the name of a WorkflowTemplate in the cluster.

    Parameters that are no text are sent as JSON. The same `key` gives the same run: submitted twice it runs once.
    Without an answer it is tried again; it is never created twice. UsageError, NotFoundError, UnavailableError,
    ConflictError.
    """
    client = client or connect(context, namespace)
    made = client.create(prepared(client, document, parameters or {}, key, labels))
    metadata = made["metadata"]
    return Run(metadata["name"], metadata["namespace"], metadata.get("uid", ""), client=client)


def find(name: str, *, namespace: str = "", context: str = "", client: Client | None = None) -> Run:
    """The run of that name. NotFoundError where there is none."""
    client = client or connect(context, namespace)
    found = client.get(name)["metadata"]
    return Run(found["name"], found["namespace"], found.get("uid", ""), client=client)


def look(run: Run) -> Status:
    """The run now."""
    return read(run.client.get(run.name))


def wait(run: Run, timeout: float | None = None, on_state: Callable[[Status], None] | None = None) -> Status:
    """Wait until the run has succeeded, at most `timeout` seconds. `on_state` is told each new state, and the last one
    again now and then.

    StepError, with the failing step, its message and its last lines, where it failed; NotPassedError, with the step's
    own exit code, where a verdict stopped it; UnavailableError when the time is up or nobody answers any more.
    """
    last: Status | None = None
    for last in follow.states(run.client, run.name, run.uid, timeout):
        if on_state:
            on_state(last)
    assert last is not None
    follow.require_success(run.client, last)
    return last


def logs(run: Run, step: str = "", *, tail: int | None = None, keep_on: bool = False) -> Iterator[tuple[str, str]]:
    """Names of steps and lines of their logs, step after step; with `keep_on`, as they are written, until the run is
    over. `step` is a step's path, its last part, or its template. NotFoundError where there is no such step."""
    return follow.logs(run.client, run.name, step, tail, keep_on)


def resume(run: Run, step: str = "", outputs: Mapping[str, str] | None = None, message: str = "") -> Step | None:
    """End the wait of a suspended step, with values for what it asks; without one that waits, of the workflow.

    Returns the step. UsageError where nothing waits, or several steps do and none is named.
    """
    status = look(run)
    status.readable()
    waiting = [each for each in status.waiting if not step or each.called(step)]
    if not waiting and not step and status.suspended:
        run.client.unsuspend(run.name)
        return None
    if not waiting:
        named = ", ".join(each.name for each in status.waiting)
        raise UsageError(
            f"nothing waits in {run.name}{f' at {step}' if step else ''}: it is {status.phase}",
            wanted=f"one of {named}" if named else "a step that is suspended",
        )
    if len(waiting) > 1:
        raise UsageError(
            f"{len(waiting)} steps of {run.name} wait", wanted=f"one of them: {', '.join(e.name for e in waiting)}"
        )
    suspension.check(waiting[0].inputs, waiting[0].outputs, outputs or {}, waiting[0].name)
    run.client.resume_step(run.name, waiting[0], outputs or {}, message)
    return waiting[0]


def stop(run: Run) -> Status:
    """End the run; its exit handler still runs. Returns how it stood. UsageError for one that is over."""
    return _shut_down(run, "Stop")


def terminate(run: Run) -> Status:
    """End the run at once, without its exit handler: what it deployed stays as it is."""
    return _shut_down(run, "Terminate")


def _shut_down(run: Run, how: Any) -> Status:
    status = look(run)
    if status.over:
        raise UsageError(f"{run.name} is over already: {status.phase}", wanted="a run that goes on")
    run.client.shut_down(run.name, how)
    return status
