"""`ekiben approve` and `ekiben reject`: the decision that a release waits for."""

import dataclasses
from typing import Annotated

import typer

from ekiben.commands.runs import RunName
from ekiben.commands.shell import JsonFlag, out
from ekiben.commands.workflow import Env, connected

By = Annotated[str, typer.Option(help="Who decides.")]
Why = Annotated[str, typer.Option(help="Why.")]


def approve(run: RunName, by: By, why: Why, env: Env = "", as_json: JsonFlag = False) -> None:
    """Let a release that waits for a decision go on.

    Who and why go to its record in W&B first.

    Example: ekiben approve release-x7k2p --by ada --why "canary looked fine" --env production
    """
    _decide("approve", run, by, why, env, as_json)


def reject(run: RunName, by: By, why: Why, env: Env = "", as_json: JsonFlag = False) -> None:
    """End a release that waits for a decision.

    Who and why go to its record in W&B first.

    Example: ekiben reject release-x7k2p --by ada --why "wrong data" --env production
    """
    _decide("reject", run, by, why, env, as_json)


def _decide(verb: str, run: str, by: str, why: str, env: str, as_json: bool) -> None:
    from collections.abc import Mapping

    from ekiben.config import Project
    from ekiben.pipeline import argo, decisions, sources
    from ekiben.pipeline.argo import approval
    from ekiben.types import ModelVersion

    def record(model: ModelVersion, config: Mapping[str, str]) -> None:
        sources.registry(Project.here()).record(model, "approval", config)

    if not env and (here := Project.here().state / "runs" / run).is_dir():
        question = decisions.decide(here, verb, by, why)
        answer = {"run": run, "node": question.node, "decision": verb, "by": by, "why": why}
        out(answer if as_json else f"{run}: {verb}, by {by}: {why}")
        return
    found = argo.find(run, client=connected(env))
    decision = approval.decide(found, "approve" if verb == "approve" else "reject", by, why, record)
    out(dataclasses.asdict(decision) if as_json else str(decision))
