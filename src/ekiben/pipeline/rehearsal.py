"""`ekiben run`: the exported document of a workflow, executed on this machine from end to end."""

import contextlib
import getpass
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from ekiben import tracking
from ekiben.config import Project
from ekiben.errors import ConflictError, NotFoundError, UsageError
from ekiben.files import locked, write_atomically
from ekiben.pipeline import checks, definitions, document, measuring, progress, sources, stages, summary, timeline
from ekiben.pipeline.attempts import Processes
from ekiben.pipeline.local import Engine
from ekiben.platforms.local import HOLDER

BEGUN, ENDED = "begun.json", "summary.json"


@dataclass(frozen=True)
class Begun:
    """What a run was started with, which is what it goes on with when it was cut off."""

    document: dict[str, Any]
    recipe: str
    given: dict[str, str]


def run(
    project: Project, workflow: str, recipe: str, params: Mapping[str, str], slo: list[str], *, as_json: bool
) -> int:
    """Execute `workflow` and tell a person, or with `as_json` a machine, what came of it. Returns the exit code.

    What can be wrong with the user's words is found before the first step.
    """
    recipe = recipe or project.settings.recipe
    sources.recipe(project, recipe).with_params(params)
    measuring.objectives(project, slo, recipe)
    given = {
        "recipe": recipe,
        "params": json.dumps(dict(params)),
        "slo": json.dumps(slo),
        "watch-seconds": str(project.settings.watch_seconds),
        "by": getpass.getuser(),
    }
    name = f"{workflow}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    begun = Begun(definitions.load(project, workflow), recipe, given)
    return _execute(project, name, begun, as_json=as_json)


def resume(project: Project, name: str, *, as_json: bool) -> int:
    """Go on with a run that was cut off, after the last step that it finished, with the document that it had."""
    folder = project.state / "runs" / name
    if not (folder / BEGUN).is_file():
        known = sorted(path.parent.name for path in (project.state / "runs").glob(f"*/{BEGUN}"))
        raise NotFoundError(
            f"there is no run {name!r} in this project",
            wanted=f"one of {', '.join(known[-5:]) or 'none: there is no run'}",
        )
    if (folder / ENDED).is_file():
        outcome = json.loads((folder / ENDED).read_text())["outcome"]
        raise UsageError(
            f"{name} has ended: {outcome}",
            wanted="a run that was cut off; one that ended has cleared up behind it",
            next_step="start a new run: `ekiben run`",
        )
    return _execute(project, name, Begun(**json.loads((folder / BEGUN).read_text())), as_json=as_json)


def _execute(project: Project, name: str, begun: Begun, *, as_json: bool) -> int:
    console = Console(stderr=as_json)
    checks.require(begun.document)
    read = document.read(begun.document)
    folder = project.state / "runs" / name
    with _alone(project):
        platform = stages.platform(project, begun.recipe)
        platform.observe()
        platform.ensure_switch()  # a port that is taken shows now, not after the training
        write_atomically(folder / BEGUN, json.dumps(asdict(begun)))
        run_env = {stages.RUN_FOLDER: str(folder), HOLDER: str(os.getpid())}
        env = {**os.environ, **tracking.environment(project), **run_env}
        shown = progress.display(console)
        engine = Engine(
            read, name=name, folder=folder, state=project.state, steps=Processes(project.root, env), tell=shown.tell,
            parameters={key: value for key, value in begun.given.items() if key in read.arguments},
        )  # fmt: skip
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: engine.stop())
            result = engine.run()
        finally:
            shown.close()
    ended = summary.of(result)
    observed = platform.observe()
    told = ended.as_json(observed.selector, platform.url if observed.selector else "")
    write_atomically(folder / ENDED, json.dumps(told, indent=2))
    write_atomically(folder / "run.html", timeline.page(ended, folder))
    with contextlib.suppress(BrokenPipeError):
        ours = observed.active is not None and observed.active.run == name
        _show(console, ended, told, folder, stages.example(platform), ours)
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
    return ended.exit_code


@contextlib.contextmanager
def _alone(project: Project) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(project.state / "run.lock", timeout=0))
        except ConflictError as error:
            raise ConflictError(
                "another `ekiben run` is at work in this project",
                wanted="one run at a time: they would share the idle slot",
                next_step="wait for it, or end it",
            ) from error
        yield


def _show(
    console: Console, ended: summary.Summary, told: Mapping[str, Any], folder: Path, example: Any, ours: bool
) -> None:
    """`ours`: what is live is this run's own release."""

    def line(key: str, text: str) -> None:
        console.print(f"{key:<9}{text}", markup=False, highlight=False, soft_wrap=True)

    console.print()
    console.print(progress.table(ended.nodes))
    console.print()
    color = "green" if ended.verdict.passed else "red"
    console.print(str(ended.verdict), style=color, markup=False, highlight=False, soft_wrap=True)
    if told["active"]:
        unjudged = ", this run's release, NOT WATCHED TO THE END: nothing was live before it"
        kept = "" if ended.exit_code == 0 else unjudged if ours else ", as before this run"
        line("service", f"{told['url']}  ({told['active']}{kept})")
    else:
        line("service", "nothing is live")
    if ended.report:
        line("report", os.path.relpath(told["report"]))
    if ended.probe:
        probe = ended.probe
        failed = f"{probe.failed:,} failed" + (f" ({probe.first_failure})" if probe.failed else "")
        again = f", {probe.reconnects:,} sent anew after a kept connection closed" if probe.reconnects else ""
        line("probe", f"{probe.requests:,} requests through the switch, {failed}{again}, worst {probe.worst_ms:.0f} ms")
    line("course", os.path.relpath(folder / "run.html"))
    line("logs", os.path.relpath(folder / "steps"))
    if told["active"] and example:
        request = json.dumps(example["request"], separators=(",", ":"))
        line("try", f"curl -s {told['url']}{example['route']} -H 'Content-Type: application/json' -d '{request}'")
        line("", f"# answers with {json.dumps(example['response'])}")
