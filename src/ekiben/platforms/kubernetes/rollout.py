"""Why a colour is not ready yet: from its pods, as a phrase; and whether waiting on makes sense."""

from collections.abc import Sequence
from dataclasses import dataclass

from ekiben.platforms.kubernetes.state import sizes
from ekiben.platforms.manifests.names import Manifest

CRASHES = 2  # restarts after which a pod is said to crash again and again


@dataclass(frozen=True)
class Wait:
    """`reason`: what holds it up; `hopeless`: time alone does not mend it; `crashed`: the pod and container whose log
    tells more; `mend`: what would."""

    reason: str
    hopeless: bool = False
    crashed: tuple[str, str] | None = None
    mend: str = "mend that and deploy again"


def progress(deployment: Manifest) -> str:
    """How far it is: "2 of 3 ready"."""
    size = sizes(deployment)
    ready = min(size.updated, size.available) if size.settled else 0
    return f"{ready} of {size.wanted} ready"


def waits(deployment: Manifest, pods: Sequence[Manifest]) -> Wait:
    """The gravest of what its pods wait for."""
    found = [wait for pod in pods if "deletionTimestamp" not in pod["metadata"] and (wait := _pod(pod))]
    conditions = {each["type"]: each for each in (deployment.get("status") or {}).get("conditions") or ()}
    failure = conditions.get("ReplicaFailure")
    if failure and failure["status"] == "True":
        said = failure.get("message", "")
        room = "quota" in said
        mend = "raise the ResourceQuota, or ask for less" if room else "correct the settings, or ask the administrator"
        if "must specify" in said:  # a quota of limits takes no pod without
            mend = "set resources.cpu_limit of the environment, or have a LimitRange set it"
        found.append(Wait(f"its pods cannot be created: {said}", hopeless=True, mend=mend))
    late = conditions.get("Progressing")
    if late and late["status"] == "False" and not any(wait.hopeless for wait in found):
        why = "; ".join(wait.reason for wait in found[:1]) or late.get("message", "")
        mend = found[0].mend if found else Wait.mend
        found.append(Wait(f"it made no progress in time: {why}", hopeless=True, mend=mend))
    return max(found, key=lambda wait: (wait.hopeless, wait.crashed is not None), default=Wait("its pods are starting"))


def _pod(pod: Manifest) -> Wait | None:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            mend = "free or add nodes, or correct resources, node_selector or tolerations of the environment"
            return Wait(f"no node takes {name}: {condition.get('message', '')}", mend=mend)
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            mend = "is the image pushed, and its registry's Secret in image_pull_secrets?"
            if reason == "ErrImageNeverPull":
                mend = "load it into every node, or have nodes pull it: image_pull_policy"
            return Wait(f"{name} cannot pull {container['image']}: {message or reason}", hopeless=True, mend=mend)
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            return Wait(f"{name} cannot start {container['name']}: {message or reason}", hopeless=True)
        restarts = container.get("restartCount", 0)
        if reason == "CrashLoopBackOff" or restarts:
            ended = (container.get("lastState") or {}).get("terminated") or {}
            how = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"
            said = f"{container['name']} in {name} crashed {restarts} times ({how})"
            mend = "raise resources.memory of the environment" if "OOMKilled" in how else Wait.mend
            return Wait(said, hopeless=restarts >= CRASHES, crashed=(name, container["name"]), mend=mend)
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return None if ready else Wait(f"{name} is starting")
