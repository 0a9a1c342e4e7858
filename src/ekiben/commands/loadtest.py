"""`ekiben loadtest …`: thin shells over the plain functions that measure, imported where they are needed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ekiben.commands import report as saved
from ekiben.commands import shell
from ekiben.commands.live import interruptible, progress
from ekiben.commands.shell import JsonFlag

if TYPE_CHECKING:
    from ekiben.pipeline.loading import Done, Order

app = typer.Typer(help="Load tests that judge: run, search, compare, report.", no_args_is_help=True)

Target = Annotated[str, typer.Argument(help="Address (http://HOST:PORT), or Bento of the store: NAME[:VERSION].")]
Slo = Annotated[list[str] | None, typer.Option(help="Objective: p99=300ms, error_rate=0.5%, 'p95_vs_live=9% and 5ms'.")]
SloFile = Annotated[Path | None, typer.Option(help="Objectives and load; by default the project's loadtests/slo.toml.")]
Golden = Annotated[Path | None, typer.Option(help="Requests and their answers; by default those of the Bento's model.")]
Rows = Annotated[str, typer.Option(help="Rows of a request: 8, 1-8, or with weights 1:9,32:1.")]
Rate = Annotated[float | None, typer.Option(help="Requests/s to offer.")]
Arrivals = Annotated[str | None, typer.Option(help="poisson, constant, or closed (loop; by --users).")]
WarmUp = Annotated[str | None, typer.Option(help="Offered first and not judged, such as 3s.")]
Duration = Annotated[str | None, typer.Option(help="Judged, such as 20s.")]
RequestTimeout = Annotated[str | None, typer.Option("--timeout", help="For the whole answer, such as 5s.")]
Seed = Annotated[int | None, typer.Option(help="Of arrival times and of the requests that are drawn.")]
MaxInFlight = Annotated[int | None, typer.Option(help="Requests under way at once, above which a run is invalid.")]
Processes = Annotated[int | None, typer.Option(help="Locust processes that share the load.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the report; by default a new one in .ekiben/loadtests.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command()
def run(
    target: Target,
    slo: Slo = None,
    slo_file: SloFile = None,
    golden: Golden = None,
    rows: Rows = "",
    rate: Rate = None,
    arrivals: Arrivals = None,
    users: Annotated[int | None, typer.Option(help="Users of a closed loop.")] = None,
    profile: Annotated[str, typer.Option(help="Rate over time, such as 0s:50,60s:200 (a ramp).")] = "",
    trace: Annotated[str | None, typer.Option(help="File of recorded arrival times in s, one a line.")] = None,
    warm_up: WarmUp = None,
    duration: Duration = None,
    extend_to: Annotated[str | None, typer.Option(help="Measure an inconclusive run on, up to this: 60s.")] = None,
    timeout: RequestTimeout = None,
    seed: Seed = None,
    max_in_flight: MaxInFlight = None,
    processes: Processes = None,
    out: Out = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Load a service or a Bento, and judge. Exit code 0 PASS, 10 FAIL, 11 INCONCLUSIVE, 12 ERROR.

    Example: ekiben loadtest run digits --rate 200 --slo p99=50ms
    """
    from ekiben.pipeline import loading
    from ekiben.pipeline.outline import of_run
    from ekiben.pipeline.targets import Target

    order = _order("run", out, golden, rows, slo, slo_file, rate=rate, arrivals=arrivals, users=users, trace=trace,
                   profile=_profile(profile), warm_up=warm_up, duration=duration, extend_to=extend_to, timeout=timeout,
                   seed=seed, max_in_flight=max_in_flight, processes=processes)  # fmt: skip
    asked = Target.parse(target)
    if dry_run:
        _outline(of_run(*loading.objectives(order, asked.service)), as_json)
        return
    with interruptible(), progress() as tell:
        done = loading.run(asked, order, tell)
    _show(done, as_json)


