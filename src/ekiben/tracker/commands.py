"""`ekiben tracker …`: thin shells over the tracker's plain functions, which are imported where they are needed."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The embedded server that speaks W&B's protocol.", no_args_is_help=True)
key = typer.Typer(help="Its API keys; they are kept as hashes.", no_args_is_help=True)
app.add_typer(key, name="key")

Data = Annotated[
    Path | None, typer.Option(help="Folder of its database and files; by default the project's .ekiben/tracker.")
]


@app.command()
def serve(
    data: Data = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
    protect: Annotated[list[str] | None, typer.Option(help="Alias that only admin keys may move.")] = None,
) -> None:
    """Serve until it is told to stop (SIGTERM, Ctrl-C).

    Example: ekiben tracker serve --port 8080
    """
    from ekiben.tracker.server import serve

    serve(_data(data), host, port, frozenset(protect or []))


@app.command()
def gc(
    data: Data = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove; without it, only say what would be.")] = False,
) -> None:
    """Remove what nothing refers to.

    Files, drafts that were given up, and versions past their time to live.

    Example: ekiben tracker gc --apply
    """
    from ekiben.tracker.maintenance import gc

    done = gc(_data(data), dry_run=not apply)
    verb = "removed" if apply else "would remove (--apply does)"
    _out(f"{verb}: {done.blobs:,} files, {done.bytes:,} bytes; {done.drafts:,} drafts; {len(done.expired):,} versions")
    for version in done.expired:
        _out(f"  {version}")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="File to write, one JSON object a line.")], data: Data = None
) -> None:
    """Write all that it knows as JSON lines; keys are left out.

    Example: ekiben tracker export tracker.jsonl
    """
    from ekiben.tracker.export import export

    _out(f"{export(_data(data), out):,} lines in {out}")


@app.command()
def push(
    data: Data = None,
    entity: Annotated[str, typer.Option(help="Entity to copy to; by default the key's own.")] = "",
) -> None:
    """Copy all runs and models to a W&B server.

    The one that WANDB_BASE_URL and WANDB_API_KEY name.

    Example: WANDB_API_KEY=… ekiben tracker push --entity acme
    """
    import os

    from ekiben.errors import UsageError

    if not os.environ.get("WANDB_API_KEY"):
        raise UsageError("WANDB_API_KEY is not set", wanted="a key of the server to push to, in the environment")
    os.environ.setdefault("WANDB_SILENT", "true")
    from ekiben.tracker.push import push

    done = push(_data(data), entity, _out)
    _out(f"{done.runs:,} runs and {done.versions:,} versions copied; {done.skipped:,} runs were there already")


@key.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call the key.")],
    data: Data = None,
    entity: Annotated[str, typer.Option(help="Entity whose runs it logs unless they say otherwise.")] = "local",
    admin: Annotated[bool, typer.Option("--admin", help="It may move protected aliases.")] = False,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the key from standard input; do not print it.")] = False,
) -> None:
    """Make a key and print it, this once. From the first key on the tracker needs one.

    Example: ekiben tracker key create alice
    """
    from ekiben.tracker.keys import create_key

    if stdin:
        create_key(_data(data), name, entity, admin, sys.stdin.read(1024).strip())
    else:
        _out(create_key(_data(data), name, entity, admin))


@key.command("list")
def list_(data: Data = None, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the keys' names, never the keys.

    Example: ekiben tracker key list
    """
    from ekiben.tracker.keys import list_keys

    keys = list_keys(_data(data))
    if as_json:
        _out(json.dumps([key._asdict() for key in keys]))
        return
    for each in keys:
        state = f"revoked {each.revoked_at[:19]}" if each.revoked_at else "works"
        _out(f"{each.name:<20} {each.entity:<12} {'admin' if each.admin else '':<6} {each.created_at[:19]}  {state}")


@key.command()
def revoke(name: Annotated[str, typer.Argument(help="Name of the key.")], data: Data = None) -> None:
    """Make a key stop working, in a running server too.

    Example: ekiben tracker key revoke alice
    """
    from ekiben.tracker.keys import revoke_key

    revoke_key(_data(data), name)
    _out(f"{name} is revoked")


def _data(given: Path | None) -> Path:
    from ekiben.config import Project

    return given or Project.here().state / "tracker"


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")
