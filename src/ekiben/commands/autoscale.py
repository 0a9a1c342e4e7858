"""`ekiben autoscale`: what an autoscaler should be told, computed from a load report."""

from pathlib import Path
from typing import Annotated

import typer

from ekiben.commands.shell import JsonFlag, out


def autoscale(
    report: Annotated[Path, typer.Argument(help="report.json of a load test or a search, of one pod.")],
    peak: Annotated[float, typer.Option(min=0.001, max=1e7, help="Most requests/s that are expected.")],
    headroom: Annotated[float, typer.Option(min=0, max=90, help="Percent of what a pod bears to keep free.")] = 30.0,
    as_json: JsonFlag = False,
) -> None:
    """Turn a load report into an autoscaler's settings.

    Its target and numbers of pods, with the arithmetic.

    Example: ekiben autoscale report.json --peak 500
    """
    import dataclasses

    from pydantic import ValidationError

    from ekiben.errors import NotFoundError, UsageError
    from ekiben.rollout.autoscale import Measured, advise

    try:
        measured = Measured.model_validate_json(report.read_bytes())
    except OSError as error:
        raise NotFoundError(f"{report}: {error.strerror}", wanted="the report.json of a load test") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{report} is not a load report: {place}: {first['msg']}", wanted="a report.json") from None
    advice = advise(measured, peak, headroom)
    out(dataclasses.asdict(advice) if as_json else str(advice))
