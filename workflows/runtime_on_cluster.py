"""The runtime image of a recipe, made in the cluster: the packages of its lock, to which releases append their Bentos.

It is needed when the packages change, not for each release. It alone runs commands in an image, by Buildah without a
daemon: as root in its own container, which may change nothing but users and groups, and without the seccomp profile
that keeps Buildah from a user namespace. So the namespace may enforce the baseline profile, not the restricted one;
there, make the image elsewhere: ekiben image RECIPE --runtime --push. The pipeline's image must hold buildah, and ids
for it: `root:100000:65536` in /etc/subuid and /etc/subgid.
"""

# No `from __future__ import annotations` here: Hera reads the annotations themselves and fails on strings.
from typing import Annotated, Any

from hera.workflows import DAG, EmptyDirVolume, Env, Input, Output, Parameter, WorkflowTemplate
from hera.workflows import models as m

from workflows.on_cluster import PROJECT_IMAGE, PUSHES, RECIPE, step, whole

BUILDER: dict[str, Any] = {
    "pod_security_context": m.PodSecurityContext(run_as_non_root=False, run_as_user=0, run_as_group=0),
    "confined": m.SecurityContext(
        allow_privilege_escalation=False,
        capabilities=m.Capabilities(drop=["ALL"], add=["SETUID", "SETGID", "SETFCAP"]),
    ),
    "env": [
        Env(name="BUILDAH_ISOLATION", value="chroot"),
        Env(name="STORAGE_DRIVER", value="vfs"),
        Env(name="TMPDIR", value="/tmp"),
    ],
    "volumes": [PUSHES, EmptyDirVolume(name="storage", mount_path="/var/lib/containers")],
}


class BuildIn(Input):
    recipe: str
    environment: str
    repository: str


class BuildOut(Output):
    image: Annotated[str, Parameter(name="image", global_name="runtime-image", description="Its name, and tag")]
    digest: Annotated[str, Parameter(name="digest", global_name="runtime-digest", description="As the registry has it")]


@step("ekiben-build", cpu="2", memory="4Gi", deadline=3600, tracked=False, **BUILDER)
def build(given: BuildIn) -> BuildOut:
    from ekiben.pipeline import cluster

    with cluster.told():
        made = cluster.runtime(given.recipe, given.environment, given.repository)
    return BuildOut(image=made.image, digest=made.digest, result=f"{made.image} is {made.digest}")


def define(cls: type = WorkflowTemplate, **overrides: Any) -> Any:
    settings: dict[str, Any] = {
        **whole("runtime-on-cluster"),
        "entrypoint": "main",
        "service_account_name": "ekiben-build",
        "active_deadline_seconds": 14400,
        "arguments": [
            Parameter(name="recipe", value="digits", description="Recipe: the folder below bentos/"),
            Parameter(name="environment", value="staging", description="[tool.ekiben.environments.ENV]"),
            Parameter(name="repository", value="", description="Of its Bentos' images; empty: by the settings"),
            PROJECT_IMAGE,
        ],
        **overrides,
    }
    with cls(**settings) as workflow, DAG(name="main"):
        build(
            arguments={
                "recipe": RECIPE,
                "environment": "{{workflow.parameters.environment}}",
                "repository": "{{workflow.parameters.repository}}",
            }
        )
    return workflow
