"""Retraining by the clock: unchanged data costs one cheap step, a new model goes the way of every release.

What a training depends on is one key, and Argo keeps what was trained under it: its `train` then takes no pod and
gives the older run's outputs, so `run` tells a new model from a known one, and only a new one is shipped. The gate and
all that follows are release-on-cluster's, which must be installed: `ekiben workflow apply release_on_cluster retrain`.
"""

# No `from __future__ import annotations` here: Hera reads the annotations themselves and fails on strings.
from typing import Annotated, Any

from hera.workflows import DAG, CronWorkflow, Input, Output, Parameter, Task
from hera.workflows import models as m

from workflows.on_cluster import RECIPE, step, whole
from workflows.release_on_cluster import PARAMETERS, PlanIn, PlanOut

# Argo's controller makes the ConfigMap, in its own namespace and for all namespaces that it looks after: what another
# team has trained is not known here. A year: then it is trained again even so, for libraries and images change as well.
KNOWN = m.Memoize(
    key="{{workflow.namespace}}-{{inputs.parameters.key}}",
    max_age="8760h",
    cache=m.Cache(config_map=m.LocalObjectReference(name="ekiben-retrain")),
)


class LookIn(PlanIn):
    run: str


class LookOut(PlanOut):
    key: Annotated[str, Parameter(name="key", description="Digest of the recipe's code, parameters and data")]


@step("ekiben-train")
def look(given: LookIn) -> LookOut:
    import dataclasses

    from ekiben.pipeline import cluster, retraining

    with cluster.told():
        placement = cluster.plan(given.recipe, given.params, given.slo, given.environment)
        key = retraining.key(given.recipe, given.params, given.run)
    return LookOut(**dataclasses.asdict(placement), key=key, result=key)


class TrainIn(Input):
    recipe: str
    params: dict[str, str]
    key: str
    run: str


class TrainOut(Output):
    model: Annotated[str, Parameter(name="model", global_name="model", description="ModelVersion as JSON")]
    run: Annotated[str, Parameter(name="run", description="The run that trained it")]


@step("ekiben-train", deadline=21600, pod="train-pod", memoize=KNOWN)
def train(given: TrainIn) -> TrainOut:
    from ekiben.pipeline import cluster, stages

    with cluster.told():
        model = stages.train(given.recipe, given.params)
    return TrainOut(model=model.model_dump_json(), run=given.run, result=str(model))


def _of_release(template: str) -> m.TemplateRef:
    return m.TemplateRef(name="release-on-cluster", template=template)


def define(cls: type = CronWorkflow, **overrides: Any) -> Any:
    """Retraining as `cls`: a CronWorkflow, or with no schedule a WorkflowTemplate or Workflow."""
    recipe, params, run = RECIPE, "{{workflow.parameters.params}}", "{{workflow.name}}"
    environment = "{{workflow.parameters.environment}}"
    clock: dict[str, Any] = {
        "schedules": ["17 3 * * *"],
        "timezone": "Etc/UTC",
        "concurrency_policy": "Forbid",
        "starting_deadline_seconds": 3600,
        "successful_jobs_history_limit": 3,
        "failed_jobs_history_limit": 5,
    }
    settings: dict[str, Any] = {
        **whole("retrain"),
        "entrypoint": "retrain",
        "on_exit": "exit",
        "service_account_name": "ekiben-train",
        "active_deadline_seconds": 172800,
        "arguments": PARAMETERS,
        **(clock if issubclass(cls, CronWorkflow) else {}),
        **overrides,
    }
    with cls(**settings) as workflow:
        with DAG(name="exit"):
            Task(
                name="conclude",
                template_ref=_of_release("conclude"),
                arguments={
                    "recipe": recipe, "environment": environment, "run": run,
                    "status": "{{workflow.status}}", "failures": "{{workflow.failures}}",
                },
            )  # fmt: skip
        with DAG(name="retrain"):
            seen = look(
                arguments={
                    "recipe": recipe, "params": params, "slo": "{{workflow.parameters.slo}}",
                    "environment": environment, "run": run,
                }
            )  # fmt: skip
            trained = train(
                arguments={"recipe": recipe, "params": params, "key": seen.get_parameter("key"), "run": run}
            )
            shipped = Task(
                name="ship",
                template_ref=_of_release("ship"),
                arguments={"model": trained.get_parameter("model")},
                # Quoted: Argo would read the hyphens of a name as minus.
                when="'{{tasks.train.outputs.parameters.run}}' == '{{workflow.name}}'",
            )
            seen.on_success(trained).on_success(shipped)
    return workflow
