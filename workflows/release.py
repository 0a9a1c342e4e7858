"""From data to live traffic: train → gate → package → load-test → deploy → watch.

Defined once. `ekiben workflow export release` prints what this produces, release.yaml beside this file holds it, and
`ekiben run` executes that very document on this machine.
"""

from typing import Any

from hera.workflows import DAG, Parameter, WorkflowTemplate

from workflows import steps


def define(cls: type = WorkflowTemplate, **overrides: Any) -> Any:
    """The release pipeline as `cls`: WorkflowTemplate, ClusterWorkflowTemplate, Workflow or CronWorkflow."""
    recipe = "{{workflow.parameters.recipe}}"
    settings: dict[str, Any] = {
        "name": "release",
        "entrypoint": "release",
        "on_exit": "exit",
        "arguments": [
            Parameter(name="recipe", value="digits", description="Recipe: the folder below bentos/"),
            Parameter(name="params", value="{}", description="Recipe parameters to override, a JSON object"),
            Parameter(name="slo", value="[]", description='SLOs to override, a JSON list such as ["p99=50ms"]'),
            Parameter(name="watch-seconds", value="8", description="How long a new release is watched, in s"),
            Parameter(name="by", value="", description="Who releases; empty: the workflow's name"),
            Parameter(name="image", value="ekiben-pipeline:latest", description="Image that holds this project"),
        ],
        **overrides,
    }
    with cls(**settings) as workflow:
        # A template of its own around the step: what onExit names gets the workflow's own parameters and no others.
        with DAG(name="exit"):
            steps.conclude(
                arguments={"recipe": recipe, "run": "{{workflow.name}}", "status": "{{workflow.status}}"},
            )
        with DAG(name="release"):
            train = steps.train(arguments={"recipe": recipe, "params": "{{workflow.parameters.params}}"})
            model = train.get_parameter("model")
            gate = steps.gate(arguments={"recipe": recipe, "model": model})
            package = steps.package(arguments={"recipe": recipe, "model": model})
            bento = package.get_parameter("bento")
            load_test = steps.load_test(
                name="load-test",
                arguments={"bento": bento, "slo": "{{workflow.parameters.slo}}", "run": "{{workflow.name}}"},
            )
            deploy = steps.deploy(
                arguments={
                    "bento": bento,
                    "report": load_test.get_parameter("report"),
                    "run": "{{workflow.name}}",
                    "by": "{{workflow.parameters.by}}",
                }
            )
            watch = steps.watch(
                arguments={
                    "release": deploy.get_parameter("release"),
                    "seconds": "{{workflow.parameters.watch-seconds}}",
                }
            )
            # on_success, not >>: Argo takes >> as "succeeded or skipped", and would load-test after a failed gate.
            train.on_success(gate).on_success(package).on_success(load_test).on_success(deploy).on_success(watch)
    return workflow
