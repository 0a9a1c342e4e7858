"""The release on a cluster: plan → train → gate → approval? → package → image → stage → load-test → switch and watch.

The same stages as release.py, with an image in a registry or a Bento that pods fetch, and each duty with an account of
its own. The plan refuses what cannot work, and says where training and load test run (the environment's settings).
Switch and watch are one step: what was switched and not watched to its end is a state to leave at once.
"""

# No `from __future__ import annotations` here: Hera reads the annotations themselves and fails on strings.
from typing import Annotated, Any

from hera.workflows import (
    DAG,
    Input,
    Output,
    Parameter,
    SecretEnv,
    Suspend,
    WorkflowTemplate,
)
from hera.workflows import models as m

from workflows.on_cluster import PROJECT_IMAGE, PUSHES, RECIPE, step, whole

NOTIFY = SecretEnv(name="EKIBEN_NOTIFY_URL", secret_name="ekiben-notify", secret_key="url", optional=True)
# On all that touches the idle colour, and not on the approval: who waits for a person holds nobody up.
LOCKED = m.Synchronization(
    mutexes=[m.Mutex(name="deploy-{{workflow.parameters.environment}}-{{workflow.parameters.recipe}}")]
)
PARAMETERS = [
    Parameter(name="recipe", value="digits", description="Recipe: the folder below bentos/"),
    Parameter(name="params", value="{}", description="Recipe parameters to override, a JSON object"),
    Parameter(name="slo", value="[]", description='SLOs to override, a JSON list such as ["p99=50ms"]'),
    Parameter(name="environment", value="staging", description="[tool.ekiben.environments.ENV]"),
    Parameter(name="approval", value="no", enum=["no", "yes"], description="Whether somebody must approve"),
    Parameter(name="delivery", value="image", enum=["image", "bundle"], description="How pods get it"),
    Parameter(name="repository", value="", description="Of the image; empty: by the project's settings"),
    Parameter(name="by", value="", description="Who releases; empty: the workflow's name"),
    PROJECT_IMAGE,
]
"""Retraining has them too: templates that are referred to see the parameters of whoever refers to them."""


MODEL = {"ekiben.dev/model": "{{=jsonpath(inputs.parameters.model, '$.version')}}"}
BENTO = {"ekiben.dev/bento": "{{=jsonpath(inputs.parameters.bento, '$.version')}}"}
# A delivery is an image, which names its Bento, or the Bento itself.
DELIVERED = {
    "ekiben.dev/bento": "{{=jsonpath(inputs.parameters.delivery,"
    " inputs.parameters.delivery contains 'repository' ? '$.bento.version' : '$.version')}}"
}


class PlanIn(Input):
    recipe: str
    params: dict[str, str]
    slo: list[str]
    environment: str


def _pod(name: str) -> Parameter:
    return Parameter(name=name, global_name=name, description="Patch of the pod: where it runs, and on what")


class PlanOut(Output):
    """`…-again`: after a node was lost."""

    train: Annotated[str, _pod("train-pod")]
    train_again: Annotated[str, _pod("train-pod-again")]
    load_test: Annotated[str, _pod("load-test-pod")]
    load_test_again: Annotated[str, _pod("load-test-pod-again")]


@step("ekiben-train")
def plan(given: PlanIn) -> PlanOut:
    import dataclasses

    from ekiben.pipeline import cluster

    with cluster.told():
        placement = cluster.plan(given.recipe, given.params, given.slo, given.environment)
    return PlanOut(**dataclasses.asdict(placement), result="nothing speaks against it")


class TrainIn(Input):
    recipe: str
    params: dict[str, str]


class TrainOut(Output):
    model: Annotated[str, Parameter(name="model", global_name="model", description="ModelVersion as JSON")]


@step("ekiben-train", deadline=21600, pod="train-pod")
def train(given: TrainIn) -> TrainOut:
    from ekiben.pipeline import cluster, stages

    with cluster.told():
        model = stages.train(given.recipe, given.params)
    return TrainOut(model=model.model_dump_json(), result=str(model))


class ModelIn(Input):
    recipe: str
    model: str


