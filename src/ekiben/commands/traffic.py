"""`ekiben status, history, switch, rollback, up, down`: what is live, on this machine or in a cluster."""

from typing import TYPE_CHECKING, Annotated

import typer

from ekiben.commands import deploy as deploying
from ekiben.commands.shell import JsonFlag, here, out

if TYPE_CHECKING:
    from ekiben.platforms.kubernetes.platform import KubernetesPlatform
    from ekiben.platforms.local import LocalPlatform
    from ekiben.rollout.plan import Action

LOCAL = "local"
Env = Annotated[str, typer.Option(help="Where: `local` for this machine, or an environment of pyproject.toml.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done only.")]
Alias = Annotated[bool, typer.Option(help="Move W&B's alias to what is live then.")]
Service = Annotated[str, typer.Argument(help="Service to act on; by default the project's own recipe.")]


def status(service: Service = "", env: Env = LOCAL, as_json: JsonFlag = False) -> None:
    """Show what is live, what is idle, and where the service listens.

    Example: ekiben status --env production
    """
    from ekiben.rollout import show

    place = _place(service, env)
    seen = place.observe()
    mend = "run `ekiben up`" if env == LOCAL else "kubectl describe its pods says why; `ekiben rollback` goes back"
    out({**seen.model_dump(mode="json"), "url": place.url} if as_json else show.status(seen, place.url, mend))


def history(service: Service = "", env: Env = LOCAL, as_json: JsonFlag = False) -> None:
    """List what was live when, the newest last.

    Example: ekiben history --json
    """
    from ekiben.rollout import show

    releases = _place(service, env).history()
    out([release.model_dump(mode="json") for release in releases] if as_json else show.history(releases))


def switch(service: Service = "", env: Env = LOCAL, alias: Alias = True, dry_run: DryRun = False) -> None:
    """Send traffic to the idle slot's release, if it was live before.

    Example: ekiben switch
    """
    from datetime import UTC, datetime

    from ekiben.pipeline import stages
    from ekiben.rollout.plan import Live, held_again

    place = _place(service, env)
    release = held_again(place.observe(), deploying.me(), datetime.now(UTC))
    if dry_run:
        out(_listed(place.plan(Live(release, release.by))))
        return
    stages.switch_over(place, release)
    if env != LOCAL:
        place.retire()  # the other colour takes no room, and what is live has its own limits again
    if alias:
        stages.promote(here(), release)
    out(f"{release.bento} is live in {release.slot}")


def rollback(service: Service = "", env: Env = LOCAL, alias: Alias = True, dry_run: DryRun = False) -> None:
    """Send traffic back to the release that was live before.

    It is started anew where it was stopped.

    Example: ekiben rollback --env production --dry-run
    """
    from datetime import UTC, datetime

    from ekiben.pipeline import stages
    from ekiben.rollout.plan import Narrowed, RolledBack

    place, by = _place(service, env), deploying.me()
    if dry_run:
        canary = place.observe().canary  # while there is one, to go back is to end it
        wanted = Narrowed(canary.token, by) if canary else RolledBack(None, by, datetime.now(UTC), by)
        out(_listed(place.plan(wanted)))
        return
    release = stages.roll_back(here(), place, by=by) if alias else place.rollback(by)
    out(f"{release.bento} is live again, in {release.slot}")
    if env != LOCAL:
        place.retire()


def up(service: Service = "") -> None:
    """Start what should run and does not.

    After `ekiben down`, a crash or a restart of the machine.

    Example: ekiben up
    """
    place = _platform(service)
    place.ensure_serving()
    status(service)


def down(service: Service = "") -> None:
    """Stop the service, its slots and the embedded tracker.

    `ekiben up` goes on from where it was.

    Example: ekiben down
    """
    from ekiben import tracking

    _platform(service).down()
    tracking.tracker(here()).stop()
    out("stopped")


def _platform(service: str) -> "LocalPlatform":
    from ekiben.pipeline import sources, stages

    project = here()
    name = service or project.settings.recipe
    sources.recipe(project, name)
    return stages.platform(project, name)


def _cluster(service: str, env: str) -> "KubernetesPlatform":
    return deploying.platform(here(), service or here().settings.recipe, env)


def _place(service: str, env: str) -> "LocalPlatform | KubernetesPlatform":
    return _platform(service) if env == LOCAL else _cluster(service, env)


def _listed(actions: "list[Action]") -> str:
    return "\n".join(map(str, actions)) or "nothing to do"
