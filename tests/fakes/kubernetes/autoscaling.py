"""The HorizontalPodAutoscaler controller (pkg/controller/podautoscaler), by metrics that a test injects."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.managers import Manager
from tests.fakes.kubernetes.objects import going
from tests.fakes.kubernetes.schema import quantity

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

Json = dict[str, Any]
PERIOD = 15.0
TOLERANCE = 0.1
SOURCE = "horizontal-pod-autoscaler"


class Autoscaler:
    """`metrics` gives the current average per pod of an autoscaler's metric, by the autoscaler's name: in percent of
    the request for a target of type Utilization, else in the metric's unit. Without one nothing is known. A callable
    is asked with the autoscaler and its target at every sync."""

    def __init__(self, controllers: "Controllers") -> None:
        self.controllers, self.cluster = controllers, controllers.cluster
        self.store, self.clock = controllers.store, controllers.clock
        self.resource = self.cluster.resource("horizontalpodautoscalers")
        self.metrics: dict[str, float | Callable[[Json, Json], float | None]] = {}
        self._due: dict[str, float] = {}
        self._wanted: dict[str, list[tuple[float, int]]] = {}  # recommendations, for the stabilisation windows
        self._sizes: dict[str, list[tuple[float, int]]] = {}  # sizes after changes, for the policies

    def reconcile(self) -> None:
        for each in self.store.every(self.resource.key):
            uid = each["metadata"]["uid"]
            if going(each) or self.clock.seconds < self._due.get(uid, 0.0):
                continue
            self._due[uid] = self.clock.seconds + PERIOD
            self.controllers.again(self._due[uid])
            self._sync(each)

    def _sync(self, each: Json) -> None:
        at, reference = each["metadata"], each["spec"]["scaleTargetRef"]
        target = self._target(at["namespace"], reference)
        if target is None:
            kind, name = reference["kind"], reference["name"]
            why = f'{kind.lower()}s.apps "{name}" not found'
            text = f"the HPA controller was unable to get the target's current scale: {why}"
            self._status(each, 0, 0, [("AbleToScale", False, "FailedGetScale", text)])
            return
        current, spec = target["spec"]["replicas"], each["spec"]
        able = ("AbleToScale", True, "ReadyForNewScale", "recommended size matches current size")
        if current == 0:
            text = "scaling is disabled since the replica count of the target is zero"
            self._status(each, 0, 0, [able, ("ScalingActive", False, "ScalingDisabled", text)])
            return
        within = ("ScalingLimited", False, "DesiredWithinRange", "the desired count is within the acceptable range")
        conditions = [able]
        if current > spec["maxReplicas"]:
            wanted = spec["maxReplicas"]
        elif current < spec["minReplicas"]:
            wanted = spec["minReplicas"]
        else:
            proposed = self._proposed(each, current)
            if proposed is None:
                text = "the HPA was unable to compute the replica count: no metrics returned"
                self._status(each, current, current, [able, ("ScalingActive", False, "FailedGetResourceMetric", text)])
                return
            conditions.append(
                ("ScalingActive", True, "ValidMetricFound", "the HPA was able to compute the replica count")
            )
            wanted, limited = self._limited(each, current, proposed)
            conditions.append(limited or within)
        if wanted != current:
            text = f"the HPA controller was able to update the target scale to {wanted}"
            conditions[0] = ("AbleToScale", True, "SucceededRescale", text)
            self._rescale(each, target, wanted)
        self._status(each, current, wanted, conditions, rescaled=wanted != current)

    def _target(self, namespace: str, reference: Json) -> Json | None:
        plurals = {"Deployment": "deployments", "ReplicaSet": "replicasets"}
        return self.store.get(("apps", plurals.get(reference["kind"], "")), namespace, reference["name"])

    def _rescale(self, each: Json, target: Json, wanted: int) -> None:
        current = target["spec"]["replicas"]
        resource = self.cluster.resource(f"{target['kind'].lower()}s")
        manager = Manager("kube-controller-manager", "Update", "apps/v1", "scale")
        changed = {**target, "spec": {**target["spec"], "replicas": wanted}}
        self.cluster.writer.update(resource, target, changed, manager, "scale")
        why = "All metrics below target" if wanted < current else "resource utilization above target"
        self.controllers.event(each, "Normal", "SuccessfulRescale", f"New size: {wanted}; reason: {why}", SOURCE)
        self._sizes.setdefault(each["metadata"]["uid"], []).append((self.clock.seconds, current))

    def _proposed(self, each: Json, current: int) -> int | None:
        """The most that any metric asks for; None where none is known."""
        proposals = []
        for metric in each["spec"]["metrics"]:
            target = metric[metric["type"][0].lower() + metric["type"][1:]]["target"]
            source = self.metrics.get(each["metadata"]["name"])
            value = source(each, target) if callable(source) else source
            if value is None:
                continue
            goal = float(target.get("averageUtilization") or quantity(target.get("averageValue") or target["value"]))
            ratio = value / goal
            proposals.append(current if abs(ratio - 1) <= TOLERANCE else math.ceil(current * ratio))
        return max(proposals) if proposals else None

    def _limited(self, each: Json, current: int, proposed: int) -> tuple[int, tuple[str, bool, str, str] | None]:
        uid, spec, now = each["metadata"]["uid"], each["spec"], self.clock.seconds
        behavior = spec.get("behavior", {})
        up, down = behavior.get("scaleUp", {}), behavior.get("scaleDown", {})
        history = self._wanted.setdefault(uid, [])
        history.append((now, proposed))
        up_window, down_window = (up.get("stabilizationWindowSeconds", 0), down.get("stabilizationWindowSeconds", 300))
        recent_up = min(n for when, n in history if when >= now - up_window)
        recent_down = max(n for when, n in history if when >= now - down_window)
        self._wanted[uid] = [(when, n) for when, n in history if when >= now - max(up_window, down_window)]
        wanted = current
        wanted = max(wanted, recent_up) if recent_up > wanted else wanted
        wanted = recent_down if recent_down < wanted else wanted
        if wanted > current:
            policies = up.get("policies") or [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]
            limits = [self._reach(uid, current, each, 1) for each in policies]
            most = min(limits) if up.get("selectPolicy") == "Min" else max(limits)
            wanted = min(wanted, current if up.get("selectPolicy") == "Disabled" else most)
        elif wanted < current:
            policies = down.get("policies") or [{"type": "Percent", "value": 100, "periodSeconds": 15}]
            limits = [self._reach(uid, current, each, -1) for each in policies]
            least = max(limits) if down.get("selectPolicy") == "Min" else min(limits)
            wanted = max(wanted, current if down.get("selectPolicy") == "Disabled" else least)
        if wanted > spec["maxReplicas"]:
            text = "the desired replica count is more than the maximum replica count"
            return spec["maxReplicas"], ("ScalingLimited", True, "TooManyReplicas", text)
        if wanted < spec["minReplicas"]:
            text = "the desired replica count is less than the minimum replica count"
            return spec["minReplicas"], ("ScalingLimited", True, "TooFewReplicas", text)
        return wanted, None

    def _reach(self, uid: str, current: int, policy: Json, way: int) -> int:
        """How far a policy lets the size go: from its value at the period's start."""
        since = self.clock.seconds - policy["periodSeconds"]
        start = next((size for when, size in self._sizes.get(uid, ()) if when > since), current)
        if policy["type"] == "Pods":
            return int(start + way * policy["value"])
        scaled = start * (1 + way * policy["value"] / 100)
        return math.ceil(scaled) if way > 0 else math.floor(scaled)

    def _status(
        self,
        each: Json,
        current: int,
        wanted: int,
        conditions: list[tuple[str, bool, str, str]],
        rescaled: bool = False,
    ) -> None:
        old = each.get("status") or {}
        known = {entry["type"]: entry for entry in old.get("conditions", ())}
        made = []
        for kind, good, reason, message in conditions:
            before = known.get(kind)
            since = before["lastTransitionTime"] if before and before["status"] == str(good) else self.clock.stamp()
            made.append(
                {
                    "type": kind,
                    "status": str(good),
                    "lastTransitionTime": since,
                    "reason": reason,
                    "message": message,
                }
            )
        status: Json = {"desiredReplicas": wanted, "currentMetrics": None, "conditions": made}
        if current:
            status["currentReplicas"] = current
        scaled = self.clock.stamp() if rescaled else old.get("lastScaleTime")
        if scaled:
            status["lastScaleTime"] = scaled
        if status != old:
            self.store.put(self.resource, {**each, "status": status})
