"""A load test from several pods: prepare → a master and, beside it, its workers. For a rate that one pod cannot offer.

As `ekiben loadtest run`: open loop, and judged by the same rules. The verdict is the master's output and exit code, and
so the workflow's; W&B has the report. A worker that is lost makes the run INVALID, which never passes.

The master is no daemon, for how a daemon ends does not count, and Argo 4 loses sight of some. So nobody is told its
address; it has a name instead, by the headless Service in deploy/base/loadtest.yaml.
"""

# No `from __future__ import annotations` here: Hera reads the annotations themselves and fails on strings.
import json
from typing import Annotated, Any

from hera.workflows import DAG, FieldEnv, Input, Output, Parameter, WorkflowTemplate
from hera.workflows import models as m

from workflows.on_cluster import PROJECT_IMAGE, step, whole

SERVICE = "ekiben-loadtest"
HOST = "loadtest-{{workflow.uid}}"
PORT = 5557
POD_IP = FieldEnv(name="EKIBEN_POD_IP", field_path="status.podIP")
LIMIT = "{{inputs.parameters.limit}}"
WANTED = [
    Parameter(name="address", description="Of the service, such as http://digits-preview.team.svc"),
    Parameter(name="bento", value="", description="NAME:VERSION in W&B that answers there, and has the examples"),
    Parameter(name="examples", value="", description="A file of the project that has them instead"),
    Parameter(name="rows", value="", description="Rows of a request: 8, 1-8, or with weights 1:9,32:1"),
    Parameter(name="slo", value="[]", description='SLOs beside slo.toml, a JSON list such as ["p99=50ms"]'),
    Parameter(name="load", value="{}", description='[load] of slo.toml to override: {"rate": 5000, "duration": "60s"}'),
    Parameter(name="workers", value="2", description="Pods that send the requests"),
    Parameter(name="limit", value="1h", description="How long a pod may take, with the time until it starts"),
]


class Asked(Input):
    address: str
    bento: str
    examples: str
    rows: str
    slo: list[str]
    load: dict[str, Any]
    workers: int
    limit: str


@step("ekiben-loadtest", cpu="100m", memory="512Mi", deadline=None, timeout=LIMIT, recipe="")
def prepare(given: Asked) -> None:
    from ekiben.pipeline import cluster, distributed

    with cluster.told():
        print(distributed.prepare(distributed.Asked(**given.model_dump(exclude={"limit"})), given.limit))


class LeadIn(Asked):
    run: str


class LeadOut(Output):
    verdict: Annotated[str, Parameter(name="verdict", description="Verdict as JSON")]
    report: Annotated[str, Parameter(name="report", description="The report's path in W&B; empty: not there")]


@step(
    "ekiben-loadtest", cpu="1", memory="2Gi", env=[POD_IP], deadline=None, timeout=LIMIT, recipe="",
    labels={"ekiben.dev/loadtest": "master"},
    pod_spec_patch=json.dumps({"hostname": HOST, "subdomain": SERVICE}),
    ports=[m.ContainerPort(name="locust", container_port=PORT)],
)  # fmt: skip
def lead(given: LeadIn) -> LeadOut:
    from ekiben.pipeline import cluster, distributed

    with cluster.told():
        asked = distributed.Asked(**given.model_dump(exclude={"limit", "run"}))
        done, report = distributed.lead(asked, given.run)
    return LeadOut(
        verdict=done.verdict.model_dump_json(), report=report, result=str(done.verdict),
        exit_code=done.verdict.outcome.exit_code,
    )  # fmt: skip


class WorkIn(Input):
    leader: str
    limit: str


# Argo does not try it again: half-way through a test nobody can take its place, and `timeout` is then also for how long
# it may wait for a node.
@step(
    "ekiben-loadtest", cpu="1", memory="1Gi", env=[POD_IP], deadline=None, timeout=LIMIT, recipe="", retry=None,
    tracked=False,
)  # fmt: skip
def work(given: WorkIn) -> None:
    from ekiben.pipeline import cluster, distributed

    with cluster.told():
        distributed.work(given.leader)


def distributed() -> DAG:
    """The DAG `load-test` and its steps, in the workflow that is being defined: for other workflows to call, too.

    All that it needs are its own inputs, so that it can be referred to from other templates.
    """
    asked = {each.name: f"{{{{inputs.parameters.{each.name}}}}}" for each in WANTED}
    with DAG(
        name="load-test",
        inputs=[Parameter(name=each.name, default=each.value) for each in WANTED],
        outputs=[
            Parameter(
                name=name,
                value_from=m.ValueFrom(parameter=f"{{{{tasks.master.outputs.parameters.{name}}}}}", default=""),
            )
            for name in ("verdict", "report")
        ],
    ) as dag:
        prepared = prepare(arguments=asked)
        led = lead(name="master", arguments={**asked, "run": "{{workflow.name}}"})
        worked = work(
            name="worker",
            arguments={"leader": f"{HOST}.{SERVICE}", "limit": asked["limit"]},
            with_sequence=m.Sequence(count=asked["workers"]),
        )
        prepared.on_success(led)
        prepared.on_success(worked)
    return dag


def define(cls: type = WorkflowTemplate, **overrides: Any) -> Any:
    settings: dict[str, Any] = {
        **whole("loadtest", recipe=""),
        "entrypoint": "load-test",
        "service_account_name": "ekiben-loadtest",
        "active_deadline_seconds": 90000,  # the longest test takes a day
        "arguments": [*WANTED, PROJECT_IMAGE],
        **overrides,
    }
    with cls(**settings) as workflow:
        distributed()
    return workflow
