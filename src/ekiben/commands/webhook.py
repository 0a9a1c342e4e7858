"""`ekiben webhook …`: aliases in W&B become workflows in the cluster, by its events or by looking."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ekiben.commands.shell import JsonFlag, here, out

app = typer.Typer(help="Promotions in W&B that start workflows: [tool.ekiben.webhook].", no_args_is_help=True)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="File with the secrets of W&B's signature, one a line; else EKIBEN_WEBHOOK_SECRET has them."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with access tokens, one a line; else EKIBEN_WEBHOOK_TOKEN; none are needed."),
    ] = None,
) -> None:
    """Receive W&B's automations at POST /wandb.

    Until it is told to stop: SIGTERM, Ctrl-C.

    Example: ekiben webhook serve --port 8080 --secret-file /etc/ekiben/secret
    """
    from ekiben.webhook.server import serve

    serve(here(), host, port, secret_file, token_file)


@app.command()
def poll(
    as_json: JsonFlag = False,
) -> None:
    """Look once at every alias, and submit what the receiver would.

    The aliases of [tool.ekiben.webhook].

    Example: ekiben webhook poll
    """
    from ekiben.pipeline import promotion

    found = promotion.poll(here(), "ekiben webhook poll")
    if as_json:
        out({"promotions": [dataclasses.asdict(each) for each in found]})
    else:
        out("\n".join(map(str, found)) or "no version has one of the aliases")
