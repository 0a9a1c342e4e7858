"""`ekiben render`: the Kubernetes objects of services as YAML, for GitOps or for a look. No cluster is asked."""

from typing import Annotated, Literal

import typer


def render(
    services: Annotated[list[str], typer.Argument(metavar="SERVICE...", help="Services: recipes below bentos/.")],
    env: Annotated[str, typer.Option(help="Environment of pyproject.toml: [tool.ekiben.environments.ENV].")],
    slot: Annotated[
        Literal["blue", "green"] | None, typer.Option(help="Only what belongs to this colour; by default everything.")
    ] = None,
    bento: Annotated[str, typer.Option(help="Bento: a tag of the store, or what `build --json` wrote.")] = "",
    image: Annotated[str, typer.Option(help="Its image: [REPOSITORY@]sha256:…, or what `image --json` wrote.")] = "",
    create: Annotated[
        bool, typer.Option("--create", help="Only the Services, with selectors: for `kubectl create`, once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of YAML.")] = False,
) -> None:
    """Print a service's Kubernetes objects.

    Deployments too, where a Bento or an image is named.

    Example: ekiben render digits --env production --slot blue --bento digits
    """
    import json
    import sys

    from ekiben.commands import delivery
    from ekiben.config import Project
    from ekiben.platforms.manifests import groups, shared, text

    if create and (slot or bento or image):
        raise typer.BadParameter("prints the two Services and nothing else", param_hint="--create")
    project = Project.here()
    targets = delivery.targets(project, env, services)
    delivered = delivery.named(targets, bento, image) if bento or image else None
    manifests = []
    for target in targets:
        if create:
            manifests += shared.first_services(target)
        elif slot:
            manifests += groups.colour(target, slot, delivered)
        else:
            manifests += groups.everything(target, delivered)
    if as_json:
        sys.stdout.write(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}) + "\n")
    else:
        sys.stdout.write(text.to_yaml(manifests))
