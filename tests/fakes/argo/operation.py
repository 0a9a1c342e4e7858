"""One pass of Argo's controller over one workflow: node statuses, pods, locks, the end."""

import copy
from typing import TYPE_CHECKING, Any

from tests.fakes.argo import nodes
from tests.fakes.kubernetes.clock import seconds as since
from tests.fakes.kubernetes.statuses import ApiFailure

if TYPE_CHECKING:
    from tests.fakes.argo.controller import Controller

Json = dict[str, Any]
GROUP, VERSION = "argoproj.io", "v1alpha1"
LABEL = "workflows.argoproj.io"


class Operation:
    """One pass over one workflow, which it changes."""

    def __init__(self, controller: "Controller", workflow: Json) -> None:
        self.of, self.workflow, self.clock = controller, workflow, controller.clock
        self.name, self.namespace = workflow["metadata"]["name"], workflow["metadata"]["namespace"]
        self.status: Json = workflow.setdefault("status", {})
        if self.status.get("compressedNodes") and not self.status.get("nodes"):
            self.nodes: Json = nodes.unpacked(self.status.pop("compressedNodes"))
        else:
            self.nodes = self.status.setdefault("nodes", {})

    def run(self) -> None:
        if not self.status.get("phase"):
            self._phase("Running")
            self.status["startedAt"] = self.clock.stamp()
        spec = self._spec()
        if spec is None:
            return
        self.spec = spec
        self.templates = {each["name"]: each for each in spec.get("templates", ())}
        given = {e["name"]: e for e in self.workflow["spec"].get("arguments", {}).get("parameters", ())}
        known = {e["name"]: e for e in spec.get("arguments", {}).get("parameters", ())} | given
        self.scope = {f"workflow.parameters.{name}": str(e.get("value", "")) for name, e in known.items()}
        self.scope |= {"workflow.name": self.name, "workflow.namespace": self.namespace}
        if not self._locked(spec):
            return
        shutdown = self.workflow["spec"].get("shutdown", "")
        if shutdown:
            self._shut_down(shutdown)
        if self.workflow["spec"].get("suspend"):
            self._pack()
            return
        root = self._node(self.name) if shutdown else self._execute(self.name, spec["entrypoint"], {}, "")
        if (root is not None and root["phase"] in nodes.ENDED) or (shutdown and root is None):
            self.scope["workflow.status"] = root["phase"] if root else "Failed"
            handler = spec.get("onExit") if shutdown != "Terminate" else None
            ended = self._execute(f"{self.name}.onExit", handler, {}, "") if handler else {"phase": "Succeeded"}
            if ended["phase"] in nodes.ENDED:
                bad = ended["phase"] in nodes.BAD
                self._phase(ended["phase"] if bad else root["phase"] if root else "Failed")
                message = ended.get("message") if bad else root and root.get("message")
                if shutdown:
                    message = f"Stopped with strategy '{shutdown}'"
                if message:
                    self.status["message"] = message
                self.status["finishedAt"] = self.clock.stamp()
                self.workflow["metadata"].setdefault("labels", {})[f"{LABEL}/completed"] = "true"
                self._clear_away()
                self.of.locks = {
                    key: holder for key, holder in self.of.locks.items() if holder != f"workflow {self.name}"
                }
        self._pack()

    def _clear_away(self) -> None:
        """As podGC and ttlStrategy have it, of a workflow that is over."""
        good = self.status["phase"] == "Succeeded"
        ttl, strategy = self.spec.get("ttlStrategy") or {}, (self.spec.get("podGC") or {}).get("strategy", "")
        after = ttl.get("secondsAfterSuccess" if good else "secondsAfterFailure", ttl.get("secondsAfterCompletion"))
        if after is not None:
            self.of.condemn(self.of.workflows, self.workflow, after)
        if strategy == "OnWorkflowCompletion" or (strategy == "OnWorkflowSuccess" and good):
            for pod in self.of.store.ordered(self.of.pods.key, self.namespace):
                if pod["metadata"].get("labels", {}).get(f"{LABEL}/workflow") == self.name:
                    self.of.condemn(self.of.pods, pod, self._pod_delay())

    def _pod_delay(self) -> float:
        return float(str((self.spec.get("podGC") or {}).get("deleteDelayDuration", "5s")).rstrip("s"))

    def _locked(self, spec: Json) -> bool:
        """Whether the workflow has its own locks; without one it is Pending, and says for which it waits."""
        for each in (spec.get("synchronization") or {}).get("mutexes", ()):
            key = f"{self.namespace}/Mutex/{each['name']}"
            if self.of.locks.setdefault(each["name"], f"workflow {self.name}") != f"workflow {self.name}":
                self._phase("Pending")
                self.status["message"] = f"Waiting for {key} lock. Lock status: 0/1"
                self.status["synchronization"] = {"mutex": {"waiting": [{"mutex": key}]}}
                return False
            if self.status["phase"] == "Pending":
                self._phase("Running")
                self.status.pop("message", None)
            self.status["synchronization"] = {"mutex": {"holding": [{"mutex": key, "holder": self.name}]}}
        return True

    def _pack(self) -> None:
        if self.of.packs and self.nodes:
            self.status.pop("nodes", None)
            self.status["compressedNodes"] = nodes.packed(self.nodes)

    def _phase(self, phase: str) -> None:
        self.status["phase"] = phase
        self.workflow["metadata"].setdefault("labels", {})[f"{LABEL}/phase"] = phase

    def _spec(self) -> Json | None:
        reference = self.workflow["spec"].get("workflowTemplateRef")
        if not reference:
            return self.workflow["spec"]
        stored = self.status.get("storedWorkflowTemplateSpec")
        if stored is None:
            key = (GROUP, "workflowtemplates")
            found = self.of.store.get(key, self.namespace, reference["name"])
            if found is None:
                self._phase("Error")
                self.status["message"] = f'workflowtemplates.argoproj.io "{reference["name"]}" not found'
                self.status["finishedAt"] = self.clock.stamp()
                self.workflow["metadata"]["labels"][f"{LABEL}/completed"] = "true"
                return None
            stored = self.status["storedWorkflowTemplateSpec"] = copy.deepcopy(found["spec"])
        return stored

    def _node(self, name: str) -> Json | None:
        found: Json | None = self.nodes.get(nodes.node_id(self.name, name))
        return found

    def _new(self, name: str, kind: str, template: str, boundary: str, phase: str, **more: Any) -> Json:
        made = {
            "id": nodes.node_id(self.name, name),
            "name": name,
            "displayName": name.rpartition(".")[2],
            "type": kind,
            "templateName": template.rpartition("/")[2],
            "templateScope": f"local/{self.name}",
            "phase": phase,
            "startedAt": self.clock.stamp(),
            "finishedAt": self.clock.stamp() if phase in nodes.ENDED else None,
            **({"boundaryID": boundary} if boundary else {}),
            **more,
        }
        self.nodes[made["id"]] = made
        return made

    def _end(self, node: Json, phase: str, message: str = "") -> Json:
        node |= {"phase": phase, "finishedAt": self.clock.stamp(), **({"message": message} if message else {})}
        for lock, holder in list(self.of.locks.items()):
            if holder == node["id"]:
                del self.of.locks[lock]
        return node

    def _execute(self, name: str, called: str, arguments: dict[str, str], boundary: str) -> Json:
        template = self._template(called)
        inputs = [
            {**each, "value": arguments.get(each["name"], each.get("default", ""))}
            for each in template.get("inputs", {}).get("parameters", ())
        ]
        scope = self.scope | {f"inputs.parameters.{each['name']}": each["value"] for each in inputs}
        node = self._node(name)
        if node and node["phase"] in nodes.ENDED:
            return node
        if waiting := self._waits(name, node, template, boundary, scope):
            return waiting
        if "dag" in template:
            node = node or self._new(name, "DAG", called, boundary, "Running")
            node["phase"] = "Running"
            node.pop("unlocked", None)
            return self._dag(node, template["dag"], scope, called.rpartition("/")[0])
        outputs = copy.deepcopy(template.get("outputs", {}))
        more: Json = {"inputs": {"parameters": inputs}} if inputs else {}
        if "suspend" in template:
            if outputs:
                more["outputs"] = outputs
            node = node or self._new(name, "Suspend", called, boundary, "Running", **more)
            return self._suspended(node, template["suspend"])
        memory = self._memory(template, scope)
        if memory in self.of.memory and node is None:
            kept = {"hit": True, "key": memory.partition("/")[2], "cacheName": memory.partition("/")[0]}
            more |= {"outputs": self.of.memory[memory], "memoizationStatus": kept}
            return self._new(name, "Retry", called, boundary, "Succeeded", **more)
        retry = template.get("retryStrategy")
        if retry is None:
            return self._pod(name, template, boundary, more, scope)
        node = node or self._new(name, "Retry", called, boundary, "Running", **more)
        node["phase"] = "Running"
        node.pop("unlocked", None)
        why = "No more retries left"
        for attempt in range(int(retry.get("limit", 10_000)) + 1):
            last = self._pod(f"{name}({attempt})", template, boundary, more, scope)
            if last["id"] not in node.setdefault("children", []):
                node["children"].append(last["id"])
            if last["phase"] not in nodes.BAD:
                break
            if not nodes.again(retry.get("expression", ""), last):
                why = "retryStrategy.expression evaluated to false"
                break
        if last["phase"] in nodes.ENDED:
            node["outputs"] = last.get("outputs", {})
            message = why if last["phase"] in nodes.BAD else ""
            if memory and last["phase"] == "Succeeded":
                self.of.memory[memory] = last.get("outputs", {})
            self._end(node, last["phase"], message)
        return node

    def _template(self, called: str) -> Json:
        """`NAME` of this workflow, or `TEMPLATE/NAME` of a WorkflowTemplate that a templateRef names."""
        other, _, name = called.rpartition("/")
        if not other:
            found: Json = self.templates[name]
            return found
        there = self.of.store.get((GROUP, "workflowtemplates"), self.namespace, other)
        return next(each for each in there["spec"]["templates"] if each["name"] == name)

    def _memory(self, template: Json, scope: dict[str, str]) -> str:
        memoize = template.get("memoize")
        if not memoize:
            return ""
        return f"{memoize['cache']['configMap']['name']}/{nodes.filled(memoize['key'], scope)}"

    def _waits(self, name: str, node: Json | None, template: Json, boundary: str, scope: dict[str, str]) -> Json | None:
        """The node, Pending, while another holds its lock. It has its final type, and nothing in it yet."""
        identity = nodes.node_id(self.name, name)
        for each in (template.get("synchronization") or {}).get("mutexes", ()):
            lock = nodes.filled(each["name"], scope)
            if self.of.locks.setdefault(lock, identity) != identity:
                kind = "Retry" if "retryStrategy" in template else "DAG" if "dag" in template else "Pod"
                node = node or self._new(name, kind, template["name"], boundary, "Pending")
                key = f"{self.namespace}/Mutex/{lock}"
                message = f"Waiting for {key} lock. Lock status: 0/1"
                return node | _into(node, {"message": message, "synchronizationStatus": {"waiting": key}})
            if node and node.pop("synchronizationStatus", None):
                node.pop("message", None)
                node["unlocked"] = True
        return None

    def _dag(self, node: Json, dag: Json, scope: dict[str, str], owner: str) -> Json:
        phases: dict[str, str] = {}
        waits = {t["name"]: t.get("depends") or " && ".join(t.get("dependencies", ())) for t in dag["tasks"]}
        for task in sorted(dag["tasks"], key=lambda t: _depth(t["name"], waits)):
            name = f"{node['name']}.{task['name']}"
            found = self._node(name)
            if not found or found["phase"] not in nodes.ENDED:
                called = _called(task, owner)
                may = nodes.depends(waits[task["name"]], phases) if waits[task["name"]] else True
                if may is None:
                    continue
                given = task.get("arguments", {}).get("parameters", ())
                arguments = {each["name"]: nodes.filled(str(each.get("value", "")), scope) for each in given}
                if not may:
                    message = "omitted: depends condition not met"
                    found = self._new(name, "Skipped", called, node["id"], "Omitted", message=message)
                elif not nodes.when(condition := nodes.filled(task.get("when", ""), scope)):
                    message = f"when '{condition}' evaluated false"
                    found = self._new(name, "Skipped", called, node["id"], "Skipped", message=message)
                else:
                    found = self._execute(name, called, arguments, node["id"])
            phases[task["name"]] = found["phase"]
            for each in found.get("outputs", {}).get("parameters", ()):
                scope[f"tasks.{task['name']}.outputs.parameters.{each['name']}"] = str(each.get("value", ""))
        if all(phases.get(name) in nodes.ENDED for name in waits):
            used = {name for text in waits.values() for name in _named(text, waits)}
            bad = [name for name in waits if name not in used and _branch_failed(name, phases, waits)]
            self._end(node, "Failed" if bad else "Succeeded")
        return node

    def _suspended(self, node: Json, suspend: Json) -> Json:
        limit = suspend.get("duration")
        if limit is None:
            return node
        length = float(str(limit).rstrip("smh")) * {"m": 60, "h": 3600}.get(str(limit)[-1], 1)
        over = since(node["startedAt"]) + length
        if self.clock.seconds < over:
            self.of.cluster.controllers.again(over)
            return node
        for each in node.get("outputs", {}).get("parameters", ()):
            source = each.get("valueFrom") or {}
            if "supplied" in source and "default" not in source:
                name = each["name"]
                return self._end(
                    node, "Error", f"raw output parameter '{name}' has not been set and does not have a default value"
                )
            if "supplied" in source:
                each["value"] = source["default"]
                del each["valueFrom"]
        return self._end(node, "Succeeded")

    def _pod(self, name: str, template: Json, boundary: str, more: Json, scope: dict[str, str]) -> Json:
        node = self._node(name)
        if node and node["phase"] in nodes.ENDED:
            return node
        if node is None or node.pop("unlocked", False):
            node = node or self._new(name, "Pod", template["name"], boundary, "Pending", **more)
            return self._make_pod(node, template, scope)
        pod = self.of.store.get(self.of.pods.key, self.namespace, self._pod_name(node))
        if pod is None:
            return self._end(node, "Error", "pod deleted")
        return self._observed(node, pod, template)

    def _pod_name(self, node: Json) -> str:
        return nodes.pod_name(self.name, node["name"], node["templateName"])

    def _make_pod(self, node: Json, template: Json, scope: dict[str, str]) -> Json:
        """Refused by admission the node ends, but for a quota that is used up: then it waits for room."""
        body = template.get("script") or template.get("container") or {}
        image = nodes.filled(body.get("image", "none"), scope)
        taken = {key: body[key] for key in ("resources", "securityContext", "imagePullPolicy") if body.get(key)}
        owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Workflow", "controller": True, "blockOwnerDeletion": True}
        of_pod = {key: self.spec[key] for key in ("securityContext",) if self.spec.get(key)}
        account = template.get("serviceAccountName") or self.spec.get("serviceAccountName")
        executor = "quay.example/argoexec:v4.1.2"  # its containers name neither resources nor a security context
        try:
            self.of.cluster.create(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": self._pod_name(node),
                        "ownerReferences": [owner | {"name": self.name, "uid": self.workflow["metadata"]["uid"]}],
                        "labels": {f"{LABEL}/workflow": self.name, f"{LABEL}/completed": "false"},
                        "annotations": {
                            f"{LABEL}/node-id": node["id"],
                            f"{LABEL}/node-name": node["name"],
                            f"{LABEL}/template": node["templateName"],
                        },
                    },
                    "spec": {
                        "restartPolicy": "Never",
                        "initContainers": [{"name": "init", "image": executor}],
                        "containers": [{"name": "main", "image": image, **taken}, {"name": "wait", "image": executor}],
                        **of_pod,
                        **({"serviceAccountName": account} if account else {}),
                    },
                },
                self.namespace,
            )
        except ApiFailure as failure:
            if "exceeded quota" in str(failure.message):
                node["unlocked"] = True
                self.of.cluster.controllers.again(self.clock.seconds + 10)
                return node | _into(node, {"message": failure.message})
            return self._end(node, "Error", failure.message)
        return node

    def _observed(self, node: Json, pod: Json, template: Json) -> Json:
        status = pod["status"]
        if status["phase"] == "Pending":
            reason = _pending_reason(status)
            return node | _into(node, {"phase": "Pending", **({"message": reason} if reason else {})})
        node.pop("message", None)
        if self.of.work:
            return self._worked(node, pod, template)
        conduct = self.of.conduct(template["name"])
        started = status["containerStatuses"][0]["state"].get("running", {}).get("startedAt")
        over = since(started or self.clock.stamp()) + conduct.seconds
        if self.clock.seconds < over:
            self.of.cluster.controllers.again(over)
            return node | _into(node, {"phase": "Running", "podIP": status.get("podIP", "")})
        tries = self.of.attempts[template["name"]] = self.of.attempts.get(template["name"], 0) + 1
        code = conduct.exit_code if tries <= conduct.fails else 0
        if conduct.exit_parameter:
            code = int(self.scope[f"workflow.parameters.{conduct.exit_parameter}"])
        return self._ended(node, pod, template, code, conduct.outputs, conduct.message)

    def _worked(self, node: Json, pod: Json, template: Json) -> Json:
        """A pod whose step is really carried out."""
        done = self.of.done(node, template, self.name)
        if done is None:
            self.of.cluster.controllers.again(self.clock.seconds + 1)
            return node | _into(node, {"phase": "Running", "podIP": pod["status"].get("podIP", "")})
        return self._ended(node, pod, template, done.exit_code, done.outputs, "")

    def _ended(self, node: Json, pod: Json, template: Json, code: int, produced: dict[str, str], message: str) -> Json:
        state = pod["status"]["containerStatuses"][0]["state"]
        self._terminate(pod, code, (state.get("running") or {}).get("startedAt") or self.clock.stamp())
        strategy = (self.spec.get("podGC") or {}).get("strategy", "")
        if strategy == "OnPodCompletion" or (strategy == "OnPodSuccess" and not code):
            self.of.condemn(self.of.pods, pod, self._pod_delay())
        outputs: Json = {"exitCode": str(code)}
        if declared := template.get("outputs", {}).get("parameters"):
            outputs["parameters"] = [
                {"name": each["name"], "value": produced.get(each["name"], ""), "valueFrom": each.get("valueFrom")}
                for each in declared
            ]
        node["outputs"] = outputs
        if code:
            return self._end(node, "Failed", message or f"Error (exit code {code})")
        return self._end(node, "Succeeded")

    def _terminate(self, pod: Json, code: int, started: str) -> None:
        ended = {
            "terminated": {
                "exitCode": code,
                "reason": "Error" if code else "Completed",
                "startedAt": started,
                "finishedAt": self.clock.stamp(),
            }
        }
        containers = [{**each, "state": ended, "ready": False} for each in pod["status"]["containerStatuses"]]
        status = {**pod["status"], "phase": "Failed" if code else "Succeeded", "containerStatuses": containers}
        self.of.store.put(self.of.pods, {**pod, "status": status})

    def _shut_down(self, strategy: str) -> None:
        for node in self.nodes.values():
            if node["phase"] in nodes.ENDED or (strategy == "Stop" and ".onExit" in node["name"]):
                continue
            text = f"workflow shutdown with strategy: {strategy}"
            if node["type"] == "Suspend":
                text = f"Stopped with strategy '{strategy}'"
            self._end(node, "Failed", text if node["type"] in ("Pod", "Suspend") else "")


