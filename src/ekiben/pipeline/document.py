"""Reads an Argo workflow document into what the local engine executes, and refuses the rest by name. Pure.

Three kinds of keys: those that are executed; those that only say where pods run, which changes nothing on one
machine; and all others, refused before the first step, because skipping one silently would make the rehearsal a lie.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ekiben.errors import UnsupportedError

Json = Any

_PLACEMENT = {
    "metadata", "serviceAccountName", "automountServiceAccountToken", "podGC", "ttlStrategy", "nodeSelector",
    "tolerations", "affinity", "securityContext", "podSpecPatch", "podMetadata", "imagePullSecrets", "archiveLogs",
    "volumeClaimTemplates", "volumeClaimGC", "volumes", "priorityClassName", "schedulerName", "workflowMetadata",
    "labelsFrom", "artifactGC", "artifactRepositoryRef", "executor",
}  # fmt: skip
_SPEC = {"entrypoint", "onExit", "arguments", "templates", "parallelism"}
_TEMPLATE = {"name", "inputs", "outputs", "dag", "script", "retryStrategy"}
_SCRIPT = {"command", "args", "source", "image", "imagePullPolicy", "env", "resources", "volumeMounts", "name"}
_TASK = {"name", "template", "arguments", "depends", "dependencies", "when"}
_RETRY = {"limit", "retryPolicy", "backoff"}
_POLICIES = {"Always": {"Failed", "Error"}, "OnFailure": {"Failed"}, "OnError": {"Error"}}
_RUNNER = ["-m", "hera.workflows.runner", "-e"]
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
REFERENCE = re.compile(r"\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True)
class Retry:
    """At most `limit` further attempts (None: without end), on these phases, waiting between them (in seconds)."""

    limit: int | None = 0
    phases: frozenset[str] = frozenset()
    wait: float = 0.0
    factor: float = 1.0
    max_wait: float | None = None


@dataclass(frozen=True)
class Task:
    name: str
    template: str
    parameters: Mapping[str, str]
    artifacts: Mapping[str, str]  # input name -> "tasks.<name>.outputs.artifacts.<output>" or "inputs.artifacts.<name>"
    depends: str
    when: str


@dataclass(frozen=True)
class Template:
    """A DAG of tasks or one Hera runner script (`entrypoint`, "module:function")."""

    name: str
    inputs: Mapping[str, str | None]  # parameter -> default
    input_artifacts: Mapping[str, bool]  # name -> optional
    outputs: Mapping[str, str]  # parameter -> path below the outputs folder, or the expression a DAG passes up
    output_artifacts: Mapping[str, str]
    tasks: tuple[Task, ...]
    entrypoint: str
    env: Mapping[str, str]
    retry: Retry


@dataclass(frozen=True)
class Document:
    name: str
    entrypoint: str
    on_exit: str
    arguments: Mapping[str, str | None]
    templates: Mapping[str, Template]
    parallelism: int | None


def read(document: Json) -> Document:
    """The executable form of a Workflow or WorkflowTemplate, given as `yaml.safe_load` or `to_dict` returns it."""
    kind = document.get("kind")
    if kind not in ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate"):
        raise UnsupportedError(f"cannot run a {kind} on this machine", wanted="a Workflow or WorkflowTemplate")
    spec = document["spec"]
    _refuse("spec", spec, _SPEC)
    templates = {item["name"]: _template(item) for item in spec.get("templates", [])}
    metadata = document.get("metadata", {})
    arguments = spec.get("arguments", {})
    _refuse("spec.arguments", arguments, {"parameters"})
    return Document(
        name=metadata.get("name") or metadata.get("generateName", "workflow-").rstrip("-"),
        entrypoint=spec.get("entrypoint", ""),
        on_exit=spec.get("onExit", ""),
        arguments=_parameters("spec.arguments", arguments),
        templates=templates,
        parallelism=spec.get("parallelism"),
    )


def _refuse(where: str, given: Mapping[str, Json], known: set[str]) -> None:
    for key, value in given.items():
        if key not in known and key not in _PLACEMENT and value is not None:
            raise UnsupportedError(
                f"{where}.{key} is not supported by the local engine",
                wanted=f"only {', '.join(sorted(known))}",
                next_step="submit the workflow to Argo, or leave this field out for a local run",
            )


def _parameters(where: str, holder: Mapping[str, Json]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for item in holder.get("parameters", []):
        _refuse(f"{where}.{item['name']}", item, {"name", "value", "default", "description", "enum"})
        value = item.get("value", item.get("default"))
        found[item["name"]] = None if value is None else str(value)
    return found


def _template(item: Json) -> Template:
    where = f"templates.{item['name']}"
    _refuse(where, item, _TEMPLATE)
    script, dag = item.get("script"), item.get("dag")
    if (script is None) == (dag is None):
        raise UnsupportedError(f"{where} is neither a DAG nor a script", wanted="`dag` or a Hera runner `script`")
    inputs, outputs = item.get("inputs", {}), item.get("outputs", {})
    _refuse(f"{where}.inputs", inputs, {"parameters", "artifacts"})
    _refuse(f"{where}.outputs", outputs, {"parameters", "artifacts"})
    for artifact in inputs.get("artifacts", []):
        here = f"{where}.inputs.artifacts.{artifact['name']}"
        _refuse(here, artifact, {"name", "path", "optional", "description"})
    for artifact in outputs.get("artifacts", []):
        _refuse(
            f"{where}.outputs.artifacts.{artifact['name']}",
            artifact,
            {"name", "path", "from", "description", "archive"},
        )
    return Template(
        name=item["name"],
        inputs=_parameters(f"{where}.inputs", inputs),
        input_artifacts={a["name"]: bool(a.get("optional")) for a in inputs.get("artifacts", [])},
        outputs={p["name"]: _source(f"{where}.outputs.{p['name']}", p) for p in outputs.get("parameters", [])},
        output_artifacts={a["name"]: a.get("from") or a["path"] for a in outputs.get("artifacts", [])},
        tasks=_tasks(where, dag) if dag is not None else (),
        entrypoint=_entrypoint(where, script) if script is not None else "",
        env=_env(where, script) if script is not None else {},
        retry=_retry(where, item.get("retryStrategy")),
    )


def _source(where: str, parameter: Json) -> str:
    source = parameter.get("valueFrom", {})
    _refuse(f"{where}.valueFrom", source, {"path", "parameter"})
    return str(source.get("path") or source["parameter"])


def _entrypoint(where: str, script: Json) -> str:
    _refuse(f"{where}.script", script, _SCRIPT)
    args = script.get("args", [])
    if args[:3] != _RUNNER or len(args) != 4:
        raise UnsupportedError(
            f"{where}.script runs {' '.join(map(str, [*script.get('command', []), *args]))}",
            wanted="a Hera runner script: python -m hera.workflows.runner -e module:function",
            next_step='declare it with @script(constructor="runner")',
        )
    return str(args[3])


def _env(where: str, script: Json) -> dict[str, str]:
    """Plain values only. What comes from a Secret or ConfigMap is taken from the environment of the run itself."""
    return {item["name"]: str(item["value"]) for item in script.get("env", []) if "value" in item}


def _tasks(where: str, dag: Json) -> tuple[Task, ...]:
    _refuse(f"{where}.dag", dag, {"tasks"})
    found = []
    for task in dag.get("tasks", []):
        here = f"{where}.dag.{task['name']}"
        _refuse(here, task, _TASK)
        arguments = task.get("arguments", {})
        _refuse(f"{here}.arguments", arguments, {"parameters", "artifacts"})
        for artifact in arguments.get("artifacts", []):
            _refuse(f"{here}.arguments.artifacts.{artifact['name']}", artifact, {"name", "from"})
        parameters = _parameters(f"{here}.arguments", arguments)
        found.append(
            Task(
                name=task["name"],
                template=task.get("template", ""),
                parameters={name: value or "" for name, value in parameters.items()},
                artifacts={a["name"]: a["from"].strip("{} ") for a in arguments.get("artifacts", [])},
                depends=task.get("depends") or " && ".join(task.get("dependencies", [])),
                when=task.get("when", ""),
            )
        )
    return tuple(found)


def _retry(where: str, strategy: Json) -> Retry:
    if strategy is None:
        return Retry()
    _refuse(f"{where}.retryStrategy", strategy, _RETRY)
    backoff = strategy.get("backoff") or {}
    _refuse(f"{where}.retryStrategy.backoff", backoff, {"duration", "factor", "maxDuration"})
    policy = strategy.get("retryPolicy", "OnFailure")
    if policy not in _POLICIES:
        raise UnsupportedError(f"{where}.retryStrategy.retryPolicy {policy}", wanted=" or ".join(_POLICIES))
    limit = strategy.get("limit")
    return Retry(
        limit=None if limit is None else int(limit),
        phases=frozenset(_POLICIES[policy]),
        wait=seconds(backoff.get("duration", 0)),
        factor=float(backoff.get("factor", 1)),
        max_wait=seconds(backoff["maxDuration"]) if "maxDuration" in backoff else None,
    )


def seconds(duration: Json) -> float:
    """Argo's durations: "10s", "5m", "1h", or a number of seconds."""
    match = _DURATION.match(str(duration))
    if match is None:
        raise UnsupportedError(f"cannot read the duration {duration!r}", wanted='such as "10s", "5m" or "1h"')
    return float(match[1]) * _UNITS[match[2]]
