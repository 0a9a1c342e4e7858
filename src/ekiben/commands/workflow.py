"""`ekiben workflow`: the project's workflows as Argo documents. Their runs on Argo are in runs.py."""

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ekiben.commands.shell import JsonFlag, here, out
from ekiben.errors import UsageError

if TYPE_CHECKING:
    from ekiben.pipeline.argo.client import Client

app = typer.Typer(help="The workflows as Argo documents, and their runs.", no_args_is_help=True)

Env = Annotated[
    str,
    typer.Option(
        help="Environment of pyproject.toml: its context and namespace. By default the kubeconfig's own, or what "
        "ARGO_SERVER and ARGO_NAMESPACE name."
    ),
]


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Workflow: a module below workflows/.")] = "release",
    write: Annotated[
        bool, typer.Option("--write", help="Write it beside its definition instead of printing it.")
    ] = False,
) -> None:
    """Print the workflow as an Argo document.

    It is what `ekiben run` executes, too.

    Example: ekiben workflow export release > release.yaml
    """
    from ekiben.pipeline import definitions

    project = here()
    text = definitions.export(project, name)
    if write:
        definitions.golden(project, name).write_text(text)
    else:
        sys.stdout.write(text)


@app.command()
def lint(
    names: Annotated[
        list[str] | None, typer.Argument(help="Modules below workflows/, or files: FILE.yaml; by default all modules.")
    ] = None,
    crds: Annotated[
        str,
        typer.Option(
            envvar="EKIBEN_ARGO_CRDS", help="Folder with Argo's full definitions as JSON: finds unknown fields."
        ),
    ] = "",
    imports: Annotated[bool, typer.Option(help="Whether the steps' functions must be importable here.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Find what is wrong with workflows before Argo does, or fails to.

    References, arguments, edges, imports.

    Example: ekiben workflow lint release
    """
    from pathlib import Path

    from ekiben.pipeline.checks import gather

    found = gather.mistakes(here(), names or [], Path(crds) if crds else None, imports=imports)
    problems = [(name, problem) for name, each in found.items() for problem in each]
    if as_json:
        told = [{"document": name, **dataclasses.asdict(problem)} for name, problem in problems]
        out({"checked": list(found), "problems": told})
    else:
        for name, each in found.items():
            out("\n".join(f"{name}: {problem}" for problem in each) or f"{name}: no mistakes")
    if problems:
        raise typer.Exit(UsageError.exit_code)


@app.command()
def apply(
    names: Annotated[
        list[str] | None, typer.Argument(help="Modules below workflows/, or files: FILE.yaml; by default all modules.")
    ] = None,
    env: Env = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change only.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take over fields that another manager has set.")] = False,
    check: Annotated[bool, typer.Option("--lint/--no-lint", help="Whether mistakes are refused before.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Install workflows in a cluster, and show what that changes.

    Templates, schedules and event bindings, by server-side apply.

    Example: ekiben workflow apply release --env staging --dry-run
    """
    from ekiben.pipeline.argo import install
    from ekiben.pipeline.checks import gather

    project = here()
    if check:
        gather.require_none(gather.mistakes(project, names or [], None, imports=False))
    documents = [each for found in gather.documents(project, names or []).values() for each in found]
    place = install.Place.configured(*_where(env))
    changes = place.planned(documents, force)
    if not dry_run:
        place.apply(documents, force)
    if as_json:
        out({"applied": not dry_run, "changes": [dataclasses.asdict(change) for change in changes]})
    else:
        out("\n".join(str(change) for change in changes))


def connected(env: str) -> "Client":
    """Argo as the environment's table names it; '' for what the kubeconfig or ARGO_SERVER name."""
    from ekiben.pipeline.argo.connection import connect

    return connect(*_where(env))


def _where(env: str) -> tuple[str, str]:
    """Context and namespace; '' for what the kubeconfig says itself."""
    if not env:
        return "", ""
    project = here()
    settings = project.environment(env, project.settings.recipe)
    return settings.context, settings.pipelines
