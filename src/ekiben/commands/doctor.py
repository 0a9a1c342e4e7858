"""`ekiben doctor`: what is in the way, here or in an environment."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ekiben.commands.deploy import ENV_HELP
from ekiben.commands.shell import out

if TYPE_CHECKING:
    from ekiben.config import Project


def doctor(
    service: Annotated[
        str, typer.Argument(help="Service that is to be deployed there; by default the project's own recipe.")
    ] = "",
    env: Annotated[str, typer.Option(help=f"{ENV_HELP} Without it, this machine is checked.")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="How long a check may take, in s.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Check this machine, or a cluster, for what a release needs.

    Each line that is not ok says what to do.

    Example: ekiben doctor --env staging
    """
    import dataclasses
    import os

    from ekiben.commands import delivery
    from ekiben.config import Project
    from ekiben.doctor import finding, machine, show

    project = Project.here()
    if env:
        from ekiben.doctor import environment

        target = delivery.targets(project, env, [service or project.settings.recipe])[0]
        insecure = project.settings.insecure_registries
        found = environment.findings(target, _documents(project), os.environ, timeout, insecure)
    else:
        found = finding.run(machine.checks(project, os.environ), timeout)
    code = finding.exit_code(found)
    told = {"checks": [dataclasses.asdict(each) for each in found], "exit_code": code}
    out(told if as_json else show.table(found))
    raise typer.Exit(code)


def _documents(project: "Project") -> dict[str, list[dict[str, Any]]]:
    """The workflows as they are committed beside their definitions, by their files' names."""
    import yaml

    from ekiben.errors import UsageError

    found = {}
    for file in sorted((project.root / "workflows").glob("*.yaml")):
        try:
            made = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
            if not made or not all(isinstance(each, dict) and each.get("kind") for each in made):
                raise ValueError("no objects with a kind")
            found[file.stem] = made
        except (yaml.YAMLError, ValueError) as error:
            raise UsageError(
                f"{file.relative_to(project.root)} is not a workflow's document: {error}",
                next_step=f"ekiben workflow export {file.stem} --write",
            ) from None
    return found
