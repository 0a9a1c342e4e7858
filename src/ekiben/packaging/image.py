"""An image of a Bento: two stages, a numeric user, and nothing that it needs to write but /tmp."""

import json
import shlex
import shutil
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from ekiben.errors import UsageError
from ekiben.files import write_atomically
from ekiben.packaging import bundle, engines, requirements, store, wheels
from ekiben.packaging.engines import CONTAINERFILE, SBOM_STAGE, Order
from ekiben.packaging.lineage import COMMIT, CONTENT, DIGEST, VERSION
from ekiben.packaging.requirements import LOCK
from ekiben.packaging.store import Stored
from ekiben.types import BentoRef, ImageRef, ModelVersion

USER = 10001
"""Numeric user and group, so that Kubernetes' `runAsNonRoot` can be checked."""
PORT = 3000

# Wheels come as a mount, so they are in no layer. Byte code that is never compared with its source stays right when
# files get a fixed time, and a read-only image can not write its own. Some wheels hold files in another Python's
# syntax, which nothing imports here: pip passes them over, too.
_TEMPLATE = """\
FROM {base} AS build
COPY bento /bento
RUN --mount=type=bind,source=wheels,target=/wheels --mount=type=bind,source=sbom.py,target=/sbom.py \\
    python3 -c 'import sys; have = "%d.%d" % sys.version_info[:2]; \\
      have == "{python}" or sys.exit("the base image has Python " + have + ", the Bento wants {python}")' \\
 && python3 -m venv --without-pip /opt/venv && python3 -m venv /tmp/pip \\
 && /tmp/pip/bin/python -m pip --python /opt/venv/bin/python install --quiet --no-index --no-deps --no-compile \\
      --no-cache-dir --disable-pip-version-check --root-user-action=ignore /wheels/*.whl \\
 && (/opt/venv/bin/python -m compileall -qq --invalidation-mode unchecked-hash /opt/venv/lib || true) \\
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /bento/src \\
 && python3 /sbom.py /opt/venv/lib/python{python}/site-packages {name} {version} {digest} > /sbom.cdx.json \\
 && chmod -R a+rX,go-w /bento /opt/venv /sbom.cdx.json

FROM scratch AS {sbom_stage}
COPY --from=build /sbom.cdx.json /sbom.cdx.json

FROM {base}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /bento /bento
COPY --from=build /sbom.cdx.json /sbom.cdx.json
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=true \\
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1{envs}
WORKDIR /bento
USER {user}:{user}
EXPOSE {port}
ENTRYPOINT ["/opt/venv/bin/python", "-m", "bentoml", "serve", "/bento"]
CMD ["--host", "0.0.0.0", "--port", "{port}"]
"""


class Plan(NamedTuple):
    """What a dry run shows."""

    containerfile: str
    commands: list[list[str]]


class Built(NamedTuple):
    image: ImageRef
    sbom: Path


def plan(bento: Stored, *, base: str, repository: str, engine: str, push: bool) -> Plan:
    """The Containerfile, and the commands with `CONTEXT` for the folder that they are given."""
    order = _order(bento, Path("CONTEXT"), base or _base(bento), repository, push)
    return Plan(_containerfile(bento, base), engines.choose(engine).commands(order))


def build(bento: Stored, *, base: str, repository: str, engine: str, push: bool, sbom: Path) -> Built:
    """Make the image `repository:<the Bento's version>`, and write its SBOM (CycloneDX JSON) to `sbom`.

    An empty `base` is the official Python image; an empty `engine` whichever works.
    Packages are those of the Bento's requirements.lock, or locked now where it has none; pip fetches them on this
    machine, by its own configuration, and the build itself needs no network.
    """
    program = engines.choose(engine)
    ref = reference(bento)
    with store.scratch() as context:
        bundle.export(bento.tag, context / "bento")
        lock = context / "bento" / "src" / LOCK
        if not lock.is_file():
            lock = context / LOCK
            wanted = bento.document["image"]["python_requirements"].split()
            lock.write_text(requirements.compile(wanted, _python(bento)), encoding="utf-8")
        wheels.fetch(lock, _python(bento), context / "wheels")
        shutil.copy(str(files("ekiben.packaging") / "sbom.py"), context / "sbom.py")
        (context / CONTAINERFILE).write_text(_containerfile(bento, base), encoding="utf-8")
        order = _order(bento, context, base or _base(bento), repository, push)
        for command in program.commands(order):
            engines.output(command)
        write_atomically(sbom, program.sbom(order) + "\n")
        image = ImageRef(repository=repository, digest=program.digest(order), bento=ref)
    return Built(image, sbom)


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


def _order(bento: Stored, context: Path, base: str, repository: str, push: bool) -> Order:
    name, _, version = bento.tag.partition(":")
    known = {"title": name, "version": version, "revision": bento.labels.get(COMMIT, ""), "base.name": base}
    labels = {f"org.opencontainers.image.{key}": value for key, value in known.items() if value}
    created = datetime.fromisoformat(str(bento.document["creation_time"]))
    return Order(context, f"{repository}:{version}", {**bento.labels, **labels}, int(created.timestamp()), push)


def _containerfile(bento: Stored, base: str) -> str:
    name, _, version = bento.tag.partition(":")
    envs = {each["name"]: each["value"] for each in bento.document.get("envs") or [] if each.get("value")}
    return _TEMPLATE.format(
        base=base or _base(bento),
        python=_python(bento),
        name=shlex.quote(name),
        version=shlex.quote(version),
        digest=shlex.quote(bento.labels.get(CONTENT, bento.tag)),
        sbom_stage=SBOM_STAGE,
        envs="".join(f" \\\n    {key}={json.dumps(value).replace('$', chr(92) + '$')}" for key, value in envs.items()),
        user=USER,
        port=PORT,
    )


def _python(bento: Stored) -> str:
    return str(bento.document["image"]["python_version"])


def _base(bento: Stored) -> str:
    return f"python:{_python(bento)}-slim"
