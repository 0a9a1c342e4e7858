"""What the pods of every workflow on a cluster have in common: image, secrets, confinement, what is tried again.

The pods need the project at the image's working directory, and its `.ekiben` writable for user 10001.
"""

from typing import Any

from hera.workflows import Env, Resources, SecretEnv, script
from hera.workflows import models as m

IMAGE = "{{workflow.parameters.image}}"
WANDB = [
    SecretEnv(name="WANDB_API_KEY", secret_name="ekiben-wandb", secret_key="api-key"),
    SecretEnv(name="WANDB_BASE_URL", secret_name="ekiben-wandb", secret_key="base-url", optional=True),
]
HOME = Env(name="HOME", value="/tmp")

# A lost spot node is an Error; 4 and 6 are the exit codes of what did not answer or was changed meanwhile
# (ekiben.errors). A verdict that is not PASS is never asked for again.
AGAIN = m.RetryStrategy(
    limit=2,
    retry_policy="Always",
    expression='lastRetry.status == "Error" || lastRetry.exitCode in ["4", "6"]',
    backoff=m.Backoff(duration="10s", factor=2, max_duration="5m"),
)
CONFINED = m.SecurityContext(allow_privilege_escalation=False, capabilities=m.Capabilities(drop=["ALL"]))


PODS: dict[str, Any] = {
    "security_context": m.PodSecurityContext(
        run_as_non_root=True,
        run_as_user=10001,
        run_as_group=10001,
        fs_group=10001,
        seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
    ),
    "pod_gc": m.PodGC(strategy="OnPodSuccess"),
    "ttl_strategy": m.TTLStrategy(seconds_after_success=86400, seconds_after_failure=604800),
}


def step(account: str, cpu: str = "500m", memory: str = "1Gi", *, wandb: bool = True, **more: Any) -> Any:
    return script(
        constructor="runner",
        image=IMAGE,
        env=[*(WANDB if wandb else ()), HOME, *more.pop("env", [])],
        service_account_name=account,
        resources=Resources(cpu_request=cpu, memory_request=memory, memory_limit=memory),
        retry_strategy=more.pop("retry_strategy", AGAIN),
        security_context=CONFINED,
        **more,
    )
