"""What the run on a real cluster is told: environment variables, and nothing else. Without the first two it is skipped;
what ~/.kube/config points to is never touched.

    KUBECONFIG                 a kubeconfig of the cluster, with a user who may create namespaces and Roles
    EKIBEN_E2E_PIPELINE_IMAGE  image that holds this project, REPOSITORY:TAG or REPOSITORY@sha256:DIGEST
    EKIBEN_E2E_PULL            when nodes pull images: Never (the default), IfNotPresent or Always
    EKIBEN_E2E_CONTEXT         context of the kubeconfig; by default the current one
    EKIBEN_E2E_SETTINGS        more of the environment's table in pyproject.toml, as TOML, a line each
    EKIBEN_E2E_LONGEST         seconds that a workflow may take at most; 1800 by default

The cluster has Argo Workflows 4 with a controller that sees all namespaces, and a storage class for the tracker's
volume. Nodes need the image of Argo's executor; how it is pulled is for Argo's own configuration to say. Of programs,
kubectl must be here, for its port-forward to the tracker.

One image is enough: its pods train, build, deploy and load, serve the bundles, and run the tracker. It holds the
project at its working directory, `python` and `ekiben` on the PATH, and a `.ekiben` that user 10001 may write:

    FROM python:3.11-slim
    WORKDIR /project
    COPY . .
    RUN pip install --no-cache-dir '.[sklearn]' && install -d -o 10001 -g 10001 .ekiben
    USER 10001

For example with kind, in a fresh clone with that as its Dockerfile:

    docker build -t localhost/pipeline:1 . && kind load docker-image localhost/pipeline:1
    KUBECONFIG=~/.kube/config EKIBEN_E2E_PIPELINE_IMAGE=localhost/pipeline:1 make test-cluster

Everything is done in two namespaces, ekiben-e2e-…, that are made and deleted here. A run that was killed leaves them:
kubectl delete namespace -l ekiben.dev/e2e
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_EXACT = re.compile(r"[^@\s]+(:[^:/@\s]+|@sha256:[0-9a-f]{64})")
_PULL = ("Never", "IfNotPresent", "Always")


@dataclass(frozen=True)
class Settings:
    kubeconfig: Path
    image: str
    pull: str = "Never"
    context: str = ""
    longest: float = 1800.0
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """ValueError where something is not as it must be."""
        image, pull = given["EKIBEN_E2E_PIPELINE_IMAGE"], given.get("EKIBEN_E2E_PULL") or "Never"
        if not _EXACT.fullmatch(image):
            raise ValueError(f"EKIBEN_E2E_PIPELINE_IMAGE={image}: wanted REPOSITORY:TAG or REPOSITORY@sha256:DIGEST")
        if pull not in _PULL:
            raise ValueError(f"EKIBEN_E2E_PULL={pull}: wanted one of {', '.join(_PULL)}")
        return cls(
            kubeconfig=Path(given["KUBECONFIG"]).expanduser().absolute(),
            image=image,
            pull=pull,
            context=given.get("EKIBEN_E2E_CONTEXT", ""),
            longest=float(given.get("EKIBEN_E2E_LONGEST") or 1800),
            more=tomllib.loads(given.get("EKIBEN_E2E_SETTINGS", "")),
        )


def missing(given: Mapping[str, str]) -> str:
    """Why nothing is done with a cluster; '' if all is there that must be."""
    lacking = [name for name in ("KUBECONFIG", "EKIBEN_E2E_PIPELINE_IMAGE") if not given.get(name)]
    return f"no cluster: {' and '.join(lacking)} not set (see tests/e2e/argo/settings.py)" if lacking else ""
