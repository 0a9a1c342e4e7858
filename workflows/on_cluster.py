"""What the pods of every workflow on a cluster have in common: image, secrets, confinement, what is tried again.

The pods need the project at the image's working directory. They write nowhere but to /tmp.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hera.workflows import EmptyDirVolume, Env, Parameter, Resources, SecretEnv, SecretVolume, script
from hera.workflows import models as m

IMAGE = "{{workflow.parameters.image}}"
RECIPE = "{{workflow.parameters.recipe}}"
# The client may write to none of its usual places.
FOLDERS = {"DIR": "", "CACHE_DIR": "/cache", "DATA_DIR": "/data", "CONFIG_DIR": "/config", "ARTIFACT_DIR": "/artifacts"}
WANDB = [
    SecretEnv(name="WANDB_API_KEY", secret_name="ekiben-wandb", secret_key="api-key"),
    SecretEnv(name="WANDB_BASE_URL", secret_name="ekiben-wandb", secret_key="base-url", optional=True),
]
PLACES = [
    *(Env(name=f"WANDB_{name}", value=f"/tmp/wandb{folder}") for name, folder in FOLDERS.items()),
    Env(name="HOME", value="/tmp"),
    Env(name="PYTHONDONTWRITEBYTECODE", value="1"),
]
PUSHES = SecretVolume(
    name="registry",
    secret_name="ekiben-registry",  # of the type that Kubernetes pulls images with
    mount_path="/tmp/.docker",
    optional=True,
    items=[m.KeyToPath(key=".dockerconfigjson", path="config.json")],
)
"""What a step has that pushes an image: the registry's credentials, where there are some, below HOME."""

# How an attempt ends whose node was taken away: an Error where its pod is simply gone or its helpers were cut off;
# Failed where the kubelet or the scheduler said why; 143 is SIGTERM, 64 Argo's own wrapper. A deadline ends a step with
# SIGTERM as well, and is no reason to try again. https://argo-workflows.readthedocs.io/en/latest/retries/
LOST = (
    "(lastRetry.status == 'Error' || lastRetry.exitCode in ['64', '143']"
    " || lastRetry.message matches 'node shutdown|pod deleted|low on resource|[Pp]reempt')"
    " && !(lastRetry.message matches 'deadline')"
)
# 4 and 6 are the exit codes of what did not answer or was changed meanwhile (ekiben.errors). A verdict that is not PASS
# is never asked for again. No maxDuration: it counts from the first attempt's start, so that a training of an hour,
# when its node is lost, would never begin again.
AGAIN = m.RetryStrategy(
    limit=2,
    retry_policy="Always",
    expression=f"{LOST} || lastRetry.exitCode in ['4', '6']",
    backoff=m.Backoff(duration="10s", factor=2, cap="5m"),
)
CONFINED = m.SecurityContext(
    allow_privilege_escalation=False, read_only_root_filesystem=True, capabilities=m.Capabilities(drop=["ALL"])
)

PODS: dict[str, Any] = {
    "security_context": m.PodSecurityContext(
        run_as_non_root=True,
        run_as_user=10001,
        run_as_group=10001,
        fs_group=10001,
        seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
    ),
    # By default a pod and its log are gone 5 s after its end: too soon for who reads along.
    "pod_gc": m.PodGC(strategy="OnPodSuccess", delete_delay_duration="2m"),
    "ttl_strategy": m.TTLStrategy(seconds_after_success=86400, seconds_after_failure=604800),
}
LABELS = ("recipe", "environment")
"""Parameters by which runs can be found: kubectl get workflows -l ekiben.dev/recipe=digits"""
PROJECT_IMAGE = Parameter(name="image", value="ekiben-pipeline:latest", description="Image that holds this project")


def step(
    account: str,
    cpu: str = "500m",
    memory: str = "1Gi",
    *,
    deadline: int | None = 900,
    retry: m.RetryStrategy | None = AGAIN,
    pod: str = "",
    recipe: str = RECIPE,
    tracked: bool = True,
    labels: Mapping[str, str] | None = None,
    env: Sequence[Any] = (),
    volumes: Sequence[Any] = (),
    confined: m.SecurityContext = CONFINED,
    **more: Any,
) -> Callable[[Any], Any]:
    """A step: its account, what it asks for, and its deadline in s. `pod` names outputs of the workflow that say where
    it runs (see `placed`); `labels` are those of its pods beside the recipe. Only what is `tracked` gets W&B's key."""

    def made(function: Any) -> Any:
        name = function.__name__.replace("_", "-")
        known = {"ekiben.dev/recipe": recipe} if recipe else {}
        return script(
            constructor="runner",
            image=IMAGE,
            image_pull_policy="IfNotPresent",
            env=[*(WANDB if tracked else ()), *PLACES, *env],
            service_account_name=account,
            resources=Resources(cpu_request=cpu, memory_request=memory, memory_limit=memory),
            active_deadline_seconds=deadline,
            retry_strategy=retry,
            security_context=confined,
            volumes=[EmptyDirVolume(name="tmp", mount_path="/tmp"), *volumes],
            labels={**known, "ekiben.dev/step": name, **(labels or {})},
            metrics=measured("step", name, recipe, "{{status}}", "{{duration}}"),
            **({"pod_spec_patch": placed(pod)} if pod else {}),
            **more,
        )(function)

    return made


def placed(pod: str) -> str:
    """What the workflow's first step found in the settings, as `pod`; after a lost node, what it found as `pod`-again.

    Only what is the workflow's own can stand beside lastRetry: Argo fills in a template's inputs before it, and apart.
    """
    there = "workflow.outputs.parameters"
    return f"{{{{={LOST} ? {there}['{pod}-again'] : {there}['{pod}']}}}}"


def measured(kind: str, name: str, recipe: str, status: str, seconds: str) -> m.Prometheus:
    """How long and, as its _count by status, how often: argo_workflows_ekiben_step_seconds and …_run_seconds. By names
    of which there are few, never by run."""
    labels = {kind: name, "recipe": recipe, "status": status}
    return m.Prometheus(
        name=f"ekiben_{kind}_seconds",
        help=f"How long a {kind} took",
        labels=[m.MetricLabel(key=key, value=value) for key, value in labels.items()],
        histogram=m.Histogram(
            buckets=[m.Amount(each) for each in (5, 15, 60, 300, 900, 3600, 14400, 43200)], value=seconds
        ),
    )


def whole(name: str, recipe: str = RECIPE) -> dict[str, Any]:
    """What a workflow has, whatever its steps are."""
    told = {f"ekiben.dev/{key}": m.LabelValueFrom(expression=f"workflow.parameters.{key}") for key in LABELS}
    return {
        **PODS,
        "name": name,
        "metrics": measured("run", name, recipe, "{{workflow.status}}", "{{workflow.duration}}"),
        **({"workflow_metadata": m.WorkflowMetadata(labels_from=told)} if recipe else {}),
    }
