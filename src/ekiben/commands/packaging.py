"""`ekiben pull, build, image, lock`: models, Bentos and images."""

from typing import Annotated

import typer

from ekiben.commands.shell import JsonFlag, here, out
from ekiben.errors import UsageError


def pull(
    model: Annotated[str, typer.Argument(help="NAME[:ALIAS|:vN], or ENTITY/PROJECT/NAME:vN@DIGEST.")],
    bento: Annotated[bool, typer.Option("--bento", help="Bring a published Bento instead: NAME[:ALIAS].")] = False,
    into: Annotated[
        str,
        typer.Option(help="With --bento ENTITY/PROJECT/NAME:VERSION@DIGEST: into this folder, not the store."),
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Bring a model from W&B into the BentoML model store, verified.

    Nothing is done if it is there.

    Example: ekiben pull digits:production
    """
    if into:
        from pathlib import Path

        from ekiben.packaging import fetch

        if not bento:
            raise typer.BadParameter("only a Bento goes into a folder: add --bento", param_hint="--into")
        path = fetch.fetch(fetch.Bundle.parse(model), Path(into))
        out({"artifact": path, "folder": into} if as_json else into)
        return
    from ekiben.pipeline import packages

    project = here()
    if bento:
        ref = packages.pull_bento(project, model)
        out(ref.model_dump(mode="json") if as_json else ref.tag)
        return
    version = packages.resolve(project, model)
    stored = packages.pull(project, version)
    out(packages.described(version, stored) if as_json else stored.tag)


def build(
    model: Annotated[str, typer.Argument(help="NAME[:ALIAS|:vN], or ENTITY/PROJECT/NAME:vN@DIGEST.")],
    service: Annotated[str, typer.Option(help="Service, such as service.digits:Digits; by default the recipe's.")] = "",
    publish: Annotated[bool, typer.Option("--publish", help="Log the Bento to W&B, with its model's lineage.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Build the Bento that serves exactly this model.

    What has the same content is not built again.

    Example: ekiben build digits:production --publish
    """
    from ekiben.pipeline import packages

    project = here()
    version = packages.resolve(project, model)
    ref = packages.build(project, version.name, version, service)
    artifact = packages.publish(project, ref) if publish else ""
    if as_json:
        out({**ref.model_dump(mode="json"), "tag": ref.tag, "artifact": artifact})
    else:
        out(f"{ref.tag}\n{artifact}".rstrip())


def image(
    bento: Annotated[str, typer.Argument(help="Bento of the store: NAME[:VERSION]; by default its newest.")],
    push: Annotated[bool, typer.Option("--push", help="Push it to its registry.")] = False,
    base: Annotated[
        str,
        typer.Option(
            help="Base image with python3 and its venv; by default the project's own. To append: the runtime image; by"
            " default the one for the Bento's packages."
        ),
    ] = "",
    repository: Annotated[
        str, typer.Option(help="Where it goes: REGISTRY/PATH; by default by the project's settings.")
    ] = "",
    engine: Annotated[
        str,
        typer.Option(
            help="buildah, podman, docker or buildctl; by default what works. append: push the Bento as a layer on a"
            " runtime image, which takes no program."
        ),
    ] = "",
    runtime: Annotated[
        bool, typer.Option("--runtime", help="Make the runtime image: the packages of the project's lock, no Bento.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the Containerfile and the commands only.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a Bento's image, and its SBOM.

    For a user that is not root, and a read-only root file system.

    Example: ekiben image digits --repository registry.example/team/digits --push
    """
    import shlex

    from ekiben.packaging import engines, image, store
    from ekiben.pipeline import packages

    project = here()
    settings, name = project.settings, bento.partition(":")[0]
    repository = repository or f"{settings.image_registry}/{name}"
    appended = engine == engines.APPEND
    if (push or appended) and repository.startswith("localhost/"):
        raise UsageError(
            f"{'--engine append' if appended else '--push'} needs a registry to push to",
            next_step="--repository, or image_registry in [tool.ekiben]",
        )
    base = base or ("" if appended else settings.base_image)
    place = image.Place(base, repository, push or appended, settings.insecure_registries)
    found = None if runtime else store.existing_bento(bento)
    if dry_run:
        plan = image.plan(found, place, engine) if found else packages.plan_runtime(project, name, place, engine)
        out({"containerfile": plan.containerfile, "commands": plan.commands} if as_json else
             "\n".join([plan.containerfile, *map(shlex.join, plan.commands)]))  # fmt: skip
        return
    if found is None:
        sbom = project.state / "images" / f"{name}-runtime.cdx.json"
        made = packages.build_runtime(project, name, place, engine, sbom)
        out({"image": made.image, "digest": made.digest, "sbom": str(made.sbom)} if as_json else made.image)
        return
    sbom = project.state / "images" / f"{found.tag.replace(':', '-')}.cdx.json"
    built = image.build(found, place, engine, sbom)
    told = {**built.image.model_dump(mode="json"), "sbom": str(built.sbom)}
    out(told if as_json else f"{built.image}\n{built.sbom}")


def lock(bento: Annotated[str, typer.Argument(help="Bento; by default the project's own recipe.")] = "") -> None:
    """Pin a Bento's packages with their hashes.

    In requirements.lock, beside its bentofile.

    Example: ekiben lock digits
    """
    from ekiben.pipeline import packages

    project = here()
    out(packages.lock(project, bento or project.settings.recipe))