class VerdictOut(Output):
    verdict: Annotated[str, Parameter(name="verdict", description="Verdict as JSON")]


@step("ekiben-train", labels=MODEL)
def gate(given: ModelIn) -> VerdictOut:
    from ekiben.pipeline import cluster, stages

    with cluster.told():
        verdict = stages.gate(given.recipe, given.model)
    return VerdictOut(verdict=verdict.model_dump_json(), result=str(verdict), exit_code=verdict.outcome.exit_code)


class ConfirmIn(Input):
    decision: str


@step("ekiben-train")
def confirm(given: ConfirmIn) -> None:
    if given.decision != "approve":
        raise SystemExit(f"the release was not approved: {given.decision}")


class PackageOut(Output):
    bento: Annotated[str, Parameter(name="bento", global_name="bento", description="BentoRef as JSON")]


@step("ekiben-build", labels=MODEL)
def package(given: ModelIn) -> PackageOut:
    from ekiben.pipeline import cluster

    with cluster.told():
        bento = cluster.package(given.recipe, given.model)
    return PackageOut(bento=bento.model_dump_json(), result=str(bento))


class ImageIn(Input):
    bento: str
    by: str
    environment: str
    repository: str


class ImageOut(Output):
    delivery: Annotated[
        str, Parameter(name="delivery", global_name="delivery", description="ImageRef, or BentoRef, as JSON")
    ]


@step("ekiben-build", deadline=1800, labels=BENTO, volumes=[PUSHES])
def image(given: ImageIn) -> ImageOut:
    from ekiben.pipeline import cluster

    with cluster.told():
        if given.by == "bundle":  # pods fetch the published Bento themselves
            return ImageOut(delivery=given.bento, result="no image is needed")
        built = cluster.image(given.bento, given.environment, given.repository)
    return ImageOut(delivery=built.model_dump_json(), result=str(built))


class StageIn(Input):
    delivery: str
    environment: str
    run: str


class StageOut(Output):
    verdict: Annotated[str, Parameter(name="verdict", description="Verdict as JSON")]
    address: Annotated[str, Parameter(name="address", description="The candidate's address; empty: live already")]
    live: Annotated[str, Parameter(name="live", description="BentoRef of what is live, as JSON; empty: nothing is")]


@step("ekiben-deploy", deadline=1800, labels=DELIVERED)
def stage(given: StageIn) -> StageOut:
    from ekiben.pipeline import cluster

    with cluster.told():
        verdict, address, live = cluster.stage(given.delivery, given.environment, given.run)
    return StageOut(
        verdict=verdict.model_dump_json(), address=address, live=live, result=str(verdict),
        exit_code=verdict.outcome.exit_code,
    )  # fmt: skip


class LoadTestIn(Input):
    delivery: str
    address: str
    live: str
    environment: str
    slo: list[str]
    run: str


class LoadTestOut(Output):
    verdict: Annotated[str, Parameter(name="verdict", description="Verdict as JSON")]
    report: Annotated[str, Parameter(name="report", description="The report's folder in its pod; W&B has it too")]


@step("ekiben-loadtest", deadline=7200, pod="load-test-pod", labels=DELIVERED)
def load_test(given: LoadTestIn) -> LoadTestOut:
    from ekiben.pipeline import cluster

    with cluster.told():
        verdict, report = cluster.load_test(
            given.delivery, given.address, given.live, given.environment, given.slo, given.run
        )
    return LoadTestOut(
        verdict=verdict.model_dump_json(), report=report, result=str(verdict), exit_code=verdict.outcome.exit_code
    )


class GoLiveIn(Input):
    delivery: str
    environment: str
    run: str
    by: str
    report: str


@step("ekiben-deploy", deadline=7200, labels=DELIVERED)
def go_live(given: GoLiveIn) -> VerdictOut:
    from ekiben.pipeline import cluster

    with cluster.told():
        verdict = cluster.go_live(given.delivery, given.environment, given.run, given.by, given.report)
    return VerdictOut(verdict=verdict.model_dump_json(), result=str(verdict), exit_code=verdict.outcome.exit_code)


