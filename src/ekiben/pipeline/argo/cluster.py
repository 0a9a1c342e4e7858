"""Argo by way of Kubernetes' API alone: Workflow objects are created, read, watched and patched, as `argo` does.

Argo's Workflow has no status subresource: node statuses are changed by patching the object itself. The controller
merges its own changes into what it finds, so a patch that tests what it changes is safe beside it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ekiben.errors import ConflictError, EkibenError, NotFoundError, UnavailableError, UsageError
from ekiben.pipeline.argo import status as statuses
from ekiben.pipeline.argo import suspension
from ekiben.pipeline.argo.client import Shutdown
from ekiben.pipeline.argo.documents import API_VERSION, SUBMISSION
from ekiben.pipeline.argo.status import Status, Step
from ekiben.platforms.kubernetes.api import APPLIER, AbsentError, Api, path

Json = dict[str, Any]
TRIES = 5
MOST_OF_A_TAIL = 4 * 1024 * 1024
"""Bytes; a line may be of any length."""
MOST_ASKED = 5
"""Pods whose events are read; of many that do not start, the others' reason is likely the same."""
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_ANNOTATION = "workflows.argoproj.io/node-id"
_NO_SUCH_RESOURCE = ("page not found", "could not find the requested resource")


class Cluster:
    """Argo in one namespace of one cluster. `sleep` is for tests."""

    def __init__(self, api: Api, namespace: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self.api, self.namespace, self._sleep = api, namespace, sleep
        self.where = f"{api.server}, namespace {namespace}"

    def create(self, workflow: Json) -> Json:
        name, ours = workflow["metadata"]["name"], workflow["metadata"]["labels"][SUBMISSION]
        for attempt in range(TRIES):
            try:
                return self.api.create(self._path(), workflow, APPLIER, strict=True)
            except UsageError as error:
                if "refuses it" in error.seen:
                    error.next_step = "ekiben workflow lint --crds FOLDER"
                raise
            except ConflictError as error:
                return self._own(self._found(name), ours, error)
            except AbsentError as error:
                raise self._explained(error, "Workflow", name) from None
            except UnavailableError:
                # Nobody knows whether it was created: its name was chosen before, so asking for it tells.
                self._sleep(0.3 * 2**attempt)
                if attempt + 1 == TRIES:
                    raise
        raise AssertionError("the last try returns or raises")

    def get(self, name: str) -> Json:
        try:
            return self.api.get(self._path(name))
        except AbsentError as error:
            raise self._explained(error, "Workflow", name) from None

    def template(self, name: str) -> Json:
        try:
            return self.api.get(path(API_VERSION, "workflowtemplates", self.namespace, name))
        except AbsentError as error:
            raise self._explained(error, "WorkflowTemplate", name) from None

    def watch(self, status: Status, seconds: int) -> Iterator[Json]:
        return self.api.watch(self._path(), status.name, status.version, seconds)

    def reasons(self, name: str) -> Mapping[str, str]:
        found, pods = {}, self._pods(name)
        for node, pod in pods.items():
            if why := _reason(pod):
                found[node] = why
        silent = [node for node, pod in pods.items() if (pod.get("status") or {}).get("phase") == "Pending"]
        for node in [node for node in silent if node not in found][:MOST_ASKED]:
            if why := self._warning(pods[node]):
                found[node] = why
        return found

    def log(self, status: Status, step: Step, tail: int | None, since: str) -> list[tuple[str, str]]:
        pods = self._pods(status.name)
        found = [pods[each] for each in step.attempts if each in pods]
        if not found:
            raise status.without_log(step)
        lines: list[tuple[str, str]] = []
        params = {"container": "main", "timestamps": "true"}
        if tail is not None:
            params |= {"tailLines": str(tail), "limitBytes": str(MOST_OF_A_TAIL)}
        if since:
            params["sinceTime"] = f"{since[:19]}Z"  # whole seconds: finer ones the API server does not take
        for pod in found:
            where = path("v1", "pods", self.namespace, pod["metadata"]["name"], "log")
            try:
                text = self.api.text(where, params)
            except AbsentError:
                continue
            except EkibenError as error:
                if "waiting to start" in error.seen or "not found" in error.seen or "PodInitializing" in error.seen:
                    continue  # no container has run yet: nothing was written
                raise
            lines += [(stamp, line) for stamp, _, line in (each.partition(" ") for each in text.splitlines())]
        return lines

    def resume_step(self, name: str, step: Step, outputs: Mapping[str, str], message: str) -> None:
        for _ in range(TRIES):
            workflow = self.get(name)
            nodes = statuses.nodes(workflow)
            node = next((each for each in nodes.values() if each["id"] == step.id), None)
            if node is None or not suspension.waits(node):
                if node and suspension.done(node, outputs, message):
                    return  # by an earlier try, whose answer was lost
                raise ConflictError(
                    f"{step.name} of {name} waits no longer: {(node or {}).get('message') or 'it was resumed'}",
                    next_step=f"ekiben workflow watch {name}",
                )
            changes = suspension.resumed(workflow, node, outputs, message, datetime.now(UTC))
            try:
                self.api.patch(self._path(name), changes, APPLIER)
                return
            except (ConflictError, UnavailableError):
                self._sleep(0.3)  # somebody wrote meanwhile, or the answer was lost: look again
        raise ConflictError(f"{name} changes too fast to resume {step.name}", next_step="run the command again")

    def unsuspend(self, name: str) -> None:
        if self.get(name).get("spec", {}).get("suspend"):
            operations: list[Json] = [
                {"op": "test", "path": "/spec/suspend", "value": True},
                {"op": "remove", "path": "/spec/suspend"},
            ]
            self.api.patch(self._path(name), operations, APPLIER)

    def shut_down(self, name: str, how: Shutdown) -> None:
        self._patch(name, {"op": "add", "path": "/spec/shutdown", "value": how})

    def annotate(self, name: str, key: str, value: str, instead_of: str | None) -> bool:
        for attempt in range(TRIES):
            metadata = self.get(name)["metadata"]
            there = (metadata.get("annotations") or {}).get(key)
            if there == value:
                return True  # by an earlier try, whose answer was lost
            if there != instead_of:
                raise ConflictError(f"{key} of {name} was written by somebody else meanwhile: {there}")
            changes: list[Json] = [
                {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]}
            ]
            if not metadata.get("annotations"):
                changes.append({"op": "add", "path": "/metadata/annotations", "value": {}})
            changes.append({"op": "add", "path": f"/metadata/annotations/{suspension.escaped(key)}", "value": value})
            try:
                self.api.patch(self._path(name), changes, APPLIER)
                return True
            except (ConflictError, UnavailableError):
                self._sleep(0.2 * 2**attempt)
        raise ConflictError(f"{name} changes too fast to note {key} on it", next_step="run the command again")

    def _patch(self, name: str, *operations: Json) -> None:
        """What may be carried out twice, so it is tried again without an answer."""
        for attempt in range(TRIES):
            try:
                self.api.patch(self._path(name), list(operations), APPLIER)
                return
            except AbsentError as error:
                raise self._explained(error, "Workflow", name) from None
            except (ConflictError, UnavailableError):
                if attempt + 1 == TRIES:
                    raise
                self._sleep(0.3 * 2**attempt)

    def _path(self, name: str = "") -> str:
        return path(API_VERSION, "workflows", self.namespace, name)

    def _found(self, name: str) -> Json | None:
        return self.api.find(self._path(name))

    def _own(self, found: Json | None, ours: str, error: ConflictError) -> Json:
        if found is not None and (found["metadata"].get("labels") or {}).get(SUBMISSION) == ours:
            return found
        raise error

    def _pods(self, name: str) -> dict[str, Json]:
        """The workflow's pods by the id of their node."""
        listed = self.api.get(path("v1", "pods", self.namespace), {"labelSelector": f"{WORKFLOW_LABEL}={name}"})
        pods: list[Json] = listed.get("items") or []
        return {(each["metadata"].get("annotations") or {}).get(NODE_ANNOTATION, ""): each for each in pods}

    def _warning(self, pod: Json) -> str:
        """The last warning about a pod: of a volume that is not there, say. '' where there is none."""
        chosen = {"fieldSelector": f"involvedObject.uid={pod['metadata']['uid']},type=Warning"}
        events: list[Json] = self.api.get(path("v1", "events", self.namespace), chosen).get("items") or []
        events.sort(key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")
        return f"{events[-1].get('reason')}: {events[-1].get('message')}" if events else ""

    def _explained(self, error: AbsentError, kind: str, name: str) -> EkibenError:
        if any(text in error.seen for text in _NO_SUCH_RESOURCE):
            return UsageError(
                f"{self.api.server} does not know Argo's {kind}",
                wanted="Argo Workflows 4, with its custom resource definitions",
                next_step="install Argo Workflows there, or correct `context` in pyproject.toml",
            )
        known = f"ekiben workflow apply {name}" if kind == "WorkflowTemplate" else "is it the right environment?"
        return NotFoundError(f"no {kind} {name} in {self.where}", next_step=known)


def _reason(pod: Json) -> str:
    """Why it does not run yet; '' for one that runs or has run."""
    status = pod.get("status") or {}
    if status.get("phase") not in (None, "", "Pending"):
        return ""
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in ("PodInitializing", "ContainerCreating"):
            return ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
    for each in status.get("conditions") or ():
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return ": ".join(filter(None, (each.get("reason"), each.get("message"))))
    return ""
