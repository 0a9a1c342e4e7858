"""What these tests are told about a cluster: environment variables, and nothing else. Without the first two they are
skipped; what ~/.kube/config points to is never touched.

    KUBECONFIG             a kubeconfig of the cluster, with a user who may create namespaces and Roles
    EKIBEN_E2E_IMAGE       image of a Bento that the nodes have: REPOSITORY:TAG or REPOSITORY@sha256:DIGEST
    EKIBEN_E2E_NEXT_IMAGE  image of the next releases; by default the same one
    EKIBEN_E2E_PULL        when nodes pull images: Never (the default), IfNotPresent or Always
    EKIBEN_E2E_CONTEXT     context of the kubeconfig; by default the current one
    EKIBEN_E2E_GOLDEN      golden.json of the image's model; by default one request that fits `digits`
    EKIBEN_E2E_SETTINGS    more of the environment's table in pyproject.toml, as TOML, a line each:
                           resources = {memory = "2Gi"}
                           image_pull_secrets = ["registry"]
                           network = {from_addresses = ["10.0.0.0/8"]}

For Bentos that come as bundles, which are passed over without:

    EKIBEN_E2E_RUNTIME_IMAGE  image with ekiben, BentoML and the packages of the model
    EKIBEN_E2E_BUNDLE         what `ekiben build --publish --json` wrote of the Bento
    WANDB_BASE_URL, WANDB_API_KEY   where pods fetch it from; the key is put into a Secret of the namespace

One image is enough: releases then differ by what they are said to be of. `ekiben image digits` makes one that fits:
it serves at port 3000 as a user that is not root, with nothing to write to but /tmp, and its process is Python's. For
example with kind:

    ekiben image digits --json > image.json
    kind load docker-image localhost/digits:VERSION
    KUBECONFIG=~/.kube/config EKIBEN_E2E_IMAGE=localhost/digits:VERSION make test-cluster

Everything is done in one namespace, ekiben-e2e-…, that is made and deleted here; it enforces the restricted Pod
Security profile. Some six pods run at most at a time, by default with 100m CPU and 512Mi memory each. It takes some 20
minutes. A run that was killed leaves its namespace: kubectl delete namespace -l ekiben.dev/e2e
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_IMAGE = re.compile(r"(?P<repository>[^@\s]+?)(?::(?P<tag>[^:/@\s]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")
_PULL = ("Never", "IfNotPresent", "Always")
DEFAULTS: dict[str, Any] = {
    "replicas": {"min": 2, "max": 4},
    "autoscaling": {"target": 10_000},  # no load makes it add pods: sizes are what is told
    "resources": {"cpu": "100m", "memory": "512Mi"},
    "watch": {"seconds": 6, "min_requests": 5, "p99_ms": 5000},
    "start_seconds": 120,
}


@dataclass(frozen=True)
class Image:
    repository: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """ValueError unless it says which image exactly."""
        match = _IMAGE.fullmatch(text)
        if match is None or not (match["tag"] or match["digest"]):
            raise ValueError(f"{text!r} is not REPOSITORY:TAG or REPOSITORY@sha256:DIGEST")
        return cls(match["repository"], match["tag"] or "", match["digest"] or "")

    @property
    def by(self) -> str:
        """The setting `image_by`."""
        return "digest" if self.digest else "tag"

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    def told(self, service: str, number: int) -> dict[str, Any]:
        """What `ekiben image --json` would say of release `number`. Where nodes are asked by tag the digest is only
        told, so it may be made up."""
        model = {"entity": "e2e", "project": "kubernetes", "name": service, "version": f"v{number}"}
        bento = {
            "name": service,
            "version": self.tag if self.by == "tag" else f"b{number}",
            "digest": f"{number:064x}",
            "model": {**model, "digest": f"{number:032x}"},
        }
        digest = self.digest or f"sha256:{hashlib.sha256(self.tag.encode()).hexdigest()}"
        return {"repository": self.repository, "digest": digest, "bento": bento}


@dataclass(frozen=True)
class Bundle:
    runtime_image: str
    bento: dict[str, Any]
    url: str
    key: str

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        lacking = [name for name in ("EKIBEN_E2E_BUNDLE", "WANDB_BASE_URL", "WANDB_API_KEY") if not given.get(name)]
        if lacking:
            raise ValueError(f"EKIBEN_E2E_RUNTIME_IMAGE needs {', '.join(lacking)}")
        bento = json.loads(Path(given["EKIBEN_E2E_BUNDLE"]).expanduser().read_text())
        return cls(given["EKIBEN_E2E_RUNTIME_IMAGE"], bento, given["WANDB_BASE_URL"], given["WANDB_API_KEY"])


@dataclass(frozen=True)
class Settings:
    kubeconfig: str
    image: Image
    next_image: Image
    pull: str = "Never"
    context: str = ""
    golden: Path | None = None
    bundle: "Bundle | None" = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """ValueError where something is not as it must be."""
        pull = given.get("EKIBEN_E2E_PULL") or "Never"
        if pull not in _PULL:
            raise ValueError(f"EKIBEN_E2E_PULL={pull}: wanted one of {', '.join(_PULL)}")
        image = Image.parse(given["EKIBEN_E2E_IMAGE"])
        golden = given.get("EKIBEN_E2E_GOLDEN")
        found = cls(
            kubeconfig=given["KUBECONFIG"],
            image=image,
            next_image=Image.parse(given.get("EKIBEN_E2E_NEXT_IMAGE") or given["EKIBEN_E2E_IMAGE"]),
            pull=pull,
            context=given.get("EKIBEN_E2E_CONTEXT", ""),
            golden=Path(golden).expanduser().absolute() if golden else None,
            bundle=Bundle.read(given) if given.get("EKIBEN_E2E_RUNTIME_IMAGE") else None,
            more=tomllib.loads(given.get("EKIBEN_E2E_SETTINGS", "")),
        )
        if found.next_image.by != image.by:
            raise ValueError("EKIBEN_E2E_IMAGE and EKIBEN_E2E_NEXT_IMAGE: wanted both by tag, or both by digest")
        return found

    def environment(self, namespace: str, **changed: Any) -> dict[str, Any]:
        """The environment's table, as pyproject.toml has it."""
        ours = {**DEFAULTS, "image_by": self.image.by, "image_pull_policy": self.pull}
        return {**ours, **self.more, **changed, "namespace": namespace}


def missing(given: Mapping[str, str]) -> str:
    """Why nothing is done with a cluster; '' if all is there that must be."""
    lacking = [name for name in ("KUBECONFIG", "EKIBEN_E2E_IMAGE") if not given.get(name)]
    return f"no cluster: {' and '.join(lacking)} not set (see tests/e2e/kubernetes/settings.py)" if lacking else ""


def toml(value: Any) -> str:
    """`value` in one line of TOML."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f'"{key}" = {toml(each)}' for key, each in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
