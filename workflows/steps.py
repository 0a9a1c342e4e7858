"""The steps of Ekiben's workflows: each a Hera runner script with typed input and output.

A step runs in a process of its own, on a laptop as in a pod, and passes on only JSON parameters: no step needs a
disk that another has seen. What a step does is the engine's business (`ekiben.pipeline.stages`); here it gets its name,
its types and, where its verdict is not PASS, its exit code. `result` is the line that a person reads at its end.
"""

# No `from __future__ import annotations` here: Hera reads the annotations themselves and fails on strings.
from typing import Annotated

from hera.workflows import Input, Output, Parameter, script

IMAGE = "{{workflow.parameters.image}}"


class TrainIn(Input):
    recipe: str
    params: dict[str, str]


class TrainOut(Output):
    model: Annotated[str, Parameter(name="model", description="ModelVersion as JSON")]


@script(constructor="runner", image=IMAGE)
def train(given: TrainIn) -> TrainOut:
    from ekiben.pipeline import stages

    model = stages.train(given.recipe, given.params)
    return TrainOut(model=model.model_dump_json(), result=str(model))


class GateIn(Input):
    recipe: str
    model: str


class GateOut(Output):
    verdict: Annotated[str, Parameter(name="verdict", description="Verdict as JSON")]


@script(constructor="runner", image=IMAGE)
def gate(given: GateIn) -> GateOut:
    from ekiben.pipeline import stages

    verdict = stages.gate(given.recipe, given.model)
    return GateOut(verdict=verdict.model_dump_json(), result=str(verdict), exit_code=verdict.outcome.exit_code)


class PackageIn(Input):
    recipe: str
    model: str


class PackageOut(Output):
    bento: Annotated[str, Parameter(name="bento", description="BentoRef as JSON")]


@script(constructor="runner", image=IMAGE)
def package(given: PackageIn) -> PackageOut:
    from ekiben.pipeline import stages

    bento = stages.package(given.recipe, given.model)
    return PackageOut(bento=bento.model_dump_json(), result=str(bento))


class LoadTestIn(Input):
    bento: str
    slo: list[str]
    run: str


class LoadTestOut(Output):
    verdict: Annotated[str, Parameter(name="verdict", description="Verdict as JSON")]
    report: Annotated[str, Parameter(name="report", description="Where the report's folder is")]


@script(constructor="runner", image=IMAGE)
def load_test(given: LoadTestIn) -> LoadTestOut:
    from ekiben.pipeline import stages

    verdict, report = stages.load_test(given.bento, given.slo, given.run)
    return LoadTestOut(
        verdict=verdict.model_dump_json(), report=report, result=str(verdict), exit_code=verdict.outcome.exit_code
    )


class DeployIn(Input):
    bento: str
    report: str
    run: str
    by: str


class DeployOut(Output):
    release: Annotated[str, Parameter(name="release", description="Release as JSON")]
    probe: Annotated[str, Parameter(name="probe", description="Probe through the switch, as JSON")]


@script(constructor="runner", image=IMAGE)
def deploy(given: DeployIn) -> DeployOut:
    from ekiben.pipeline import stages

    release, probe = stages.deploy(given.bento, given.report, given.run, given.by)
    unchanged = "" if release.run == given.run else ", as it was before"
    return DeployOut(
        release=release.model_dump_json(),
        probe=probe.model_dump_json(),
        result=f"{release.bento} is live in {release.slot}{unchanged}",
    )


class WatchIn(Input):
    release: str
    seconds: float


class WatchOut(Output):
    verdict: Annotated[str, Parameter(name="verdict", description="Verdict as JSON")]
    probe: Annotated[str, Parameter(name="probe", description="Probe through the watch, as JSON")]


@script(constructor="runner", image=IMAGE)
def watch(given: WatchIn) -> WatchOut:
    from ekiben.pipeline import stages

    verdict, probe = stages.watch(given.release, given.seconds)
    return WatchOut(
        verdict=verdict.model_dump_json(),
        probe=probe.model_dump_json(),
        result=str(verdict),
        exit_code=verdict.outcome.exit_code,
    )


class ConcludeIn(Input):
    recipe: str
    run: str
    status: str


@script(constructor="runner", image=IMAGE)
def conclude(given: ConcludeIn) -> None:
    from ekiben.pipeline import stages

    stages.conclude(given.recipe, given.run, given.status)
