"""The command line. Each command is a thin shell over a plain function; what is heavy is imported inside it."""

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ekiben.commands import deploy as deploying
from ekiben.commands import loadtest, webhook, workflow
from ekiben.commands.approval import approve, reject
from ekiben.commands.autoscale import autoscale
from ekiben.commands.deploy import deploy
from ekiben.commands.doctor import doctor
from ekiben.commands.render import render
from ekiben.errors import EkibenError, UsageError
from ekiben.scaffold import Framework
from ekiben.tracker import commands as tracker

if TYPE_CHECKING:
    from ekiben.config import Project
    from ekiben.platforms.kubernetes.platform import KubernetesPlatform
    from ekiben.platforms.local import LocalPlatform
    from ekiben.rollout.plan import Action

app = typer.Typer(
    name="ekiben",
    help="From a model tracked in Weights & Biases to live traffic: train, gate, Bento, load test, switch, watch.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would more than double the time to this text
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(workflow.app, name="workflow")
app.add_typer(loadtest.app, name="loadtest")
app.add_typer(tracker.app, name="tracker")
app.add_typer(webhook.app, name="webhook")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
LOCAL = "local"
Env = Annotated[str, typer.Option(help="Where: `local` for this machine, or an environment of pyproject.toml.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done only.")]
Alias = Annotated[bool, typer.Option(help="Move W&B's alias to what is live then.")]
Service = Annotated[str, typer.Argument(help="Service to act on; by default the project's own recipe.")]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the model, such as wine_quality.")],
    framework: Annotated[Framework, typer.Option(help="What it is made with.")] = Framework.SKLEARN,
    here: Annotated[bool, typer.Option("--here", help="Start a project in a folder that is not empty.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files only.")] = False,
) -> None:
    """Write recipe, service and tests of a new model, ready to run.

    In an empty folder, with a project around it.

    Example: ekiben new wine --framework torch
    """
    from pathlib import Path

    from ekiben.scaffold import plan, show, write

    planned = plan.plan(Path.cwd(), name, framework, here=here)
    if not dry_run:
        write.write(planned)
    _out(show.told(planned, written=not dry_run))


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Recipe: a folder below bentos/; by default the project's own.")] = "",
    param: Annotated[list[str] | None, typer.Option(help="Recipe parameter, such as label_noise=0.6.")] = None,
    slo: Annotated[list[str] | None, typer.Option(help="Service-level objective to override: p99=50ms.")] = None,
    name: Annotated[str, typer.Option("--workflow", help="Workflow: a module below workflows/.")] = "release",
    resume: Annotated[str | None, typer.Option(help="Run that was cut off, to go on with after its last step.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a workflow on this machine: from data to live traffic.

    Example: ekiben run digits --param C=0.05 --slo p99=100ms
    """
    from ekiben.errors import UsageError
    from ekiben.pipeline import rehearsal

    if resume is not None:  # an empty name is a mistake, and no new release
        if recipe or param or slo:
            raise UsageError(
                "--resume goes on with what the run was started with", wanted="no recipe, --param or --slo"
            )
        raise typer.Exit(rehearsal.resume(_project(), resume, as_json=as_json))

    code = rehearsal.run(_project(), name, recipe, workflow.pairs("--param", param or []), slo or [], as_json=as_json)
    raise typer.Exit(code)


@app.command()
def pull(
    model: Annotated[str, typer.Argument(help="NAME[:ALIAS|:vN], or ENTITY/PROJECT/NAME:vN@DIGEST.")],
    bento: Annotated[bool, typer.Option("--bento", help="Bring a published Bento instead: NAME[:ALIAS].")] = False,
    into: Annotated[
        str,
        typer.Option(help="With --bento ENTITY/PROJECT/NAME:VERSION@DIGEST: into this folder, not the store."),
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Bring a model from W&B into the BentoML model store, verified.

    Nothing is done if it is there.

    Example: ekiben pull digits:production
    """
    if into:
        from pathlib import Path

        from ekiben.packaging import fetch

        if not bento:
            raise typer.BadParameter("only a Bento goes into a folder: add --bento", param_hint="--into")
        path = fetch.fetch(fetch.Bundle.parse(model), Path(into))
        _out({"artifact": path, "folder": into} if as_json else into)
        return
    from ekiben.pipeline import packages

    project = _project()
    if bento:
        ref = packages.pull_bento(project, model)
        _out(ref.model_dump(mode="json") if as_json else ref.tag)
        return
    version = packages.resolve(project, model)
    stored = packages.pull(project, version)
    _out(packages.described(version, stored) if as_json else stored.tag)


@app.command()
def build(
    model: Annotated[str, typer.Argument(help="NAME[:ALIAS|:vN], or ENTITY/PROJECT/NAME:vN@DIGEST.")],
    service: Annotated[str, typer.Option(help="Service, such as service.digits:Digits; by default the recipe's.")] = "",
    publish: Annotated[bool, typer.Option("--publish", help="Log the Bento to W&B, with its model's lineage.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Build the Bento that serves exactly this model.

    What has the same content is not built again.

    Example: ekiben build digits:production --publish
    """
    from ekiben.pipeline import packages

    project = _project()
    version = packages.resolve(project, model)
    ref = packages.build(project, version.name, version, service)
    artifact = packages.publish(project, ref) if publish else ""
    if as_json:
        _out({**ref.model_dump(mode="json"), "tag": ref.tag, "artifact": artifact})
    else:
        _out(f"{ref.tag}\n{artifact}".rstrip())


@app.command()
def image(
    bento: Annotated[str, typer.Argument(help="Bento of the store: NAME[:VERSION]; by default its newest.")],
    push: Annotated[bool, typer.Option("--push", help="Push it to its registry.")] = False,
    base: Annotated[
        str,
        typer.Option(
            help="Base image with python3 and its venv; by default the project's own. To append: the runtime image; by"
            " default the one for the Bento's packages."
        ),
    ] = "",
    repository: Annotated[
        str, typer.Option(help="Where it goes: REGISTRY/PATH; by default by the project's settings.")
    ] = "",
    engine: Annotated[
        str,
        typer.Option(
            help="buildah, podman, docker or buildctl; by default what works. append: push the Bento as a layer on a"
            " runtime image, which takes no program."
        ),
    ] = "",
    runtime: Annotated[
        bool, typer.Option("--runtime", help="Make the runtime image: the packages of the project's lock, no Bento.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the Containerfile and the commands only.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a Bento's image, and its SBOM.

    For a user that is not root, and a read-only root file system.

    Example: ekiben image digits --repository registry.example/team/digits --push
    """
    import shlex

    from ekiben.packaging import engines, image, store
    from ekiben.pipeline import packages

    project = _project()
    settings, name = project.settings, bento.partition(":")[0]
    repository = repository or f"{settings.image_registry}/{name}"
    appended = engine == engines.APPEND
    if (push or appended) and repository.startswith("localhost/"):
        raise UsageError(
            f"{'--engine append' if appended else '--push'} needs a registry to push to",
            next_step="--repository, or image_registry in [tool.ekiben]",
        )
    base = base or ("" if appended else settings.base_image)
    place = image.Place(base, repository, push or appended, settings.insecure_registries)
    found = None if runtime else store.existing_bento(bento)
    if dry_run:
        plan = image.plan(found, place, engine) if found else packages.plan_runtime(project, name, place, engine)
        _out({"containerfile": plan.containerfile, "commands": plan.commands} if as_json else
             "\n".join([plan.containerfile, *map(shlex.join, plan.commands)]))  # fmt: skip
        return
    if found is None:
        sbom = project.state / "images" / f"{name}-runtime.cdx.json"
        made = packages.build_runtime(project, name, place, engine, sbom)
        _out({"image": made.image, "digest": made.digest, "sbom": str(made.sbom)} if as_json else made.image)
        return
    sbom = project.state / "images" / f"{found.tag.replace(':', '-')}.cdx.json"
    built = image.build(found, place, engine, sbom)
    told = {**built.image.model_dump(mode="json"), "sbom": str(built.sbom)}
    _out(told if as_json else f"{built.image}\n{built.sbom}")


@app.command()
def lock(bento: Annotated[str, typer.Argument(help="Bento; by default the project's own recipe.")] = "") -> None:
    """Pin a Bento's packages with their hashes.

    In requirements.lock, beside its bentofile.

    Example: ekiben lock digits
    """
    from ekiben.pipeline import packages

    project = _project()
    _out(packages.lock(project, bento or project.settings.recipe))


app.command()(deploy)


@app.command()
def status(service: Service = "", env: Env = LOCAL, as_json: JsonFlag = False) -> None:
    """Show what is live, what is idle, and where the service listens.

    Example: ekiben status --env production
    """
    from ekiben.rollout import show

    place = _place(service, env)
    seen = place.observe()
    mend = "run `ekiben up`" if env == LOCAL else "kubectl describe its pods says why; `ekiben rollback` goes back"
    _out({**seen.model_dump(mode="json"), "url": place.url} if as_json else show.status(seen, place.url, mend))


@app.command()
def history(service: Service = "", env: Env = LOCAL, as_json: JsonFlag = False) -> None:
    """List what was live when, the newest last.

    Example: ekiben history --json
    """
    from ekiben.rollout import show

    releases = _place(service, env).history()
    _out([release.model_dump(mode="json") for release in releases] if as_json else show.history(releases))


@app.command()
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
        _out(_listed(place.plan(Live(release, release.by))))
        return
    stages.switch_over(place, release)
    if env != LOCAL:
        place.retire()  # the other colour takes no room, and what is live has its own limits again
    if alias:
        stages.promote(_project(), release)
    _out(f"{release.bento} is live in {release.slot}")


@app.command()
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
        _out(_listed(place.plan(wanted)))
        return
    release = stages.roll_back(_project(), place, by=by) if alias else place.rollback(by)
    _out(f"{release.bento} is live again, in {release.slot}")
    if env != LOCAL:
        place.retire()


@app.command()
def up(service: Service = "") -> None:
    """Start what should run and does not.

    After `ekiben down`, a crash or a restart of the machine.

    Example: ekiben up
    """
    place = _platform(service)
    place.ensure_serving()
    status(service)


@app.command()
def down(service: Service = "") -> None:
    """Stop the service, its slots and the embedded tracker.

    `ekiben up` goes on from where it was.

    Example: ekiben down
    """
    from ekiben import tracking

    _platform(service).down()
    tracking.tracker(_project()).stop()
    _out("stopped")


for command in (approve, reject, render, autoscale, doctor):
    app.command()(command)


def _project() -> "Project":
    from ekiben.config import Project

    return Project.here()


def _platform(service: str) -> "LocalPlatform":
    from ekiben.pipeline import sources, stages

    project = _project()
    name = service or project.settings.recipe
    sources.recipe(project, name)
    return stages.platform(project, name)


def _cluster(service: str, env: str) -> "KubernetesPlatform":
    return deploying.platform(_project(), service or _project().settings.recipe, env)


def _place(service: str, env: str) -> "LocalPlatform | KubernetesPlatform":
    return _platform(service) if env == LOCAL else _cluster(service, env)


def _listed(actions: "list[Action]") -> str:
    return "\n".join(map(str, actions)) or "nothing to do"


def _out(value: object) -> None:
    sys.stdout.write(value if isinstance(value, str) else json.dumps(value))
    sys.stdout.write("\n")


def main() -> None:
    """Entry point of the console script: errors that a user can meet are shown without a traceback.

    Who asked for JSON gets the error as JSON too, on standard output; a person's message is on standard error.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123 - None where it was closed: `ekiben … >&-`
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        app()
    except EkibenError as error:
        if "--json" in sys.argv:
            with contextlib.suppress(BrokenPipeError):
                _out(error.as_json())
        sys.stderr.write(f"ekiben: {error}\n")
        sys.exit(error.exit_code)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # nobody reads any more; at its end the interpreter would try again, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
