"""Back to what was live before, on a cluster: for who has no kubeconfig, or wants it from a schedule or an event."""

# No `from __future__ import annotations` here: Hera reads the annotations themselves and fails on strings.
from typing import Annotated, Any

from hera.workflows import DAG, Input, Output, Parameter, WorkflowTemplate

from workflows.on_cluster import PROJECT_IMAGE, RECIPE, step, whole


class RollbackIn(Input):
    recipe: str
    environment: str
    by: str


class RollbackOut(Output):
    release: Annotated[str, Parameter(name="release", description="Release as JSON")]


@step("ekiben-deploy", deadline=1800)
def rollback(given: RollbackIn) -> RollbackOut:
    from ekiben.pipeline import cluster

    with cluster.told():
        release = cluster.rollback(given.recipe, given.environment, given.by)
    return RollbackOut(release=release.model_dump_json(), result=f"{release.bento} is live again in {release.slot}")


def define(cls: type = WorkflowTemplate, **overrides: Any) -> Any:
    """The rollback as `cls`. No mutex: it must not wait for the release that it ends; claims and fences protect it."""
    settings: dict[str, Any] = {
        **whole("rollback-on-cluster"),
        "entrypoint": "main",
        "service_account_name": "ekiben-deploy",
        "active_deadline_seconds": 3600,
        "arguments": [
            Parameter(name="recipe", value="digits", description="Recipe: the folder below bentos/"),
            Parameter(name="environment", value="staging", description="[tool.ekiben.environments.ENV]"),
            Parameter(name="by", value="", description="Who wants it, beside the workflow's name"),
            PROJECT_IMAGE,
        ],
        **overrides,
    }
    with cls(**settings) as workflow, DAG(name="main"):
        rollback(
            arguments={
                "recipe": RECIPE,
                "environment": "{{workflow.parameters.environment}}",
                "by": "{{workflow.parameters.by}} {{workflow.name}}",
            }
        )
    return workflow
