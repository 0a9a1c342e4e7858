"""The two ways to Argo behind one interface: Kubernetes' API, which is always there, and the Argo Server's."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

from ekiben.pipeline.argo.documents import INSTANCE
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


def instance(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The labels by which the controller of ARGO_INSTANCEID finds what it is to take up; none where it is not set, as
    for Argo's own command."""
    chosen = given.get("ARGO_INSTANCEID")
    return {INSTANCE: chosen} if chosen else {}


def connect(context: str = "", namespace: str = "") -> Client:
    """By ARGO_SERVER where it is set, as Argo's own command has it; else by the kubeconfig's context ('' for the
    current one). The namespace is ARGO_NAMESPACE or the context's own where none is given."""
    if os.environ.get("ARGO_SERVER"):
        from ekiben.pipeline.argo.server import Server

        return Server.configured(namespace)
    from ekiben.pipeline.argo.cluster import Cluster
    from ekiben.platforms.kubernetes.api import Api
    from ekiben.platforms.kubernetes.kubeconfig import configured

    config = configured(context)
    return Cluster(Api(config), namespace or config.namespace or "default")
