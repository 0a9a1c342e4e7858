"""Why a colour is not ready yet: from its pods, as a phrase; and whether waiting on makes sense."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ekiben.platforms.kubernetes.state import sizes
from ekiben.platforms.manifests.names import Manifest

CRASHES = 2  # restarts after which a pod is said to crash again and again
_IMAGE = {
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
    *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
}
_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_FROM_OUTSIDE = (0, 137, 143)  # exit codes of a container that the kubelet ends, as for a failed startup probe
HASH = "pod-template-hash"


@dataclass(frozen=True)
class Wait:
    """`reason`: what holds it up; `hopeless`: time alone does not mend it; `crashed`: the pod and container whose log
    tells more; `quiet`: the pod whose status tells nothing, so that its events may; `mend`: what would."""

    reason: str
    hopeless: bool = False
    crashed: tuple[str, str] | None = None
    quiet: str = ""
    mend: str = "mend that and deploy again"


def progress(deployment: Manifest) -> str:
    """How far it is: "2 of 3 ready"."""
    size = sizes(deployment)
    ready = min(size.updated, size.available) if size.settled else 0
    return f"{ready} of {size.wanted} ready"


def waits(deployment: Manifest, pods: Sequence[Manifest]) -> Wait:
    """The gravest of what its pods wait for."""
    there = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    newest = {_hash(pod) for pod in there if not _failed(pod)}
    found = [wait for pod in there if (not newest or _hash(pod) in newest) and (wait := _pod(pod))]
    conditions = {each["type"]: each for each in (deployment.get("status") or {}).get("conditions") or ()}
    failure = conditions.get("ReplicaFailure")
    if failure and failure["status"] == "True":
        found.append(_uncreated(failure.get("message", "")))
    late = conditions.get("Progressing")
    if late and late["status"] == "False" and not any(wait.hopeless for wait in found):
        first = found[0] if found else Wait(late.get("message", ""))
        found.append(replace(first, reason=f"it made no progress in time: {first.reason}", hopeless=True))
    return max(
        found,
        key=lambda wait: (wait.hopeless, wait.crashed is not None, not wait.quiet),
        default=Wait("its pods are starting"),
    )


def _uncreated(said: str) -> Wait:
    mend = "correct the settings, or ask the administrator"
    if "exceeded quota" in said:
        mend = "raise the ResourceQuota, or ask for less"
    elif "failed quota" in said and "limits.cpu" in said:
        mend = "set resources.cpu_limit of the environment: the ResourceQuota wants it"
    return Wait(f"its pods cannot be created: {said}", hopeless=True, mend=mend)


def _pod(pod: Manifest) -> Wait | None:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if _failed(pod):  # evicted, or refused by its node; another one takes its place
        said = ": ".join(filter(None, (status.get("reason"), status.get("message")))) or "failed"
        return Wait(f"{name} was ended by its node: {said}", mend="correct resources of the environment")
    if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()):
        return None
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            mend = "free or add nodes, or correct resources, node_selector or tolerations of the environment"
            return Wait(f"no node takes {name}: {condition.get('message', '')}", mend=mend)
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        if wait := _container(name, container):
            return wait
    return Wait(f"{name} is starting", quiet=name)


def _container(pod: str, container: Manifest) -> Wait | None:
    state = container.get("state") or {}
    waiting, restarts = state.get("waiting") or {}, container.get("restartCount", 0)
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE:
        mend = "is the image pushed, and its registry's Secret in image_pull_secrets?"
        if reason == "ErrImageNeverPull":
            mend = "load it into every node, or have nodes pull it: image_pull_policy"
        return Wait(f"{pod} cannot pull {container['image']}: {message or reason}", hopeless=True, mend=mend)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if reason in _START and not restarts:
        return Wait(f"{pod} cannot start {container['name']}: {message or reason}", hopeless=True)
    if reason != "CrashLoopBackOff" and not restarts and not ended.get("exitCode"):
        return None
    how = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"
    how += f": {ended['message'].strip()[:500]}" if ended.get("message") else ""
    mend = Wait.mend
    if ended.get("reason") == "OOMKilled":
        mend = "raise resources.memory of the environment"
    elif ended.get("exitCode") in _FROM_OUTSIDE:
        mend = "if it needs longer to become ready, raise start_seconds of the environment; else mend what its log says"
    said = f"{container['name']} in {pod} crashed {restarts or 1} times ({how})"
    return Wait(said, hopeless=restarts >= CRASHES, crashed=(pod, container["name"]), mend=mend)


def _failed(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") == "Failed"


def _hash(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get(HASH, ""))
