"""Where the heavy steps of a workflow run, and on what: the environment's settings as patches of their pods. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from ekiben.environments import Environment, Step, Toleration


@dataclass(frozen=True)
class Placement:
    """Patches (Argo's podSpecPatch, JSON) for each step; `…_again` is for the attempt after its node was lost."""

    train: str
    train_again: str
    load_test: str
    load_test_again: str


def of(settings: Environment) -> Placement:
    train, load_test = settings.train, settings.load_test
    return Placement(_patch(train, True), _patch(train, False), _patch(load_test, True), _patch(load_test, False))


def _patch(step: Step, spot: bool) -> str:
    requests: dict[str, Any] = {"cpu": step.cpu, "memory": step.memory}
    limits: dict[str, Any] = {"memory": step.memory}
    selector, tolerations = dict(step.node_selector), [*step.tolerations]
    if spot and step.spot:
        selector |= step.spot.node_selector
        tolerations += step.spot.tolerations
    if step.gpu:
        requests[step.gpu_resource] = limits[step.gpu_resource] = str(step.gpu)
        tolerations.append(Toleration(key=step.gpu_resource, effect="NoSchedule"))  # as cluster set-ups taint GPU nodes
    patch = {
        "containers": [{"name": "main", "resources": {"requests": requests, "limits": limits}}],
        "nodeSelector": selector,
        "tolerations": [{"operator": each.operator, **each.model_dump(exclude_defaults=True)} for each in tolerations],
    }
    return json.dumps({key: value for key, value in patch.items() if value}, sort_keys=True, separators=(",", ":"))
