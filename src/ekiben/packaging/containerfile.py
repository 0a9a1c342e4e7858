"""The Containerfile of a Bento's image, or of a runtime image, and how containers of either run."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ekiben.packaging.engines import SBOM_STAGE

USER = 10001
"""Numeric user and group, so that Kubernetes' `runAsNonRoot` can be checked."""
PORT = 3000

ENV = {
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
RUN: Mapping[str, Any] = {
    "User": f"{USER}:{USER}",
    "WorkingDir": "/bento",
    "ExposedPorts": {f"{PORT}/tcp": {}},
    "Entrypoint": ["python", *_SERVE],
    "Cmd": _LISTEN,
}
"""What `tail` says, in OCI's terms and for a runtime image of whatever make: its own PATH finds Python."""


def whole(base: str, python: str, named: tuple[str, str, str], env: Mapping[str, str]) -> str:
    """Packages and Bento. `named` are the name, the version and the digest that the SBOM tells."""
    return _filled(base, python, named, _BENTO) + tail(env, "/opt/venv/bin/python")


def packages_only(base: str, python: str, named: tuple[str, str, str]) -> str:
    return _filled(base, python, named, dict.fromkeys(_BENTO, "")) + tail(ENV, "/opt/venv/bin/python")


def appended(base: str, env: Mapping[str, str]) -> str:
    """What appending amounts to; no program reads it."""
    return f"FROM {base}\nCOPY bento /bento\n" + tail(env, "python")


def tail(env: Mapping[str, str], python: str) -> str:
    """How it runs, which adds no layer."""
    assigned = [f"{key}={json.dumps(value).replace('$', chr(92) + '$')}" for key, value in env.items()]
    return (
        f"ENV {' '.join(assigned)}\nWORKDIR /bento\nUSER {USER}:{USER}\nEXPOSE {PORT}\n"
        f"ENTRYPOINT {json.dumps([python, *_SERVE])}\nCMD {json.dumps(_LISTEN)}\n"
    )


def slim(python: str) -> str:
    """The base where nobody names one."""
    return f"python:{python}-slim"


def _filled(base: str, python: str, named: tuple[str, str, str], bento: Mapping[str, str]) -> str:
    name, version, digest = map(shlex.quote, named)
    return _TEMPLATE.format(
        base=base, python=python, name=name, version=version, digest=digest, sbom_stage=SBOM_STAGE, **bento
    )
