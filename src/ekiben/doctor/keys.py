"""Secrets that workflows and the environment refer to. Only the names of their keys are told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ekiben.doctor.finding import Check, Finding, missing, ok, unknown
from ekiben.errors import UsageError
from ekiben.platforms.kubernetes.api import Api, path
from ekiben.platforms.manifests.names import Target

Json = dict[str, Any]


@dataclass
class Needed:
    """A Secret that something refers to: its keys, and what refers to it."""

    keys: dict[str, bool] = field(default_factory=dict)  # whether the key must be there
    by: dict[str, None] = field(default_factory=dict)


def needed(documents: Mapping[str, Sequence[Json]], target: Target) -> dict[tuple[str, str], Needed]:
    """The Secrets that the workflows' documents (by their names) and the environment refer to, by namespace and
    name."""
    found: dict[tuple[str, str], Needed] = {}
    namespace, pipelines = target.settings.namespace, target.settings.pipelines

    def add(place: str, secret: str, key: str, by: str, required: bool = True) -> None:
        if "{{" in secret or "{{" in key:
            return  # a parameter's value, known only when it runs
        entry = found.setdefault((place, secret), Needed())
        entry.by[by] = None
        if key:
            entry.keys[key] = entry.keys.get(key, False) or required
        elif required:
            entry.keys.setdefault("", True)

    for name, each in documents.items():
        for secret, key, required in _references(each):
            add(pipelines, secret, key, name, required)
    environment = f"environment {target.environment}"
    if target.settings.runtime_image:
        add(namespace, target.settings.wandb_secret, "api-key", environment)
    for secret in target.settings.image_pull_secrets:
        add(namespace, secret, ".dockerconfigjson", environment)
    return found


def _references(value: Any) -> Iterator[tuple[str, str, bool]]:
    """Secret, key ('' for the whole) and whether it is required, of all references in a document."""
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        match key, inner:
            case "secretKeyRef" | "accessKeySecret" | "secretKeySecret", {"name": str(name), "key": str(of)}:
                yield name, of, not inner.get("optional")
            case "secretRef", {"name": str(name)}:
                yield name, "", not inner.get("optional")
            case "secret", {"secretName": str(name)}:
                items = [item["key"] for item in inner.get("items") or ()] or [""]
                yield from ((name, of, not inner.get("optional")) for of in items)
            case "imagePullSecrets", list():
                yield from ((each["name"], ".dockerconfigjson", True) for each in inner)
            case _:
                yield from _references(inner)


def secret(api: Api, name: str, namespace: str, called: str, wanted: Needed) -> Finding:
    """Whether it is there with its keys, none empty. No value leaves this function."""
    by = ", ".join(wanted.by)
    required = [key for key, must in wanted.keys.items() if must and key]
    literals = "".join(f" --from-file={key}=FILE" for key in required)
    step = f"kubectl -n {namespace} create secret generic {called}{literals}"
    if ".dockerconfigjson" in required:
        step = f"kubectl -n {namespace} create secret docker-registry {called} --docker-server=… --docker-username=…"
    says = f"keys {', '.join(required)}, for {by}" if required else f"for {by}"
    try:
        found = api.find(path("v1", "secrets", namespace, called))
    except UsageError:
        ask = f"ask an administrator: kubectl -n {namespace} describe secret {called}"
        return unknown(name, "not allowed to look at it", says, ask)
    if found is None:
        if not any(wanted.keys.values()):
            return ok(name, f"not there; optional, for {by}")
        return missing(name, "not there", says, step)
    filled = {key for key, value in (found.get("data") or {}).items() if value}
    if lacking := [key for key in required if key not in filled]:
        there = ", ".join(sorted(filled)) or "nothing"
        return missing(name, f"has {there}; lacks {', '.join(lacking)}", says, f"add the key; or anew: {step}")
    return ok(name, f"has {', '.join(sorted(filled)) or 'no keys'}")


def checks(api: Api, target: Target, documents: Mapping[str, Sequence[Json]]) -> list[Check]:
    found = needed(documents, target)
    names = [called for _, called in found]

    def one(place: str, called: str, wanted: Needed) -> Check:
        name = f"secret {called}" if names.count(called) == 1 else f"secret {place}/{called}"
        return Check(name, lambda: [secret(api, name, place, called, wanted)])

    return [one(*where, wanted) for where, wanted in found.items()]
