"""An image of a Bento: a numeric user, and nothing that it needs to write but /tmp.

It is made whole, packages and Bento, by whatever program builds images here; or appended: the Bento is one more layer
on a runtime image, which holds the packages already. Appending needs no program and no rights (append.py).
"""

import json
import shlex
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from ekiben.errors import UsageError
from ekiben.files import write_atomically
from ekiben.packaging import append, bundle, engines, sbom, store, wheels
from ekiben.packaging.engines import APPEND, CONTAINERFILE, SBOM_STAGE, Order
from ekiben.packaging.lineage import COMMIT, CONTENT, DIGEST, PACKAGES, VERSION
from ekiben.packaging.requirements import LOCK, Packages
from ekiben.packaging.store import Stored
from ekiben.types import BentoRef, ImageRef, ModelVersion

USER = 10001
"""Numeric user and group, so that Kubernetes' `runAsNonRoot` can be checked."""
PORT = 3000

_ENV = {
    "HOME": "/tmp",
    "BENTOML_HOME": "/tmp/bentoml",
    "BENTOML_DO_NOT_TRACK": "true",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_SERVE = ["-m", "bentoml", "serve", "/bento"]
_LISTEN = ["--host", "0.0.0.0", "--port", str(PORT)]

# Wheels come as a mount, so they are in no layer. Byte code that is never compared with its source stays right when
# files get a fixed time, and a read-only image can not write its own. Some wheels hold files in another Python's
# syntax, which nothing imports here: pip passes them over, too.
_TEMPLATE = """\
FROM {base} AS build
{copy_bento}RUN --mount=type=bind,source=wheels,target=/wheels --mount=type=bind,source=sbom.py,target=/sbom.py \\
    python3 -c 'import sys; have = "%d.%d" % sys.version_info[:2]; \\
      have == "{python}" or sys.exit("the base image has Python " + have + ", the Bento wants {python}")' \\
 && python3 -m venv --without-pip /opt/venv && python3 -m venv /tmp/pip \\
 && /tmp/pip/bin/python -m pip --python /opt/venv/bin/python install --quiet --no-index --no-deps --no-compile \\
      --no-cache-dir --disable-pip-version-check --root-user-action=ignore /wheels/*.whl \\
 && (/opt/venv/bin/python -m compileall -qq --invalidation-mode unchecked-hash /opt/venv/lib || true) \\
{compile_bento} && python3 /sbom.py /opt/venv/lib/python{python}/site-packages {name} {version} {digest} \\
      > /sbom.cdx.json \\
 && chmod -R a+rX,go-w{bento} /opt/venv /sbom.cdx.json

FROM scratch AS {sbom_stage}
COPY --from=build /sbom.cdx.json /sbom.cdx.json

FROM {base}
COPY --from=build /opt/venv /opt/venv
{take_bento}COPY --from=build /sbom.cdx.json /sbom.cdx.json
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin
"""
_BENTO = {
    "copy_bento": "COPY bento /bento\n",
    "compile_bento": " && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /bento/src \\\n",
    "bento": " /bento",
    "take_bento": "COPY --from=build /bento /bento\n",
}


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
        tail = _tail(_envs(bento), "python")
        return Plan(f"FROM {place.base or _runtime(bento, place)}\nCOPY bento /bento\n{tail}", [])
    order = _order(bento, Path("CONTEXT"), place)
    return Plan(_containerfile(bento, place.base), engines.choose(engine).commands(order))


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
        _prepare(context, packages, _containerfile(bento, place.base))
        order = _order(bento, context, place)
        for command in program.commands(order):
            engines.output(command)
        write_atomically(sbom_file, program.sbom(order) + "\n")
        image = ImageRef(repository=place.repository, digest=program.digest(order), bento=ref)
    return Built(image, sbom_file)


def plan_runtime(name: str, packages: Packages, place: Place, engine: str) -> Plan:
    order = _runtime_order(name, packages, place, Path("CONTEXT"))
    return Plan(_runtime_text(name, packages, place), engines.choose(engine).commands(order))


def build_runtime(name: str, packages: Packages, place: Place, engine: str, sbom_file: Path) -> Runtime:
    """Make the image that Bentos with these packages are appended to, or run in as bundles."""
    program = engines.choose(engine)
    with store.scratch() as context:
        _prepare(context, packages, _runtime_text(name, packages, place))
        order = _runtime_order(name, packages, place, context)
        for command in program.commands(order):
            engines.output(command)
        write_atomically(sbom_file, program.sbom(order) + "\n")
        return Runtime(order.image, program.digest(order), sbom_file)


def _runtime_order(name: str, packages: Packages, place: Place, context: Path) -> Order:
    title = {"title": f"{name}-runtime", "base.name": place.base or _slim(packages.python)}
    labels = {PACKAGES: packages.digest, **{f"org.opencontainers.image.{key}": value for key, value in title.items()}}
    return Order(context, runtime_name(place.repository, packages), labels, 0, place.push, place.insecure)


def _runtime_text(name: str, packages: Packages, place: Place) -> str:
    base, tag = place.base or _slim(packages.python), packages.digest[:16]
    nothing = dict.fromkeys(_BENTO, "")
    return _text(base, packages.python, f"{name}-runtime", tag, packages.digest, _ENV, nothing)


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
    base = append.Base(place.base or runtime_name(place.repository, packages), place.insecure)
    held = base.labels.get(PACKAGES)
    if held not in (None, packages.digest) or CONTENT in base.labels:
        raise UsageError(
            f"{base.reference} " + ("is a Bento's image" if CONTENT in base.labels else "holds other packages"),
            wanted=f"a runtime image with the packages of {bento.tag}, {packages.digest[:16]}",
            next_step=f"make it: ekiben image {ref.name} --runtime --push",
        )
    order = _order(bento, Path(), Place(str(base.reference), place.repository, True, place.insecure))
    run: dict[str, Any] = {
        "User": f"{USER}:{USER}",
        "WorkingDir": "/bento",
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Entrypoint": ["python", *_SERVE],
        "Cmd": _LISTEN,
    }
    with store.scratch() as scratch:
        bundle.export(bento.tag, scratch / "bento")
        added = append.Addition(scratch / "bento", "/bento", run, _envs(bento), order.labels, order.epoch)
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


def _runtime(bento: Stored, place: Place) -> str:
    return runtime_name(place.repository, _locked(bento))


def _order(bento: Stored, context: Path, place: Place) -> Order:
    name, _, version = bento.tag.partition(":")
    base = place.base or _slim(_python(bento))
    known = {"title": name, "version": version, "revision": bento.labels.get(COMMIT, ""), "base.name": base}
    labels = {f"org.opencontainers.image.{key}": value for key, value in known.items() if value}
    created = datetime.fromisoformat(str(bento.document["creation_time"]))
    all_labels = {**bento.labels, **labels}
    return Order(
        context, f"{place.repository}:{version}", all_labels, int(created.timestamp()), place.push, place.insecure
    )


def _prepare(context: Path, packages: Packages, text: str) -> None:
    (context / LOCK).write_text(packages.lock, encoding="utf-8")
    wheels.fetch(context / LOCK, packages.python, context / "wheels")
    shutil.copy(str(files("ekiben.packaging") / "sbom.py"), context / "sbom.py")
    (context / CONTAINERFILE).write_text(text, encoding="utf-8")


def _containerfile(bento: Stored, base: str) -> str:
    name, _, version = bento.tag.partition(":")
    python = _python(bento)
    return _text(
        base or _slim(python), python, name, version, bento.labels.get(CONTENT, bento.tag), _envs(bento), _BENTO
    )


def _text(
    base: str, python: str, name: str, version: str, digest: str, envs: Mapping[str, str], parts: Mapping[str, str]
) -> str:
    made = _TEMPLATE.format(
        base=base,
        python=python,
        name=shlex.quote(name),
        version=shlex.quote(version),
        digest=shlex.quote(digest),
        sbom_stage=SBOM_STAGE,
        **parts,
    )
    return made + _tail(envs, "/opt/venv/bin/python")


def _tail(envs: Mapping[str, str], python: str) -> str:
    """How it runs, which adds no layer."""
    assigned = [f"{key}={json.dumps(value).replace('$', chr(92) + '$')}" for key, value in envs.items()]
    return (
        f"ENV {' '.join(assigned)}\nWORKDIR /bento\nUSER {USER}:{USER}\nEXPOSE {PORT}\n"
        f"ENTRYPOINT {json.dumps([python, *_SERVE])}\nCMD {json.dumps(_LISTEN)}\n"
    )


def _envs(bento: Stored) -> dict[str, str]:
    own = {each["name"]: str(each["value"]) for each in bento.document.get("envs") or [] if each.get("value")}
    return {**_ENV, **own}


def _python(bento: Stored) -> str:
    return str(bento.document["image"]["python_version"])


def _slim(python: str) -> str:
    return f"python:{python}-slim"
