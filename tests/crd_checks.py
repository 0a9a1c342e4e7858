"""Strict validation of Argo documents: against the CRDs' own schemas, with every unknown field refused.

An API server prunes what it does not know, silently: a typo would be lost, not refused. The CRDs are not part of this
repository; their folder is what EKIBEN_ARGO_CRDS names, or ../shared/argo-crds beside the repository.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

CRDS = Path(os.environ.get("EKIBEN_ARGO_CRDS") or Path(__file__).parents[2] / "shared" / "argo-crds")
_METADATA = {"name", "generateName", "namespace", "labels", "annotations"}


def problems(document: Any) -> list[str]:
    """What is wrong with it, each with its path; empty for a document that the CRD knows in full."""
    found = [f"metadata.{key}: unknown" for key in document.get("metadata", {}) if key not in _METADATA]
    for error in _validator(document["kind"]).iter_errors(document):
        found.append(f"{'.'.join(map(str, error.absolute_path))}: {error.message}")
    return found


@cache
def _validator(kind: str) -> Draft202012Validator:
    crd = json.loads((CRDS / f"{kind.lower()}s.json").read_text())
    return Draft202012Validator(_strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _strict(each) for name, each in value.items()} if key == "properties" else _strict(value)
        for key, value in schema.items()
    }
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
