"""The scheduler and the kubelets: pods start, become ready, fail and end as their plan says, on the virtual clock."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.clock import seconds
from tests.fakes.kubernetes.faults import Answer
from tests.fakes.kubernetes.objects import condition, going
from tests.fakes.kubernetes.statuses import bad_request

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

Json = dict[str, Any]
NODE = "node-1"
# What a pod answers through the API server's proxy: method, path with query, headers, body -> status, headers, body.
Handler = Callable[[str, str, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]


@dataclass(frozen=True)
class Plan:
    """What becomes of a pod. Times are virtual seconds."""

    start_s: float = 1.0  # from creation until its containers run
    ready_s: float = 1.0  # from there until the readiness probe passes
    never_ready: bool = False
    exit_s: float = 0.1  # from SIGTERM until the process has ended
    unschedulable: str = ""  # why no node takes it: "1 Insufficient nvidia.com/gpu"
    pull_error: str = ""  # what the container runtime says of the image
    stuck: tuple[str, str] | None = None  # reason and message for which its first container, init or not, never starts
    init_exit_code: int | None = None  # its init container ends with this code, each time
    crash_after_s: float | None = None  # the process ends so long after each start …
    exit_code: int = 1  # … with this code
    log: str | Callable[[Json], str] = ""  # what the process has written when it is asked, or when it crashed
    backend: Callable[[Json], str | Handler] | None = None  # called when the pod runs; a base URL or a handler
    stopped: Callable[[Json], None] | None = None  # called when the pod gets SIGTERM


@dataclass
class _State:
    plan: Plan
    backend: str | Handler | None = None
    previous: str | None = None  # the log of the container before this one
    restarts: int = 0
    ending: bool = False
    phase: str = "new"  # new, pending, pulling, running, waiting
    pulls: int = 0


@dataclass
class _Rule:
    match: Callable[[Json], bool]
    plan: Plan = field(default_factory=Plan)


class Kubelet:
    def __init__(self, controllers: "Controllers") -> None:
        self.controllers, self.cluster = controllers, controllers.cluster
        self.store, self.clock = controllers.store, controllers.clock
        self.resource = self.cluster.resource("pods")
        self._rules = [_Rule(lambda pod: True)]
        self._states: dict[str, _State] = {}
        self._addresses = 0

    def behave(self, match: str | Callable[[Json], bool] = "", **plan: Any) -> None:
        """Pods that match (a predicate, or a regular expression searched in an image) get this Plan from now on; later
        rules win. Pods that wait for a node or an image are looked at anew."""
        test = match if callable(match) else _image(match)
        self._rules.append(_Rule(test, Plan(**plan)))
        for pod in self.store.every(self.resource.key):
            state = self._states.get(pod["metadata"]["uid"])
            if state and state.phase in ("pending", "pulling") and test(pod):
                state.plan, state.phase = self._rules[-1].plan, "new"
                self.controllers.wake()

    def set_ready(self, name: str, ready: bool, namespace: str = "default") -> None:
        """The readiness probe of a running pod passes or fails from now on."""
        pod = self._pod(name, namespace)
        self._condition(pod, ready)

    def crash(self, name: str, namespace: str = "default", exit_code: int = 137) -> None:
        """The process of a running pod ends now; the kubelet restarts it after its back-off."""
        pod = self._pod(name, namespace)
        state = self._states[pod["metadata"]["uid"]]
        self._crashed(pod["metadata"]["uid"], state, state.restarts, exit_code)

    def backend(self, pod: Json) -> str | Handler | None:
        """What answers for a pod that runs."""
        state = self._states.get(pod["metadata"]["uid"])
        return state.backend if state else None

    def _pod(self, name: str, namespace: str) -> Json:
        return self.cluster.writer.must(self.resource, namespace, name)

    def log(self, pod: Json, params: dict[str, str]) -> Answer:
        """GET pods/NAME/log."""
        names = [each["name"] for each in pod["spec"]["containers"]]
        container, name = params.get("container") or names[0], pod["metadata"]["name"]
        inits = [each["name"] for each in pod["spec"].get("initContainers", ())]
        if not params.get("container") and len(names) > 1:
            raise bad_request(
                f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
                + (f" or one of the init containers: [{' '.join(inits)}]" if inits else "")
            )
        if container not in names + inits:
            raise bad_request(f"container {container} is not valid for pod {name}")
        state = self._states.get(pod["metadata"]["uid"])
        if params.get("previous") in ("true", "1"):
            if state is None or state.previous is None:
                raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
            text = state.previous
        elif state is None or state.phase not in ("running", "waiting"):
            waiting = next(iter(pod["status"].get("containerStatuses", ())), {}).get("state", {}).get("waiting", {})
            why = waiting.get("reason", "ContainerCreating")
            if why in ("ErrImagePull", "ImagePullBackOff"):
                why = "trying and failing to pull image" if why == "ImagePullBackOff" else "image can't be pulled"
            raise bad_request(f'container "{container}" in pod "{name}" is waiting to start: {why}')
        else:
            text = _written(state.plan, pod)
        if params.get("tailLines"):
            lines = text.splitlines(keepends=True)
            text = "".join(lines[max(0, len(lines) - int(params["tailLines"])) :])
        if params.get("limitBytes"):
            text = text.encode()[: int(params["limitBytes"])].decode(errors="ignore")
        return Answer(200, text, {"Content-Type": "text/plain"})

    def reconcile(self) -> None:
        for pod in self.store.every(self.resource.key):
            uid = pod["metadata"]["uid"]
            state = self._states.get(uid)
            if state is None:
                plan = next(rule.plan for rule in reversed(self._rules) if rule.match(pod))
                state = self._states[uid] = _State(plan)
            if going(pod):
                self._end(pod, state)
            elif state.phase == "new":
                self._place(pod, state)

    def _now(self, uid: str, state: _State) -> Json | None:
        """The pod as it is now, unless it has gone or is going."""
        if state.ending:
            return None
        return next((each for each in self.store.every(self.resource.key) if each["metadata"]["uid"] == uid), None)

    def _place(self, pod: Json, state: _State) -> None:
        plan, uid = state.plan, pod["metadata"]["uid"]
        if plan.unschedulable:
            state.phase = "pending"
            message = f"0/1 nodes are available: {plan.unschedulable}. preemption: 0/1 nodes are available: 1 No " + (
                "preemption victims found for incoming pod."
            )
            placed = self._new("PodScheduled", False, "Unschedulable", message)
            self._put(pod, {**pod["status"], "conditions": [placed]})
            self.controllers.event(pod, "Warning", "FailedScheduling", message, "default-scheduler")
            return
        state.phase = "pulling" if plan.pull_error else "starting"
        at = pod["metadata"]
        text = f"Successfully assigned {at['namespace']}/{at['name']} to {NODE}"
        self.controllers.event(pod, "Normal", "Scheduled", text, "default-scheduler")
        pod = {**pod, "spec": {**pod["spec"], "nodeName": NODE}}
        not_ready = ("ContainersNotReady", f"containers with unready status: [{' '.join(_names(pod))}]")
        conditions = [
            self._new("PodReadyToStartContainers", False),
            self._new("Initialized", True),
            self._new("Ready", False, *not_ready),
            self._new("ContainersReady", False, *not_ready),
            self._new("PodScheduled", True),
        ]
        status = {**pod["status"], "hostIP": "192.0.2.1", "startTime": self.clock.stamp(), "conditions": conditions}
        self._put(pod, {**status, "containerStatuses": _waiting(pod, "ContainerCreating", "", 0)})
        what = self._pull if plan.pull_error else self._run
        self.controllers.after(plan.start_s, lambda: what(uid, state))

    def _pull(self, uid: str, state: _State) -> None:
        """An image that cannot be pulled: ErrImagePull at each try, ImagePullBackOff between them."""
        pod = self._now(uid, state)
        if pod is None or state.phase != "pulling":
            return
        image = pod["spec"]["containers"][0]["image"]
        if not state.plan.pull_error:
            self._run(uid, state)
            return
        if pod["spec"]["containers"][0]["imagePullPolicy"] == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            self._put(pod, {**pod["status"], "containerStatuses": _waiting(pod, "ErrImageNeverPull", message, 0)})
            self.controllers.event(pod, "Warning", "ErrImageNeverPull", message, "kubelet")
            self.controllers.event(pod, "Warning", "Failed", "Error: ErrImageNeverPull", "kubelet")
            return
        state.pulls += 1
        if state.pulls % 2:
            message = f'failed to pull and unpack image "{image}": {state.plan.pull_error}'
            self._put(pod, {**pod["status"], "containerStatuses": _waiting(pod, "ErrImagePull", message, 0)})
            self.controllers.event(pod, "Warning", "Failed", f'Failed to pull image "{image}": {message}', "kubelet")
            self.controllers.event(pod, "Warning", "Failed", "Error: ErrImagePull", "kubelet")
            self.controllers.after(1.0, lambda: self._pull(uid, state))
            return
        message = f'Back-off pulling image "{image}": ErrImagePull: {state.plan.pull_error}'
        self._put(pod, {**pod["status"], "containerStatuses": _waiting(pod, "ImagePullBackOff", message, 0)})
        self.controllers.event(pod, "Normal", "BackOff", f'Back-off pulling image "{image}"', "kubelet")
        self.controllers.event(pod, "Warning", "Failed", "Error: ImagePullBackOff", "kubelet")
        self.controllers.after(min(10 * 2 ** (state.pulls // 2 - 1), 300), lambda: self._pull(uid, state))

    def _run(self, uid: str, state: _State) -> None:
        pod = self._now(uid, state)
        if pod is None or state.phase == "running":
            return
        if state.plan.stuck or (state.plan.init_exit_code is not None and pod["spec"].get("initContainers")):
            self._held_up(pod, uid, state)
            return
        state.phase = "running"
        status = pod["status"]
        if "podIP" not in status:
            self._addresses += 1
            address = f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"
            status = {**status, "podIP": address, "podIPs": [{"ip": address}]}
        last = next(iter(status.get("containerStatuses", ())), {}).get("lastState", {})
        containers = [
            {
                "name": each["name"],
                "state": {"running": {"startedAt": self.clock.stamp()}},
                "lastState": last,
                "ready": False,
                "restartCount": state.restarts,
                "image": each["image"],
                "imageID": f"sha256:{sha256(each['image'].encode()).hexdigest()}",
                "containerID": f"containerd://{self.cluster.writer.uid().replace('-', '')}",
                "started": True,
            }
            for each in pod["spec"]["containers"]
        ]
        pod = self._put(pod, {**status, "phase": "Running", "containerStatuses": containers})
        for each in pod["spec"]["containers"]:
            self.controllers.event(pod, "Normal", "Started", f"Started container {each['name']}", "kubelet")
        plan = state.plan
        if plan.backend and state.backend is None:
            state.backend = plan.backend(pod)
        restarts = state.restarts
        if not plan.never_ready:
            self.controllers.after(plan.ready_s, lambda: self._prepared(uid, state, restarts))
        if plan.crash_after_s is not None:
            self.controllers.after(plan.crash_after_s, lambda: self._crashed(uid, state, restarts, plan.exit_code))

    def _held_up(self, pod: Json, uid: str, state: _State) -> None:
        """A first container that cannot be started, or an init container that fails again and again."""
        plan, inits = state.plan, pod["spec"].get("initContainers")
        if plan.stuck:
            held = _waiting(pod, *plan.stuck, 0, inits)
        else:
            state.phase, state.previous = "waiting", _written(plan, pod)
            state.restarts += 1
            wait = min(10 * 2 ** (state.restarts - 1), 300)
            ended = {"terminated": {"exitCode": plan.init_exit_code, "reason": "Error"}}
            why = f"back-off {_duration(wait)} restarting failed container={inits[0]['name']}"
            held = _waiting(pod, "CrashLoopBackOff", why, state.restarts, inits)
            held = [{**each, "lastState": ended} for each in held]
            self.controllers.after(wait, lambda: self._run(uid, state))
        self._put(pod, {**pod["status"], "initContainerStatuses" if inits else "containerStatuses": held})

    def _prepared(self, uid: str, state: _State, restarts: int) -> None:
        pod = self._now(uid, state)
        if pod is not None and state.phase == "running" and state.restarts == restarts:
            self._condition(pod, True)

    def _condition(self, pod: Json, good: bool) -> None:
        why = () if good else ("ContainersNotReady", f"containers with unready status: [{' '.join(_names(pod))}]")
        known = condition(pod, "Ready")
        if known and known["status"] == str(good):
            return
        conditions = [
            self._new(each["type"], good, *why) if each["type"] in ("Ready", "ContainersReady") else each
            for each in pod["status"]["conditions"]
        ]
        containers = [{**each, "ready": good} for each in pod["status"]["containerStatuses"]]
        self._put(pod, {**pod["status"], "conditions": conditions, "containerStatuses": containers})

    def _crashed(self, uid: str, state: _State, restarts: int, exit_code: int) -> None:
        pod = self._now(uid, state)
        if pod is None or state.phase != "running" or state.restarts != restarts:
            return
        state.phase, state.previous = "waiting", _written(state.plan, pod)
        state.restarts += 1
        self._condition(pod, False)
        pod = self._now(uid, state)
        assert pod is not None
        now = self.clock.stamp()
        started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        ended = {
            "terminated": {
                "exitCode": exit_code,
                "reason": "OOMKilled" if exit_code == 137 else "Error" if exit_code else "Completed",
                "startedAt": started,
                "finishedAt": now,
            }
        }
        wait = min(10 * 2 ** (state.restarts - 1), 300)
        name = pod["spec"]["containers"][0]["name"]
        where = f"pod={pod['metadata']['name']}_{pod['metadata']['namespace']}({uid})"
        message = f"back-off {_duration(wait)} restarting failed container={name} {where}"
        containers = [
            {**each, "lastState": ended} for each in _waiting(pod, "CrashLoopBackOff", message, state.restarts)
        ]
        pod = self._put(pod, {**pod["status"], "containerStatuses": containers})
        text = f"Back-off restarting failed container {name} in pod {pod['metadata']['name']}"
        self.controllers.event(pod, "Warning", "BackOff", text, "kubelet")
        self.controllers.after(wait, lambda: self._run(uid, state))

    def _end(self, pod: Json, state: _State) -> None:
        """Termination: the preStop sleep, SIGTERM, the process's end; at the end of the grace period SIGKILL."""
        uid = pod["metadata"]["uid"]
        deadline = seconds(pod["metadata"]["deletionTimestamp"])
        if state.ending:
            return
        state.ending = True
        hooks = [each.get("lifecycle", {}).get("preStop", {}) for each in pod["spec"]["containers"]]
        pause = max((hook.get("sleep", {}).get("seconds", 0) for hook in hooks), default=0)
        running = state.phase == "running"
        grace = max(0.0, deadline - self.clock.seconds) if deadline > self.clock.seconds else 0.0
        term = self.clock.seconds + (min(pause, grace) if running else 0.0)
        end = min(term + (state.plan.exit_s if running else 0.0), max(deadline, term))

        def terminate() -> None:
            if state.plan.stopped and state.backend is not None:
                state.plan.stopped(pod)
            self.controllers.at(end, lambda: self._gone(uid))

        self.controllers.at(term, terminate)

    def _gone(self, uid: str) -> None:
        for each in self.store.every(self.resource.key):
            if each["metadata"]["uid"] == uid and not each["metadata"].get("finalizers"):
                self.store.remove(self.resource, each)
                self._states.pop(uid, None)

    def _new(self, kind: str, good: bool, reason: str = "", message: str = "") -> Json:
        made = {"type": kind, "status": str(good), "lastProbeTime": None, "lastTransitionTime": self.clock.stamp()}
        return {**made, **({"reason": reason, "message": message} if reason else {})}

    def _put(self, pod: Json, status: Json) -> Json:
        observed = pod["metadata"].get("generation", 1)
        return self.store.put(self.resource, {**pod, "status": {**status, "observedGeneration": observed}})


def _written(plan: Plan, pod: Json) -> str:
    return plan.log(pod) if callable(plan.log) else plan.log


def _names(pod: Json) -> list[str]:
    return [each["name"] for each in pod["spec"]["containers"]]


def _waiting(pod: Json, reason: str, message: str, restarts: int, of: list[Json] | None = None) -> list[Json]:
    waiting = {"reason": reason, **({"message": message} if message else {})}
    return [
        {
            "name": each["name"],
            "state": {"waiting": waiting},
            "lastState": {},
            "ready": False,
            "restartCount": restarts,
            "image": each["image"],
            "imageID": "",
            "started": False,
        }
        for each in of or pod["spec"]["containers"]
    ]


def _image(pattern: str) -> Callable[[Json], bool]:
    return lambda pod: any(re.search(pattern, each.get("image", "")) for each in pod["spec"]["containers"])


def _duration(amount: int) -> str:
    return f"{amount // 60}m{amount % 60}s" if amount >= 60 else f"{amount}s"
