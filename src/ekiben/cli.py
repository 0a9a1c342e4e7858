"""The command line. Each command is a thin shell over a plain function; what is heavy is imported inside it."""

import contextlib
import os
import sys
from typing import Annotated

import typer

from ekiben.commands import loadtest, webhook, workflow
from ekiben.commands.approval import approve, reject
from ekiben.commands.autoscale import autoscale
from ekiben.commands.deploy import deploy
from ekiben.commands.doctor import doctor
from ekiben.commands.packaging import build, image, lock, pull
from ekiben.commands.render import render
from ekiben.commands.shell import JsonFlag, here, out, pairs
from ekiben.commands.traffic import down, history, rollback, status, switch, up
from ekiben.errors import EkibenError, UsageError
from ekiben.scaffold import Framework
from ekiben.tracker import commands as tracker

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
    out(show.told(planned, written=not dry_run))


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
    from ekiben.pipeline import rehearsal

    if resume is not None:  # an empty name is a mistake, and no new release
        if recipe or param or slo:
            raise UsageError(
                "--resume goes on with what the run was started with", wanted="no recipe, --param or --slo"
            )
        raise typer.Exit(rehearsal.resume(here(), resume, as_json=as_json))

    code = rehearsal.run(here(), name, recipe, pairs("--param", param or []), slo or [], as_json=as_json)
    raise typer.Exit(code)


DELIVERY = (pull, build, image, lock, deploy)
TRAFFIC = (status, history, switch, rollback, up, down)
for command in (*DELIVERY, *TRAFFIC, approve, reject, render, autoscale, doctor):
    app.command()(command)


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
                out(error.as_json())
        sys.stderr.write(f"ekiben: {error}\n")
        sys.exit(error.exit_code)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # nobody reads any more; at its end the interpreter would try again, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
