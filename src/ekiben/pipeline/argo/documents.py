"""The Workflow that is sent to a cluster: made of a document or a template's name, with parameters, and named. Pure."""

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ekiben.errors import UnsupportedError, UsageError

Json = dict[str, Any]
API_VERSION = "argoproj.io/v1alpha1"
SUBMISSION = "ekiben.dev/submission"
"""Label by which a submission knows its own workflow again, after an answer that got lost."""
TEMPLATE = "workflows.argoproj.io/workflow-template"
"""Argo's own label of what a workflow was made of; its command sets it, its controller does not."""
INSTANCE = "workflows.argoproj.io/controller-instanceid"
"""Argo's own label of the controller that is to take something up, where there are several."""
LONGEST_NAME = 54
"""Argo labels pods with the workflow's name: 63 characters at most, with `-` and eight more."""


def workflow(
    document: Json | str, parameters: Mapping[str, str], namespace: str, key: str, labels: Mapping[str, str]
) -> Json:
    """The Workflow to create. A document runs as it stands; a `str` names the WorkflowTemplate to refer to.

    `key` decides the name: what is submitted twice with the same key is the same run.
    """
    metadata: Json = {}
    spec: Json
    if isinstance(document, str):
        base, spec = document, {"workflowTemplateRef": {"name": document}}
        metadata = {"labels": {TEMPLATE: document}}
        if parameters:
            _fill(spec, parameters)
    else:
        base, metadata, spec = _of(document)
        if parameters:
            _fill(spec, parameters)
    return {
        "apiVersion": API_VERSION,
        "kind": "Workflow",
        "metadata": {
            "name": named(base, key),
            "namespace": namespace,
            "labels": {
                **(metadata.get("labels") or {}),
                "app.kubernetes.io/managed-by": "ekiben",
                **labels,
                SUBMISSION: mark(key),
            },
            **({"annotations": metadata["annotations"]} if metadata.get("annotations") else {}),
        },
        "spec": spec,
    }


def named(base: str, key: str) -> str:
    """`base` and characters of the key's digest, as a name that Kubernetes takes. Two keys in 10^11 share one."""
    clean = re.sub(r"[^a-z0-9-]+", "-", base.lower()).strip("-")[:LONGEST_NAME].rstrip("-") or "workflow"
    digest = int(hashlib.sha256(key.encode()).hexdigest(), 16)
    return f"{clean}-" + "".join("bcdfghjklmnpqrstvwxz2456789"[digest // 27**n % 27] for n in range(8))


def mark(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def parameters_of(document: Json) -> list[Json]:
    """The parameters that a Workflow, a template or a CronWorkflow declares."""
    spec = document.get("spec") or {}
    return list(((spec.get("workflowSpec") or spec).get("arguments") or {}).get("parameters") or ())


def texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as Argo takes them: what is no text becomes JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}


def check(declared: list[Json], given: Mapping[str, str], what: str) -> None:
    """UsageError for a parameter that is unknown, missing, or none of its choices."""
    known = {each["name"]: each for each in declared}
    for name, value in given.items():
        if name not in known:
            raise UsageError(
                f"{what} has no parameter {name!r}", wanted=f"one of {', '.join(known)}" if known else "none at all"
            )
        choices = known[name].get("enum")
        if choices and value not in map(str, choices):
            raise UsageError(f"{what}: {name}={value!r}", wanted=f"one of {', '.join(map(str, choices))}")
    for name, each in known.items():
        source = each.get("valueFrom") or {}
        without = each.get("value") is None and each.get("default") is None and not source
        if name not in given and without:
            raise UsageError(
                f"{what} needs the parameter {name!r}, which has no value", next_step=f"give it: --param {name}=…"
            )


def _of(document: Json) -> tuple[str, Json, Json]:
    """The base of the name, the metadata and the spec of a document's workflow; copies."""
    kind, metadata = document.get("kind"), document.get("metadata") or {}
    base = metadata.get("name") or metadata.get("generateName") or "workflow"
    spec = copy.deepcopy(document.get("spec") or {})
    if kind == "CronWorkflow":
        return base, spec.get("workflowMetadata") or {}, spec["workflowSpec"]
    if kind in ("WorkflowTemplate", "ClusterWorkflowTemplate"):
        return base, {}, spec
    if kind != "Workflow":
        raise UnsupportedError(f"a {kind} cannot be submitted", wanted="a Workflow, a template or a CronWorkflow")
    return base.rstrip("-"), metadata, spec


def _fill(spec: Json, parameters: Mapping[str, str]) -> None:
    arguments = spec.setdefault("arguments", {})
    declared = {each["name"]: each for each in arguments.get("parameters") or ()}
    for name, value in parameters.items():
        declared[name] = {**declared.get(name, {"name": name}), "value": value}
        declared[name].pop("valueFrom", None)
    arguments["parameters"] = list(declared.values())
