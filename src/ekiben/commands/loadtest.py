"""`ekiben loadtest …`: thin shells over the plain functions that measure, imported where they are needed."""

import typer

app = typer.Typer(help="Load tests that judge: run, search, compare, report.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Load tests that judge: run, search, compare, report."""
