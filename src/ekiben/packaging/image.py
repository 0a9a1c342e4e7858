"""An image of a Bento: a numeric user, and nothing that it needs to write but /tmp.

It is made whole, packages and Bento, by whatever program builds images here; or appended: the Bento is one more layer
on a runtime image, which holds the packages already. Appending needs no program and no rights (append.py).
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from ekiben.errors import NotFoundError, UsageError
from ekiben.files import write_atomically
from ekiben.packaging import append, bundle, containerfile, engines, sbom, store, wheels
from ekiben.packaging.engines import APPEND, CONTAINERFILE, Order
from ekiben.packaging.lineage import COMMIT, CONTENT, DIGEST, PACKAGES, VERSION
from ekiben.packaging.requirements import LOCK, Packages
from ekiben.packaging.store import Stored
from ekiben.types import BentoRef, ImageRef, ModelVersion


@dataclass(frozen=True)
class Place:
    """Where an image comes from and goes to. Of `insecure` registries nobody expects TLS."""

    base: str
    repository: str
    push: bool = True
    insecure: Collection[str] = ()


class Plan(NamedTuple):
    """What a dry run shows."""

    containerfile: str
    commands: list[list[str]]


class Built(NamedTuple):
    image: ImageRef
    sbom: Path


class Runtime(NamedTuple):
    """A runtime image: its name, as environments take it for `runtime_image`, and its digest."""

    image: str
    digest: str
    sbom: Path


def plan(bento: Stored, place: Place, engine: str) -> Plan:
    """The Containerfile, and the commands with `CONTEXT` for the folder that they are given."""
    if engine == APPEND:
        return Plan(
            containerfile.appended(place.base or runtime_name(place.repository, _locked(bento)), _env(bento)), []
        )
    order = _order(bento, Path("CONTEXT"), place)
    return Plan(_whole(bento, place), engines.choose(engine).commands(order))


def build(bento: Stored, place: Place, engine: str, sbom_file: Path) -> Built:
    """Make the image `repository:<the Bento's version>`, and write its SBOM (CycloneDX JSON) to `sbom_file`.

    An empty base is the official Python image, or what `build_runtime` made for the Bento's packages where it is
    appended; an empty `engine` whichever works. Packages are those of the Bento's requirements.lock, or locked now
    where it has none; pip fetches them on this machine, by its own configuration, and the build needs no network.
    """
    ref = reference(bento)
    if engine == APPEND:
        return _append(bento, ref, place, sbom_file)
    program = engines.choose(engine)
    with store.scratch() as context:
        bundle.export(bento.tag, context / "bento")
        packages = Packages.of_bento(bento) or Packages.locked(
            bento.document["image"]["python_requirements"].split(), _python(bento)
        )
        digest = _run(program, _order(bento, context, place), packages, _whole(bento, place), sbom_file)
    return Built(ImageRef(repository=place.repository, digest=digest, bento=ref), sbom_file)


def plan_runtime(name: str, packages: Packages, place: Place, engine: str) -> Plan:
    order = _runtime_order(name, packages, place, Path("CONTEXT"))
    return Plan(_runtime_text(name, packages, place), engines.choose(engine).commands(order))


def build_runtime(name: str, packages: Packages, place: Place, engine: str, sbom_file: Path) -> Runtime:
    """Make the image that Bentos with these packages are appended to, or run in as bundles."""
    program = engines.choose(engine)
    with store.scratch() as context:
        order = _runtime_order(name, packages, place, context)
        digest = _run(program, order, packages, _runtime_text(name, packages, place), sbom_file)
    return Runtime(order.image, digest, sbom_file)


def _runtime_order(name: str, packages: Packages, place: Place, context: Path) -> Order:
    title = {"title": f"{name}-runtime", "base.name": place.base or containerfile.slim(packages.python)}
    labels = {PACKAGES: packages.digest, **{f"org.opencontainers.image.{key}": value for key, value in title.items()}}
    return Order(context, runtime_name(place.repository, packages), labels, 0, place.push, place.insecure)


def _runtime_text(name: str, packages: Packages, place: Place) -> str:
    base, tag = place.base or containerfile.slim(packages.python), packages.digest[:16]
    return containerfile.packages_only(base, packages.python, (f"{name}-runtime", tag, packages.digest))


def runtime_name(repository: str, packages: Packages) -> str:
    """By its packages: other packages are another image, so an image with the wrong ones is never taken."""
    return f"{repository}-runtime:{packages.digest[:16]}"


def reference(bento: Stored) -> BentoRef:
    """What the labels say that the Bento is. UsageError for one that `ekiben build` did not make."""
    labels = bento.labels
    if not labels.keys() >= {VERSION, DIGEST, CONTENT}:
        raise UsageError(
            f"the Bento {bento.tag} has no lineage",
            wanted=f"the labels {VERSION}, {DIGEST} and {CONTENT}",
            next_step="build it with `ekiben build`",
        )
    name, _, version = bento.tag.partition(":")
    model = ModelVersion.parse(labels[VERSION], labels[DIGEST])
    return BentoRef(name=name, version=version, digest=labels[CONTENT], model=model)


def _append(bento: Stored, ref: BentoRef, place: Place, sbom_file: Path) -> Built:
    packages = _locked(bento)
    make = f"make it: `ekiben image {ref.name} --runtime --push`, or the workflow runtime_on_cluster"
    try:
        base = append.Base(place.base or runtime_name(place.repository, packages), place.insecure)
    except NotFoundError as error:
        raise NotFoundError(error.seen, wanted="the runtime image", next_step=make) from None
    held = base.labels.get(PACKAGES)
    if held not in (None, packages.digest) or CONTENT in base.labels:
        raise UsageError(
            f"{base.reference} " + ("is a Bento's image" if CONTENT in base.labels else "holds other packages"),
            wanted=f"a runtime image with the packages of {bento.tag}, {packages.digest[:16]}",
            next_step=make,
        )
    order = _order(bento, Path(), Place(str(base.reference), place.repository, True, place.insecure))
    with store.scratch() as scratch:
        bundle.export(bento.tag, scratch / "bento")
        added = append.Addition(scratch / "bento", "/bento", containerfile.RUN, _env(bento), order.labels, order.epoch)
        digest = append.append(base, added, order.image, scratch, place.insecure)
    below = (f"{base.reference.host}/{base.reference.path}", base.manifest.digest)
    listed = sbom.of_appended(ref.name, ref.version, ref.digest, packages.versions, below)
    write_atomically(sbom_file, listed + "\n")
    return Built(ImageRef(repository=place.repository, digest=digest, bento=ref), sbom_file)


def _locked(bento: Stored) -> Packages:
    if (found := Packages.of_bento(bento)) is None:
        raise UsageError(
            f"the Bento {bento.tag} has no {LOCK}, so nobody knows a runtime image with its packages",
            next_step="write the lock with `ekiben lock`, and build the Bento again",
        )
    return found


def _order(bento: Stored, context: Path, place: Place) -> Order:
    name, _, version = bento.tag.partition(":")
    base = place.base or containerfile.slim(_python(bento))
    known = {"title": name, "version": version, "revision": bento.labels.get(COMMIT, ""), "base.name": base}
    labels = {f"org.opencontainers.image.{key}": value for key, value in known.items() if value}
    created = datetime.fromisoformat(str(bento.document["creation_time"]))
    all_labels = {**bento.labels, **labels}
    return Order(
        context, f"{place.repository}:{version}", all_labels, int(created.timestamp()), place.push, place.insecure
    )


def _run(program: engines.Buildah, order: Order, packages: Packages, text: str, sbom_file: Path) -> str:
    """The digest of what was built."""
    context = order.context
    (context / LOCK).write_text(packages.lock, encoding="utf-8")
    wheels.fetch(context / LOCK, packages.python, context / "wheels")
    shutil.copy(str(files("ekiben.packaging") / "sbom.py"), context / "sbom.py")
    (context / CONTAINERFILE).write_text(text, encoding="utf-8")
    for command in program.commands(order):
        engines.output(command)
    write_atomically(sbom_file, program.sbom(order) + "\n")
    return program.digest(order)


def _whole(bento: Stored, place: Place) -> str:
    name, _, version = bento.tag.partition(":")
    named = (name, version, bento.labels.get(CONTENT, bento.tag))
    return containerfile.whole(place.base or containerfile.slim(_python(bento)), _python(bento), named, _env(bento))


def _env(bento: Stored) -> dict[str, str]:
    own = {each["name"]: str(each["value"]) for each in bento.document.get("envs") or [] if each.get("value")}
    return {**containerfile.ENV, **own}


def _python(bento: Stored) -> str:
    return str(bento.document["image"]["python_version"])
