"""`ekiben workflow submit, watch, logs, resume, stop`: the runs of workflows on Argo."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ekiben.commands.shell import JsonFlag, here, out, pairs
from ekiben.commands.workflow import Env, app, connected

if TYPE_CHECKING:
    from ekiben.pipeline import argo

RunName = Annotated[str, typer.Argument(help="Run: the name of a Workflow in the cluster.")]
INTERRUPTED = 130
"""Exit code of a command that was interrupted, as shells have it for Ctrl-C."""


@app.command()
def submit(
    name: Annotated[str, typer.Argument(help="WorkflowTemplate in the cluster, or its module; or a file: FILE.yaml.")],
    env: Env = "",
    param: Annotated[list[str] | None, typer.Option(help="Parameter, such as recipe=digits.")] = None,
    key: Annotated[str, typer.Option(help="What is submitted twice with the same key runs once.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Watch it until it is over.")] = False,
    timeout: Annotated[float | None, typer.Option(help="With --wait: at most so many seconds.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the Workflow only.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start a workflow on Argo.

    What the cluster holds under this name, or a file as it stands.

    Example: ekiben workflow submit release --env staging --param recipe=digits --wait
    """
    from ekiben.pipeline import argo, definitions

    client = connected(env)
    # A workflow may be named by its module, too: no object in a cluster has an underscore.
    document = definitions.file(name)[0] if definitions.is_file(name) else name.replace("_", "-")
    values = pairs("--param", param or [])
    if dry_run:
        import yaml

        made = argo.prepared(client, document, values, key)
        out(made if as_json else yaml.safe_dump(made, sort_keys=False).rstrip())
        return
    run = argo.submit(document, values, client=client, key=key)
    if isinstance(document, str) and _is_another(document, client.template(document)):
        sys.stderr.write(
            f"note: the cluster's {document} is not what lies in workflows/;"
            f" `ekiben workflow apply {_module(document)}` brings it there\n"
        )
    if wait:
        _watched(run, timeout, as_json)
    else:
        out({"run": run.name, "namespace": run.namespace, "uid": run.uid} if as_json else run.name)


@app.command()
def watch(
    run: RunName,
    env: Env = "",
    timeout: Annotated[float | None, typer.Option(help="At most so many seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a run's steps until it is over.

    Phase, duration and what each waits for; the run's end is the exit code.

    Example: ekiben workflow watch release-x7k2p --env staging
    """
    from ekiben.pipeline import argo

    _watched(argo.find(run, client=connected(env)), timeout, as_json)


@app.command()
def logs(
    run: RunName,
    env: Env = "",
    step: Annotated[str, typer.Option(help="Step: its path, its last part, or its template.")] = "",
    tail: Annotated[int | None, typer.Option(help="Only so many last lines of each pod.", min=0)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
) -> None:
    """Print what the steps of a run wrote.

    Example: ekiben workflow logs release-x7k2p --step train
    """
    from ekiben.pipeline import argo

    found = argo.find(run, client=connected(env))
    try:
        for name, line in argo.logs(found, step, tail=tail, keep_on=follow):
            sys.stdout.write(f"{line}\n" if step else f"{name:<20} | {line}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def resume(
    run: RunName,
    env: Env = "",
    step: Annotated[str, typer.Option(help="Step that waits, where several do.")] = "",
    output: Annotated[list[str] | None, typer.Option(help="Value that it asks for, such as decision=approve.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a suspended run go on. What a release waits for is better said with `ekiben approve`, which records it.

    Example: ekiben workflow resume nightly-x7k2p --step check --output verdict=good
    """
    from ekiben.pipeline import argo

    found = argo.find(run, client=connected(env))
    resumed = argo.resume(found, step, pairs("--output", output or []))
    name = resumed.name if resumed else ""
    out({"run": found.name, "step": name} if as_json else f"{found.name} goes on{f' after {name}' if name else ''}")


@app.command()
def stop(
    run: RunName,
    env: Env = "",
    now: Annotated[bool, typer.Option("--now", help="At once, without its exit handler.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """End a run. Its exit handler still runs, which takes back what it deployed; with --now it does not.

    Example: ekiben workflow stop release-x7k2p --env staging
    """
    from ekiben.pipeline import argo

    found = argo.find(run, client=connected(env))
    (argo.terminate if now else argo.stop)(found)
    how = "at once" if now else "after its exit handler"
    out({"run": found.name, "stopped": "Terminate" if now else "Stop"} if as_json else f"{found.name} ends {how}")


def _is_another(name: str, template: Any) -> bool:
    """Whether the project has a workflow of that name whose YAML is not what runs."""
    from ekiben.errors import EkibenError
    from ekiben.pipeline import definitions

    try:
        own = definitions.file(str(definitions.golden(here(), _module(name))))
    except EkibenError:  # not in a project, or one without such a workflow
        return False
    return any(
        each.get("kind") == "WorkflowTemplate"
        and each["metadata"].get("name") == name
        and not definitions.holds(template["spec"], each["spec"])
        for each in own
    )


def _module(name: str) -> str:
    """Below workflows/, of what a cluster has under that name."""
    return name.replace("-", "_")


def _watched(run: "argo.Run", timeout: float | None, as_json: bool) -> None:
    from rich.console import Console

    from ekiben.pipeline import argo
    from ekiben.pipeline.argo import show
    from ekiben.pipeline.argo.display import display

    try:
        with display(run.client, Console(stderr=True)) as shown:
            status = argo.wait(run, timeout, shown)
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{run.name} goes on: `ekiben workflow watch {run.name}`, or `ekiben workflow stop`\n")
        raise typer.Exit(INTERRUPTED) from None
    out(show.as_json(status, run.namespace) if as_json else f"{run.name} {status.phase}")
