"""Argo's workflow controller on the fake API server: it takes workflows up, makes pods of their steps and keeps their
node statuses, as far as a client sees. What a step does is told to `behave`, or really done by what is given to `work`;
the kubelet decides whether it starts.

It does: DAGs with `depends` and `when`, retries by `expression`, memoized pods, suspend nodes with supplied values and
a deadline, locks on templates, onExit, shutdown, suspension, references to templates, packed node statuses, podGC and
ttlStrategy.
"""

import copy
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.fakes.argo import nodes
from tests.fakes.argo.operation import GROUP, LABEL, VERSION, Operation
from tests.fakes.kubernetes.clock import EPOCH
from tests.fakes.kubernetes.clock import seconds as since
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.faults import Answer
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.routing import Router

Json = dict[str, Any]
RESOURCES = tuple(
    # Argo's CRDs of 4.1 have no status subresource: statuses are written with the object itself.
    Resource(GROUP, VERSION, plural, kind, True, (), (short,), custom=True, generation=True)
    for plural, kind, short in (
        ("workflows", "Workflow", "wf"),
        ("workflowtemplates", "WorkflowTemplate", "wftmpl"),
        ("cronworkflows", "CronWorkflow", "cwf"),
        ("workfloweventbindings", "WorkflowEventBinding", "wfeb"),
    )
)


def cluster() -> Cluster:
    """A cluster with Argo's custom resources, but no controller yet."""
    made = Cluster()
    made.served += RESOURCES
    made.router = Router(made.served)
    return made


@dataclass(frozen=True)
class Conduct:
    """What a step's pod does once it runs: ends after so many seconds, `fails` times badly."""

    seconds: float = 1.0
    exit_code: int = 0
    fails: int = 10_000
    outputs: dict[str, str] = field(default_factory=dict)
    message: str = ""
    log: str = ""  # written line by line, spread over its seconds
    exit_parameter: str = ""  # its exit code is this parameter of the workflow


@dataclass(frozen=True)
class Done:
    """How a step ended that was really carried out."""

    exit_code: int
    outputs: dict[str, str]


Work = Callable[[Json, dict[str, str], str, Callable[[str], None]], Done]
"""Carries out a step: its template, its inputs, the workflow's name, and what takes each line that it writes -> how it
ended. Runs in a thread."""