class ConcludeIn(Input):
    recipe: str
    environment: str
    run: str
    status: str
    failures: str


@step("ekiben-deploy", deadline=1800, env=[NOTIFY])
def conclude(given: ConcludeIn) -> None:
    from ekiben.pipeline import cluster

    with cluster.told():
        cluster.conclude(given.recipe, given.environment, given.run, given.status, given.failures)


def define(cls: type = WorkflowTemplate, **overrides: Any) -> Any:
    """The release pipeline for a cluster as `cls`: WorkflowTemplate, ClusterWorkflowTemplate or Workflow."""
    recipe, environment, run = RECIPE, "{{workflow.parameters.environment}}", "{{workflow.name}}"
    settings: dict[str, Any] = {
        **whole("release-on-cluster"),
        "entrypoint": "release",
        "on_exit": "exit",
        "service_account_name": "ekiben-train",
        "active_deadline_seconds": 172800,
        "arguments": PARAMETERS,
        **overrides,
    }
    with cls(**settings) as workflow:
        with DAG(name="exit"):
            conclude(
                arguments={
                    "recipe": recipe, "environment": environment, "run": run, "status": "{{workflow.status}}",
                    "failures": "{{workflow.failures}}",
                }
            )  # fmt: skip
        # Nobody's answer is a no: Argo takes the output's default when the time is over.
        ask = Suspend(
            name="ask",
            duration="24h",
            inputs=[Parameter(name="decision", enum=["approve", "reject"], default="reject")],
            outputs=[
                Parameter(name="decision", value_from=m.ValueFrom(supplied=m.SuppliedValueFrom(), default="reject"))
            ],
        )
        # Asked for in a DAG of its own: passed over as a whole, nothing refers to an answer that nobody gave.
        with DAG(name="approval") as approval:
            asked = ask()
            confirmed = confirm(arguments={"decision": "{{tasks.ask.outputs.parameters.decision}}"})
            asked.on_success(confirmed)
        delivery = "{{inputs.parameters.delivery}}"
        with DAG(name="candidate", inputs=[Parameter(name="delivery")], synchronization=LOCKED) as candidate:
            staged = stage(arguments={"delivery": delivery, "environment": environment, "run": run})
            loaded = load_test(
                name="load-test",
                arguments={
                    "delivery": delivery,
                    "address": staged.get_parameter("address"),
                    "live": staged.get_parameter("live"),
                    "environment": environment,
                    "slo": "{{workflow.parameters.slo}}",
                    "run": run,
                },
            )
            live = go_live(
                name="go-live",
                arguments={
                    "delivery": delivery,
                    "environment": environment,
                    "run": run,
                    "by": "{{workflow.parameters.by}}",
                    "report": loaded.get_parameter("report"),
                },
            )
            staged.on_success(loaded).on_success(live)
        # From a model on, for whoever has one: retrain.py begins here.
        given = "{{inputs.parameters.model}}"
        with DAG(name="ship", inputs=[Parameter(name="model")]) as ship:
            gated = gate(arguments={"recipe": recipe, "model": given})
            approved = approval(name="approve", when="'{{workflow.parameters.approval}}' == 'yes'")
            packaged = package(arguments={"recipe": recipe, "model": given})
            packaged.depends = "gate.Succeeded && (approve.Succeeded || approve.Skipped)"
            built = image(
                arguments={
                    "bento": packaged.get_parameter("bento"),
                    "by": "{{workflow.parameters.delivery}}",
                    "environment": environment,
                    "repository": "{{workflow.parameters.repository}}",
                }
            )
            tried = candidate(name="candidate", arguments={"delivery": built.get_parameter("delivery")})
            gated.on_success(approved)
            packaged.on_success(built).on_success(tried)
        with DAG(name="release"):
            params, slo = "{{workflow.parameters.params}}", "{{workflow.parameters.slo}}"
            planned = plan(arguments={"recipe": recipe, "params": params, "slo": slo, "environment": environment})
            trained = train(arguments={"recipe": recipe, "params": params})
            shipped = ship(name="ship", arguments={"model": trained.get_parameter("model")})
            planned.on_success(trained).on_success(shipped)
    return workflow