@app.command()
def search(
    target: Target,
    slo: Slo = None,
    slo_file: SloFile = None,
    golden: Golden = None,
    rows: Rows = "",
    rate: Annotated[float | None, typer.Option(help="Requests/s of the first probe.")] = None,
    highest: Annotated[float, typer.Option(help="Requests/s that are never exceeded.")] = 20_000.0,
    budget: Annotated[str, typer.Option(help="How long it may take in all, such as 600s.")] = "600s",
    arrivals: Arrivals = None,
    warm_up: WarmUp = None,
    timeout: RequestTimeout = None,
    seed: Seed = None,
    max_in_flight: MaxInFlight = None,
    processes: Processes = None,
    out: Out = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the highest rate that holds an objective.

    With the curve of latency over rate.

    Example: ekiben loadtest search digits --slo p99=50ms
    """
    from ekiben.pipeline import loading
    from ekiben.pipeline.outline import of_search
    from ekiben.pipeline.targets import Target

    order = _order("search", out, golden, rows, slo, slo_file, rate=rate, arrivals=arrivals, warm_up=warm_up,
                   timeout=timeout, seed=seed, max_in_flight=max_in_flight, processes=processes)  # fmt: skip
    asked, seconds = Target.parse(target), _seconds("--budget", budget)
    if dry_run:
        _outline(of_search(*loading.objectives(order, asked.service), seconds, highest), as_json)
        return
    with interruptible(), progress() as tell:
        done = loading.search(asked, order, seconds, highest, tell)
    _show(done, as_json)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="What is there: an address, a Bento, or a saved report.json.")],
    b: Annotated[str, typer.Argument(help="What is to be judged: the same kind.")],
    slo: Slo = None,
    slo_file: SloFile = None,
    golden: Golden = None,
    rows: Rows = "",
    rate: Rate = None,
    arrivals: Arrivals = None,
    warm_up: WarmUp = None,
    duration: Annotated[str | None, typer.Option(help="Judged, for both together; by default 60s.")] = None,
    timeout: RequestTimeout = None,
    seed: Seed = None,
    max_in_flight: MaxInFlight = None,
    processes: Processes = None,
    out: Out = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Is B slower than A? Both get the same load in turn.

    In short blocks; FAIL (10) when B is slower.

    Two saved reports are only set side by side, and only if their load, requests and machine are the same.

    Example: ekiben loadtest compare digits:v1-1a2b3c4d digits:v2-5e6f7a8b
    """
    from ekiben.pipeline import loading
    from ekiben.pipeline.outline import of_comparison
    from ekiben.pipeline.targets import Target

    if a.endswith(".json") and b.endswith(".json"):
        rows_ = loading.beside(Path(a), Path(b))
        shell.out(
            dict(rows_) if as_json else "\n".join([*(f"{name:<6} {text}" for name, text in rows_), loading.APART])
        )
        return
    order = _order("compare", out, golden, rows, slo, slo_file, rate=rate, arrivals=arrivals, warm_up=warm_up,
                   duration=duration, timeout=timeout, seed=seed, max_in_flight=max_in_flight,
                   processes=processes)  # fmt: skip
    first, second = Target.parse(a), Target.parse(b)
    if dry_run:
        _outline(of_comparison(*loading.comparison_plan(order, second.service)), as_json)
        return
    with interruptible(), progress() as tell:
        done = loading.compare(first, second, order, tell)
    _show(done, as_json)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A saved report.json, or the folder that it is in.")],
    form: Annotated[saved.Form, typer.Option("--format", help="What to make of it.")] = saved.Form.TERMINAL,
    output: Annotated[Path | None, typer.Option(help="File to write; by default it is printed.")] = None,
    post: Annotated[
        bool, typer.Option("--post", help="Also show it where this CI does: GitHub's step summary, GitLab's artifacts.")
    ] = False,
) -> None:
    """Show a saved report in any form.

    The exit code is its verdict's: 0 PASS, 10 FAIL, 11 INCONCLUSIVE, 12 ERROR.

    Example: ekiben loadtest report report.json --format html --output report.html
    """
    raise typer.Exit(saved.report(path, form, output, post=post))


def _order(
    kind: str,
    out: Path | None,
    golden: Path | None,
    rows: str,
    slo: list[str] | None,
    slo_file: Path | None,
    **load: Any,
) -> "Order":
    from ekiben.loadtest.payloads import Mix
    from ekiben.pipeline.loading import Order, new_folder

    if rows:
        Mix.parse(rows)
    given = {key: value for key, value in load.items() if value is not None}
    return Order(out or new_folder(kind), golden, rows, tuple(slo or ()), slo_file, given)


def _profile(text: str) -> list[list[Any]] | None:
    """`0s:50,60s:200` -> [["0s", 50], ["60s", 200]], as slo.toml has it."""
    if not text:
        return None
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return [[at.strip(), float(rate)] for at, rate in pairs]
    except ValueError:
        raise typer.BadParameter("wanted TIME:RATE,…, such as 0s:50,60s:200", param_hint="--profile") from None


def _seconds(flag: str, text: str) -> float:
    from ekiben.loadtest.plans import quantity

    amount, unit = quantity(text) or (0.0, "")
    if unit not in ("s", "ms") or not amount:
        raise typer.BadParameter(f"{text!r}; wanted a time, such as 600s", param_hint=flag)
    return amount / (1000 if unit == "ms" else 1)


def _show(done: "Done", as_json: bool) -> None:
    if as_json:
        measured = done.report
        shell.out(
            {
                "report": str(done.path),
                "verdict": done.verdict.model_dump(mode="json"),
                "search": measured.search and measured.search.model_dump(mode="json"),
                "comparison": measured.comparison and measured.comparison.model_dump(mode="json"),
            }
        )
    else:
        saved.report(done.path)
        sys.stdout.write(f"\n  {done.path.parent / 'report.html'}\n")
    raise typer.Exit(done.verdict.outcome.exit_code)


def _outline(lines: dict[str, str], as_json: bool) -> None:
    width = max(map(len, lines))
    shell.out(lines if as_json else "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items()))
