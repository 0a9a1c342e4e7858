"""Reads an Argo workflow document into what the local engine executes, and refuses the rest by name. Pure.

Three kinds of keys: those that are executed; those that only say where pods run and who counts them, which changes
nothing on one machine; and all others, refused before the first step, because skipping one silently would make the
rehearsal a lie.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ekiben.errors import UnsupportedError
from ekiben.pipeline import expr, expression
from ekiben.pipeline.model import Document, Hook, Loop, Memo, Retry, Source, Task, Template

Json = Any

_PLACEMENT = {
    "metadata", "serviceAccountName", "automountServiceAccountToken", "podGC", "ttlStrategy", "nodeSelector",
    "tolerations", "affinity", "securityContext", "podSpecPatch", "podMetadata", "imagePullSecrets", "archiveLogs",
    "volumeClaimTemplates", "volumeClaimGC", "volumes", "priorityClassName", "podPriorityClassName", "schedulerName",
    "workflowMetadata", "labelsFrom", "artifactGC", "artifactRepositoryRef", "executor", "metrics", "annotations",
    "podDisruptionBudget", "hostAliases", "ports",
}  # fmt: skip
_SPEC = {"entrypoint", "onExit", "hooks", "arguments", "templates", "parallelism", "activeDeadlineSeconds",
         "synchronization"}  # fmt: skip
_TEMPLATE = {"name", "inputs", "outputs", "dag", "steps", "script", "suspend", "retryStrategy", "activeDeadlineSeconds",
             "timeout", "memoize", "synchronization", "parallelism"}  # fmt: skip
_BODIES = ("dag", "steps", "script", "suspend")
_SCRIPT = {"command", "args", "source", "image", "imagePullPolicy", "env", "resources", "volumeMounts", "name"}
_TASK = {"name", "template", "arguments", "depends", "dependencies", "when", "withItems", "withParam", "withSequence",
         "hooks", "onExit", "continueOn"}  # fmt: skip
_POLICIES = {"Always": {"Failed", "Error"}, "OnFailure": {"Failed"}, "OnError": {"Error"}}
_RUNNER = ["-m", "hera.workflows.runner", "-e"]
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def read(document: Json) -> Document:
    """The executable form of a Workflow, a template or a CronWorkflow, given as `yaml.safe_load` or `to_dict` returns
    it. What could not work on Argo either is for `pipeline.checks` to say."""
    kind = document.get("kind")
    if kind not in ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"):
        raise UnsupportedError(f"cannot run a {kind} on this machine", wanted="a Workflow or WorkflowTemplate")
    spec = document["spec"]["workflowSpec"] if kind == "CronWorkflow" else document["spec"]
    _refuse("spec", spec, _SPEC)
    metadata, arguments = document.get("metadata", {}), spec.get("arguments", {})
    _refuse("spec.arguments", arguments, {"parameters"})
    hooks = _hooks("spec", spec)
    deadline = spec.get("activeDeadlineSeconds")
    _parsed(spec)
    return Document(
        name=metadata.get("name") or metadata.get("generateName", "workflow-").rstrip("-"),
        entrypoint=spec.get("entrypoint", ""),
        exit=next((hook for hook in hooks if hook.name == "exit"), None),
        hooks=tuple(hook for hook in hooks if hook.name != "exit"),
        arguments=_parameters("spec.arguments", arguments),
        templates={item["name"]: _template(item) for item in spec.get("templates", [])},
        parallelism=spec.get("parallelism"),
        deadline=None if deadline is None else float(deadline),
        mutexes=_mutexes("spec", spec),
    )


def _refuse(where: str, given: Mapping[str, Json], known: Iterable[str]) -> None:
    for key, value in given.items():
        if key not in known and key not in _PLACEMENT and value is not None:
            raise UnsupportedError(
                f"{where}.{key} is not supported by the local engine",
                wanted=f"only {', '.join(sorted(known))}",
                next_step="submit the workflow to Argo, or leave this field out for a local run",
            )


def _parsed(thing: Json) -> None:
    """Every expression in it can be read; what stands in one is looked up only when it runs."""
    if isinstance(thing, str):
        for inner in expr.TAG.findall(thing):
            if inner.startswith("="):
                expr.compiled(inner[1:])
    elif isinstance(thing, dict):
        for key, each in thing.items():
            if key == "expression" and isinstance(each, str):
                expr.compiled(each)
            elif key == "depends":
                expression.depends_words(each)
            _parsed(each)
    elif isinstance(thing, list):
        for each in thing:
            _parsed(each)


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
    bodies = [key for key in _BODIES if item.get(key) is not None]
    if len(bodies) != 1:
        raise UnsupportedError(f"{where} is none of a DAG, steps, a suspend and a script", wanted="exactly one of them")
    body = bodies[0]
    inputs, outputs = item.get("inputs") or {}, item.get("outputs") or {}
    _refuse(f"{where}.inputs", inputs, {"parameters", "artifacts"})
    _refuse(f"{where}.outputs", outputs, {"parameters", "artifacts"})
    for artifact in inputs.get("artifacts", []):
        here = f"{where}.inputs.artifacts.{artifact['name']}"
        _refuse(here, artifact, {"name", "path", "optional", "description"})
    for artifact in outputs.get("artifacts", []):
        here = f"{where}.outputs.artifacts.{artifact['name']}"
        _refuse(here, artifact, {"name", "path", "from", "description", "archive", "optional"})
    script, dag, suspend = item.get("script"), item.get("dag") or {}, item.get("suspend")
    _refuse(f"{where}.dag", dag, {"tasks", "failFast"})
    if suspend is not None:
        _refuse(f"{where}.suspend", suspend, {"duration"})
    return Template(
        name=item["name"],
        kind={"dag": "tasks"}.get(body, body),
        inputs=_parameters(f"{where}.inputs", inputs),
        choices={p["name"]: tuple(map(str, p["enum"])) for p in inputs.get("parameters", []) if p.get("enum")},
        input_artifacts={a["name"]: bool(a.get("optional")) for a in inputs.get("artifacts", [])},
        outputs={p["name"]: _source(f"{where}.outputs.{p['name']}", p) for p in outputs.get("parameters", [])},
        output_artifacts={a["name"]: a.get("from") or a["path"] for a in outputs.get("artifacts", [])},
        shared={p["name"]: p["globalName"] for p in outputs.get("parameters", []) if p.get("globalName")},
        tasks=_tasks(where, dag) if body == "dag" else _steps(where, item["steps"]) if body == "steps" else (),
        fail_fast=dag.get("failFast") is not False,
        entrypoint=_entrypoint(where, script) if script is not None else "",
        env=_env(script) if script is not None else {},
        retry=_retry(where, item.get("retryStrategy")),
        deadline=str(item.get("activeDeadlineSeconds") or ""),
        timeout=str(item.get("timeout") or ""),
        pause=None if suspend is None else str(suspend.get("duration") or ""),
        memo=_memo(where, item.get("memoize")),
        mutexes=_mutexes(where, item),
        parallelism=item.get("parallelism"),
    )


def _source(where: str, parameter: Json) -> Source:
    _refuse(where, parameter, {"name", "valueFrom", "description", "value", "globalName"})
    source = parameter.get("valueFrom") or {"default": parameter.get("value")}
    _refuse(f"{where}.valueFrom", source, {"path", "parameter", "expression", "supplied", "default"})
    default = source.get("default")
    return Source(
        path=source.get("path") or "",
        parameter=source.get("parameter") or "",
        expression=source.get("expression") or "",
        supplied="supplied" in source,
        default=None if default is None else str(default),
    )


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


def _env(script: Json) -> dict[str, str]:
    """Plain values only. What comes from a Secret or ConfigMap is taken from the environment of the run itself."""
    return {item["name"]: str(item["value"]) for item in script.get("env") or [] if "value" in item}


def _tasks(where: str, dag: Json) -> tuple[Task, ...]:
    items = dag.get("tasks", [])
    tolerated = {item["name"]: _tolerated(f"{where}.dag.{item['name']}", item) for item in items}

    def waits(item: Json) -> str:
        def one(name: str) -> str:
            words = [*expression.BARE, *({"Error": "Errored"}.get(p, p) for p in sorted(tolerated.get(name, ())))]
            return f"({' || '.join(f'{name}.{word}' for word in words)})" if tolerated.get(name) else name

        return item.get("depends") or " && ".join(map(one, item.get("dependencies") or []))

    return tuple(_task(f"{where}.dag.{item['name']}", item, waits(item)) for item in items)


def _steps(where: str, groups: Json) -> tuple[Task, ...]:
    """Each group waits for all of the group before: a failure there, unless it is tolerated, starts nothing more."""
    found: list[Task] = []
    above: list[Task] = []
    for group in groups:
        words = [
            " || ".join(
                f"{task.name}.{word}"
                for word in ["Succeeded", "Skipped", *({"Error": "Errored"}.get(p, p) for p in sorted(task.tolerated))]
            )
            for task in above
        ]
        depends = " && ".join(f"({each})" for each in words)
        for step in group:
            _refuse(f"{where}.steps.{step['name']}", step, _TASK - {"depends", "dependencies"})
        above = [_task(f"{where}.steps.{step['name']}", step, depends) for step in group]
        found += above
    return tuple(found)


def _task(where: str, task: Json, depends: str) -> Task:
    _refuse(where, task, _TASK)
    parameters, artifacts = _arguments(where, task)
    items, sequence = task.get("withItems"), task.get("withSequence")
    loop = None
    if items is not None or task.get("withParam") or sequence:
        _refuse(f"{where}.withSequence", sequence or {}, {"count", "start", "end", "format"})
        loop = Loop(
            items=None if items is None else tuple(items),
            param=task.get("withParam") or "",
            sequence={key: str(value) for key, value in sequence.items()} if sequence else None,
        )
    return Task(
        name=task["name"],
        template=task.get("template", ""),
        parameters=parameters,
        artifacts=artifacts,
        depends=depends,
        when=task.get("when") or "",
        loop=loop,
        hooks=_hooks(where, task),
        tolerated=_tolerated(where, task),
    )


def _arguments(where: str, holder: Json) -> tuple[dict[str, str], dict[str, str]]:
    arguments = holder.get("arguments") or {}
    _refuse(f"{where}.arguments", arguments, {"parameters", "artifacts"})
    for artifact in arguments.get("artifacts", []):
        _refuse(f"{where}.arguments.artifacts.{artifact['name']}", artifact, {"name", "from"})
    parameters = _parameters(f"{where}.arguments", arguments)
    return (
        {name: value or "" for name, value in parameters.items()},
        {a["name"]: a["from"].strip("{} ") for a in arguments.get("artifacts", [])},
    )


def _hooks(where: str, holder: Json) -> tuple[Hook, ...]:
    found = []
    every = dict(holder.get("hooks") or {})
    if holder.get("onExit"):
        every.setdefault("exit", {"template": holder["onExit"]})
    for name, hook in every.items():
        here = f"{where}.hooks.{name}"
        _refuse(here, hook, {"template", "arguments", "expression"})
        parameters, artifacts = _arguments(here, hook)
        found.append(Hook(name, hook["template"], parameters, artifacts, hook.get("expression") or ""))
    return tuple(found)


def _tolerated(where: str, task: Json) -> frozenset[str]:
    given = task.get("continueOn") or {}
    _refuse(f"{where}.continueOn", given, {"failed", "error"})
    return frozenset({"failed": "Failed", "error": "Error"}[key] for key, value in given.items() if value)


def _mutexes(where: str, holder: Json) -> tuple[str, ...]:
    given = holder.get("synchronization") or {}
    _refuse(f"{where}.synchronization", given, {"mutexes"})
    for each in given.get("mutexes") or []:
        _refuse(f"{where}.synchronization.mutexes", each, {"name", "namespace", "database"})
    return tuple(each["name"] for each in given.get("mutexes") or [])


def _memo(where: str, given: Json) -> Memo | None:
    if given is None:
        return None
    _refuse(f"{where}.memoize", given, {"key", "maxAge", "cache"})
    cache = ((given.get("cache") or {}).get("configMap") or {}).get("name", "default")
    return Memo(given["key"], cache, seconds(given["maxAge"]) if given.get("maxAge") else None)


def _retry(where: str, strategy: Json) -> Retry:
    if strategy is None:
        return Retry()
    _refuse(f"{where}.retryStrategy", strategy, {"limit", "retryPolicy", "backoff", "expression"})
    backoff = strategy.get("backoff") or {}
    _refuse(f"{where}.retryStrategy.backoff", backoff, {"duration", "factor", "maxDuration", "cap"})
    said = strategy.get("expression") or ""
    policy = strategy.get("retryPolicy") or ("Always" if said else "OnFailure")
    if policy not in _POLICIES:
        raise UnsupportedError(f"{where}.retryStrategy.retryPolicy {policy}", wanted=" or ".join(_POLICIES))
    limit = strategy.get("limit")
    return Retry(
        limit=None if limit is None else str(limit),
        phases=frozenset(_POLICIES[policy]),
        expression=said,
        wait=seconds(backoff.get("duration") or 0),
        factor=float(backoff.get("factor") or 1),
        longest_wait=seconds(backoff["cap"]) if backoff.get("cap") else None,
        max_seconds=seconds(backoff["maxDuration"]) if backoff.get("maxDuration") else None,
    )


def seconds(duration: Json) -> float:
    """Argo's durations: "10s", "5m", "1h30m", or a number of seconds."""
    text = str(duration)
    if not text or _DURATION.sub("", text):
        raise UnsupportedError(f"cannot read the duration {duration!r}", wanted='such as "10s", "5m" or "1h30m"')
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
