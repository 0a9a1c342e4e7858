"""`ekiben deploy`, and what other commands need to work on a cluster: `--env`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ekiben.commands.shell import JsonFlag, out

if TYPE_CHECKING:
    from ekiben.config import Project
    from ekiben.loadtest.golden import Golden
    from ekiben.platforms.kubernetes.platform import KubernetesPlatform
    from ekiben.rollout.plan import Action
    from ekiben.types import BentoRef

ENV_HELP = "Environment of pyproject.toml: [tool.ekiben.environments.ENV]."


def deploy(
    service: Annotated[str, typer.Argument(help="Service: a recipe below bentos/.")],
    env: Annotated[str, typer.Option(help=ENV_HELP)],
    bento: Annotated[str, typer.Option(help="Bento: a tag of the store, or what `build --json` wrote.")] = "",
    image: Annotated[str, typer.Option(help="Its image: [REPOSITORY@]sha256:…, or what `image --json` wrote.")] = "",
    golden: Annotated[str, typer.Option(help="golden.json for the smoke test; by default the model's own.")] = "",
    report: Annotated[str, typer.Option(help="Path or address of the load report, for the history.")] = "",
    canary: Annotated[
        str, typer.Option(help="Share that it gets first, such as 10%; by default the environment's canary_percent.")
    ] = "",
    run: Annotated[str, typer.Option(help="Name of the run: its steps share what they claim.")] = "",
    alias: Annotated[bool, typer.Option(help="Move W&B's alias to what is kept.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done only.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a Bento live on Kubernetes, blue-green.

    Idle colour, smoke test, switch, watch; keep it or take it back.

    Example: ekiben deploy digits --env production --image image.json
    """
    import sys
    from datetime import UTC, datetime

    from ekiben.commands import delivery
    from ekiben.config import Project
    from ekiben.pipeline import stages
    from ekiben.platforms.kubernetes.deliver import Trial, deliver
    from ekiben.platforms.kubernetes.look import look_at_live
    from ekiben.platforms.kubernetes.smoke import smoke
    from ekiben.platforms.kubernetes.watch import watch
    from ekiben.platforms.manifests.names import bento_of
    from ekiben.rollout.plan import Live
    from ekiben.types import ImageRef, Release

    project = Project.here()
    target = delivery.targets(project, env, [service])[0]
    named = bento if bento or image.endswith(".json") else service
    delivered = delivery.named([target], named, image)
    candidate = bento_of(delivered)
    place = platform(project, service, env, run)
    release = Release(
        service=service,
        slot="blue",
        bento=candidate,
        image=str(delivered) if isinstance(delivered, ImageRef) else "",
        load_report=report,
        time=datetime.now(UTC),
        by=me(),
        run=run,
    )
    place.brings(delivered)
    percent = _percent(canary) if canary else target.settings.canary_percent
    if dry_run:
        planned = place.plan(Live(release, run or release.by))
        actions = [
            str(action) for action in (_shared_first(planned, percent) if place.last_seen().selector else planned)
        ]
        out(actions if as_json else "\n".join(actions) or f"{candidate} is live already: nothing to do")
        return
    answers = _golden(golden, candidate)
    since = look_at_live(place)
    verdict = deliver(
        place,
        delivered,
        release,
        lambda slot: smoke(place, slot, answers),
        lambda: watch(place, place.hold.live_slot(), _say, since=since, golden=answers),
        hold=target.settings.watch.inconclusive == "hold",
        trial=Trial(percent, lambda slot: watch(place, slot, _say, since=since, golden=answers)) if percent else None,
    )
    active = place.last_seen().active
    if alias and verdict.passed and active:
        stages.promote(project, active)
    elif alias and active and active.bento.model != candidate.model:
        stages.follow_back(project, active, refused=candidate.model)
    told = {"verdict": verdict.model_dump(mode="json"), "live": active.model_dump(mode="json") if active else None}
    out(
        told if as_json else f"{verdict}\n{f'{active.bento} is live in {active.slot}' if active else 'nothing is live'}"
    )
    sys.exit(verdict.outcome.exit_code)


def platform(project: "Project", service: str, env: str, run: str = "") -> "KubernetesPlatform":
    """The service in that environment."""
    from ekiben.commands import delivery
    from ekiben.platforms.kubernetes.api import Api
    from ekiben.platforms.kubernetes.kubeconfig import configured
    from ekiben.platforms.kubernetes.platform import KubernetesPlatform

    target = delivery.targets(project, env, [service])[0]
    return KubernetesPlatform(Api(configured(target.settings.context), say=_say), target, holder=run, say=_say)


def _shared_first(planned: "list[Action]", percent: int) -> "list[Action]":
    """What is planned, with the canary before the switch."""
    from dataclasses import replace

    from ekiben.rollout.plan import Switch, Widen

    if not percent or not planned or not isinstance(switch := planned[-1], Switch):
        return planned
    widen = Widen(switch.release.slot, switch.release.bento, percent, "", switch.epoch)
    return [*planned[:-1], widen, replace(switch, epoch=switch.epoch + 1)]


def _percent(text: str) -> int:
    number = text.strip().removesuffix("%").strip()
    if not number.isdecimal() or int(number) > 50:
        raise typer.BadParameter(f"{text!r} is not a share from 0% to 50%", param_hint="--canary")
    return int(number)


def me() -> str:
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user is often a number only
        return f"user {os.getuid()}"


def _golden(path: str, bento: "BentoRef") -> "Golden":
    from pathlib import Path

    from ekiben.errors import NotFoundError
    from ekiben.loadtest.golden import Golden
    from ekiben.packaging import store

    if path:
        return Golden.read(Path(path))
    try:
        store.existing_bento(bento.tag)
    except NotFoundError:
        raise NotFoundError(
            f"the BentoML store has no {bento}, so its golden answers are not there for the smoke test",
            wanted="the Bento, or its golden answers",
            next_step="`ekiben pull --bento` brings it, or name a file: --golden",
        ) from None
    return Golden.read(store.golden(bento))


def _say(line: str) -> None:
    import sys

    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