def _into(node: Json, changes: Json) -> Json:
    node |= changes
    return node


def _called(task: Json, owner: str) -> str:
    """What a task calls; what a template of another workflow calls by name is that other's, too."""
    if reference := task.get("templateRef"):
        return f"{reference['name']}/{reference['template']}"
    return f"{owner}/{task['template']}" if owner else str(task["template"])


def _named(expression: str, known: dict[str, str]) -> set[str]:
    return {match[1] for match in nodes._ATOM.finditer(expression)} & set(known)


def _depth(name: str, waits: dict[str, str]) -> int:
    return 1 + max((_depth(each, waits) for each in _named(waits[name], waits)), default=0)


def _branch_failed(name: str, phases: dict[str, str], waits: dict[str, str]) -> bool:
    """A task that was left out passes on what was before it; one that ran says how its branch ends."""
    if phases[name] in nodes.BAD:
        return True
    if phases[name] == "Succeeded":
        return False
    return any(_branch_failed(each, phases, waits) for each in _named(waits[name], waits))


def _pending_reason(status: Json) -> str:
    """As the controller words it: of the containers, not of the init containers; then of the scheduler."""
    for each in status.get("containerStatuses", ()):
        waiting = each["state"].get("waiting")
        if waiting:
            return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    for each in status.get("conditions", ()):
        if each.get("reason") == "Unschedulable":
            return f"Unschedulable: {each['message']}"
    return ""
