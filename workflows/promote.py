"""Promotion: what aliases in W&B ask for, looked up by the clock and whenever W&B says that something has changed.

`ekiben webhook serve` does the same at once and checks signatures; this is for who has no receiver, and for events
that W&B left out. All of them note what they did in one ledger, so that each move of an alias is one workflow.
"""

# No `from __future__ import annotations` here: Hera reads the annotations themselves and fails on strings.
from typing import Annotated, Any

from hera.workflows import DAG, CronWorkflow, Input, Output, Parameter, WorkflowTemplate
from hera.workflows import models as m

from workflows.on_cluster import PROJECT_IMAGE, step, whole

NAME = "promote"


class LookIn(Input):
    by: str


class LookOut(Output):
    promotions: Annotated[str, Parameter(name="promotions", description="What every alias led to, a JSON list")]


@step("ekiben-promote", cpu="100m", memory="512Mi", deadline=600, recipe="")
def look(given: LookIn) -> LookOut:
    import dataclasses
    import json

    from ekiben.config import Project
    from ekiben.pipeline import cluster, promotion

    with cluster.told():
        found = promotion.poll(Project.here(), given.by)
    new = sum(each.new for each in found)
    promotions = json.dumps([dataclasses.asdict(each) for each in found])
    return LookOut(promotions=promotions, result=f"{new} of {len(found)} submitted")


def define(cls: type = WorkflowTemplate, **overrides: Any) -> list[Any]:
    """The template that looks once, what starts it by the clock, and what starts it by W&B's events."""
    settings: dict[str, Any] = {
        **whole(NAME, recipe=""),
        "entrypoint": "main",
        "service_account_name": "ekiben-promote",
        # It runs often and leaves little behind: what was submitted stands in the ledger.
        "ttl_strategy": m.TTLStrategy(seconds_after_success=600, seconds_after_failure=86400),
        "active_deadline_seconds": 1800,
        "arguments": [PROJECT_IMAGE],
        **overrides,
    }
    with cls(**settings) as template, DAG(name="main"):
        look(arguments={"by": "{{workflow.name}}"})
    reference = m.WorkflowTemplateRef(name=NAME)
    clock = CronWorkflow(
        name=NAME,
        schedules=["*/5 * * * *"],
        timezone="Etc/UTC",
        concurrency_policy="Forbid",
        starting_deadline_seconds=120,
        successful_jobs_history_limit=1,
        failed_jobs_history_limit=3,
        workflow_template_ref=reference,
    )
    # The Argo Server checks a token but no signature, so nothing of the payload is believed: it only says when to look.
    events = m.WorkflowEventBinding(
        api_version="argoproj.io/v1alpha1",
        kind="WorkflowEventBinding",
        metadata=m.ObjectMeta(name=NAME),
        spec=m.WorkflowEventBindingSpec(
            event=m.Event(
                selector='discriminator == "wandb" && payload.event_type in ["ADD_ARTIFACT_ALIAS", "LINK_ARTIFACT"]'
            ),
            submit=m.Submit(workflow_template_ref=reference),
        ),
    )
    return [template, clock, events]
