"""What is asked of Argo, whichever way leads to it."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

from ekiben.pipeline.argo.status import Status, Step

Json = dict[str, Any]
Shutdown = Literal["Stop", "Terminate"]


class Client(Protocol):
    """All that is asked of Argo. Every request has a time-out; errors are EkibenErrors."""

    namespace: str
    where: str
    """Where that is, in words."""

    def create(self, workflow: Json) -> Json:
        """The workflow as it was created. What fails without an answer is tried again: the name tells whether it was
        created all the same. ConflictError for a name that another submission has."""

    def get(self, name: str) -> Json:
        """NotFoundError where there is none."""

    def template(self, name: str) -> Json:
        """The WorkflowTemplate. NotFoundError where there is none."""

    def watch(self, status: Status, seconds: int) -> Iterator[Json]:
        """The workflow's states after `status`, for at most so long; it may end early, and says nothing of why."""

    def reasons(self, name: str) -> Mapping[str, str]:
        """Why pods of the workflow do not run, by node id: what the nodes' own messages leave out."""

    def log(self, status: Status, step: Step, tail: int | None, since: str) -> list[tuple[str, str]]:
        """Time stamps and lines of a step's pods, oldest first; of what was written at `since` or later, where the
        server can tell. NotFoundError where its pods are gone."""

    def resume_step(self, name: str, step: Step, outputs: Mapping[str, str], message: str) -> None:
        """Ends a suspended step well, with these outputs and its defaults. ConflictError if it waits no longer."""

    def unsuspend(self, name: str) -> None:
        """Takes back the suspension of the whole workflow."""

    def shut_down(self, name: str, how: Shutdown) -> None:
        """Stop lets exit handlers run, Terminate does not."""

    def annotate(self, name: str, key: str, value: str, instead_of: str | None) -> bool:
        """Notes something on the workflow, in place of what the caller saw there (None: nothing). ConflictError where
        there is something else; False where this way cannot write it."""