class Controller:
    """`packs`: node statuses are packed, as those of large workflows are."""

    def __init__(self, cluster: Cluster, packs: bool = False) -> None:
        self.cluster, self.packs = cluster, packs
        self.workflows, self.pods = cluster.resource("workflows"), cluster.resource("pods")
        self.store, self.clock = cluster.store, cluster.clock
        self.locks: dict[str, str] = {}  # name of a mutex -> id of the node that has it
        self.attempts: dict[str, int] = {}
        self.memory: dict[str, Json] = {}  # cache and key -> outputs: the ConfigMaps of memoize
        self.archived: dict[str, str] = {}  # by node: its log, where Argo keeps it
        self.work: Work | None = None
        self._conduct: dict[str, Conduct] = {}
        self._working: dict[str, Future[Done]] = {}
        self._written: dict[str, list[tuple[float, str]]] = {}  # by node: when, and the line
        self._condemned: list[tuple[float, Resource, Json]] = []  # when it is deleted, and what
        self._pool = ThreadPoolExecutor(8)
        cluster.controllers._all = (*cluster.controllers._all, self)
        self._plain_log, cluster.kubelet.log = cluster.kubelet.log, self._log  # type: ignore[method-assign]

    def behave(self, template: str, **conduct: Any) -> None:
        """Steps of this template act so from now on."""
        self._conduct[template] = Conduct(**conduct)

    def done(self, node: Json, template: Json, workflow: str) -> Done | None:
        """How the node's work ended; None while it goes on."""
        if node["id"] not in self._working:
            assert self.work
            inputs = {each["name"]: each["value"] for each in node.get("inputs", {}).get("parameters", ())}
            written = self._written.setdefault(node["id"], [])

            def say(line: str) -> None:
                written.append((self.clock.seconds, line))

            self._working[node["id"]] = self._pool.submit(_worked, self.work, template, inputs, workflow, say)
        found = self._working[node["id"]]
        return found.result() if found.done() else None

    def _log(self, pod: Json, params: dict[str, str]) -> Answer:
        """What a step's pod has written so far, with time stamps where they are asked for."""
        answer = self._plain_log(pod, params)  # refuses what has not started
        template = pod["metadata"].get("annotations", {}).get(f"{LABEL}/template")
        if template is None or params.get("container") != "main":
            return answer
        if self.work:
            entries = self._written.get(pod["metadata"]["annotations"][f"{LABEL}/node-id"], [])
        else:
            entries = self._scripted(pod, self.conduct(template))
        stamped = []
        for at, line in entries:
            if at <= self.clock.seconds and at >= since(params.get("sinceTime", "2026-01-01T00:00:00Z")):
                moment = (EPOCH + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
                stamped.append(f"{moment} {line}" if params.get("timestamps") == "true" else line)
        if params.get("tailLines"):
            stamped = stamped[-int(params["tailLines"]) :]
        return Answer(200, "".join(f"{line}\n" for line in stamped), {"Content-Type": "text/plain"})

    def _scripted(self, pod: Json, conduct: Conduct) -> list[tuple[float, str]]:
        state = pod["status"]["containerStatuses"][0]["state"]
        begun = since((state.get("running") or state["terminated"])["startedAt"])
        lines = conduct.log.splitlines()
        return [(begun + conduct.seconds * number / len(lines), line) for number, line in enumerate(lines)]

    def archive(self, workflow: str, template: str, text: str, namespace: str = "default") -> None:
        """As archiveLogs does: the log is an artifact of the step, which the Argo Server has."""
        made = copy.deepcopy(self.store.get(self.workflows.key, namespace, workflow))
        kept = made["status"].get("nodes") or nodes.unpacked(made["status"].pop("compressedNodes"))
        for node in kept.values():
            if node["templateName"] == template:
                node.setdefault("outputs", {})["artifacts"] = [{"name": "main-logs", "s3": {"key": f"{workflow}/log"}}]
                self.archived[node["id"]] = text
        made["status"]["nodes"] = kept
        self.store.put(self.workflows, made)

    def condemn(self, resource: Resource, thing: Json, delay: float) -> None:
        """Deletes it so many seconds later."""
        self._condemned.append((self.clock.seconds + delay, resource, thing))
        self.cluster.controllers.again(self.clock.seconds + delay)

    def reconcile(self) -> None:
        due = [each for each in self._condemned if each[0] <= self.clock.seconds]
        self._condemned = [each for each in self._condemned if each not in due]
        for _, resource, thing in due:
            there = self.store.get(resource.key, thing["metadata"]["namespace"], thing["metadata"]["name"])
            if there and there["metadata"]["uid"] == thing["metadata"]["uid"]:
                self.cluster.writer.delete(resource, there, {"propagationPolicy": "Background"})
        for workflow in self.store.every(self.workflows.key):
            if workflow["metadata"].get("labels", {}).get(f"{LABEL}/completed") != "true":
                made = copy.deepcopy(workflow)
                Operation(self, made).run()
                if made != workflow:
                    self.store.put(self.workflows, made)

    def conduct(self, template: str) -> Conduct:
        return self._conduct.get(template, Conduct())


def _worked(work: Work, template: Json, inputs: dict[str, str], workflow: str, say: Callable[[str], None]) -> Done:
    try:
        return work(template, inputs, workflow, say)
    except Exception:  # or time would stop in the cluster, and every test wait for its end
        for line in traceback.format_exc().splitlines():
            say(line)
        return Done(255, {})
