"""Workflow templates, schedules and event bindings in a cluster: what would change there, and changing it.

By server-side apply: fields that others have set stay theirs, and a field that both set is a conflict that names them.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ekiben.errors import ConflictError, NotFoundError, UnsupportedError, UsageError
from ekiben.pipeline.argo.connection import instance
from ekiben.pipeline.argo.documents import API_VERSION
from ekiben.platforms.kubernetes.api import AbsentError, Api, NoAnswerError, path
from ekiben.platforms.kubernetes.kubeconfig import configured

Json = dict[str, Any]
TRIES = 3
_PLURALS = {
    "WorkflowTemplate": "workflowtemplates",
    "CronWorkflow": "cronworkflows",
    "WorkflowEventBinding": "workfloweventbindings",
    "ClusterWorkflowTemplate": "clusterworkflowtemplates",
}
_SERVERS = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class Change:
    """`what` is created, changed or unchanged; `diff` is from what the cluster holds to what it will."""

    kind: str
    name: str
    what: str
    diff: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.what}" + (f"\n{self.diff}" if self.what == "changed" else "")


class Place:
    """One namespace of one cluster."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    @classmethod
    def configured(cls, context: str, namespace: str) -> "Place":
        """As the kubeconfig names it; '' for its current context and that one's namespace."""
        config = configured(context)
        return cls(Api(config), namespace or config.namespace or "default")

    def holds(self, document: Json) -> bool:
        """Whether an object of that name is there, or may be: not everybody may look."""
        try:
            return document["kind"] in _PLURALS and self.api.find(self._path(document)) is not None
        except UsageError:
            return True

    def planned(self, documents: Sequence[Json], force: bool = False) -> list[Change]:
        """What applying would change. Nothing is changed: the API server itself says what would be there."""
        return [self._planned(each, force) for each in documents]

    def apply(self, documents: Sequence[Json], force: bool = False) -> None:
        for each in documents:
            self._applied(each, force, dry_run=False)

    def _planned(self, document: Json, force: bool) -> Change:
        before = self.api.find(self._path(document))
        after = self._applied(document, force, dry_run=True)
        kind, name = document["kind"], document["metadata"]["name"]
        diff = difference(before, after, f"{kind.lower()}/{name}")
        return Change(kind, name, "created" if before is None else "changed" if diff else "unchanged", diff)

    def _applied(self, document: Json, force: bool, dry_run: bool) -> Json:
        where, thing, metadata = self._path(document), dict(document), dict(document["metadata"])
        if document["kind"] != "ClusterWorkflowTemplate":
            metadata["namespace"] = self.namespace
        if marked := {**(metadata.get("labels") or {}), **instance()}:
            metadata["labels"] = marked
        thing["metadata"] = metadata
        for _ in range(TRIES - 1):
            try:
                return self._once(where, thing, force, dry_run)
            except NoAnswerError:
                continue  # applied twice is as good as once
        return self._once(where, thing, force, dry_run)

    def _once(self, where: str, thing: Json, force: bool, dry_run: bool) -> Json:
        called = f"{thing['kind']} {thing['metadata']['name']}"
        try:
            return self.api.apply(where, thing, force, dry_run=dry_run, strict=True)
        except ConflictError as error:
            raise ConflictError(
                f"{called} has fields that somebody else has set: {error.seen}",
                wanted="fields that ekiben alone sets",
                next_step="find out who sets them; `ekiben workflow apply --force` takes them over",
            ) from None
        except AbsentError:
            raise NotFoundError(
                f"{self.api.server} does not know Argo's {thing['kind']}",
                wanted="Argo Workflows 4, with its custom resource definitions",
                next_step="install Argo Workflows there, or correct `context` in pyproject.toml",
            ) from None

    def _path(self, document: Json) -> str:
        kind, metadata = document.get("kind", ""), document.get("metadata") or {}
        if kind not in _PLURALS:
            raise UnsupportedError(
                f"a {kind} cannot be applied", wanted=f"one of {', '.join(_PLURALS)}", next_step="submit it instead"
            )
        if not metadata.get("name"):
            raise UsageError(f"a {kind} without metadata.name cannot be applied", wanted="a name, not generateName")
        if kind == "ClusterWorkflowTemplate":
            return f"/apis/{API_VERSION}/{_PLURALS[kind]}/{metadata['name']}"
        if metadata.get("namespace", self.namespace) != self.namespace:
            raise UsageError(
                f"{metadata['name']} names the namespace {metadata['namespace']}",
                wanted=f"none, or {self.namespace}, which the environment names",
            )
        return path(API_VERSION, _PLURALS[kind], self.namespace, metadata["name"])


def difference(before: Json | None, after: Json, called: str) -> str:
    """A unified diff of two objects as YAML, without what the API server adds; '' where they say the same."""
    old = [] if before is None else _lines(before)
    lines = difflib.unified_diff(old, _lines(after), f"{called} in the cluster", f"{called} here", lineterm="", n=3)
    return "\n".join(lines)


def _lines(thing: Json) -> list[str]:
    metadata = {key: value for key, value in thing["metadata"].items() if key not in _SERVERS}
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _LAST_APPLIED}
    metadata |= {"annotations": annotations} if annotations else {}
    if not annotations:
        metadata.pop("annotations", None)
    shown = {**{key: value for key, value in thing.items() if key != "status"}, "metadata": metadata}
    text: str = yaml.safe_dump(_ordered(shown), sort_keys=False, allow_unicode=True, width=1_000_000)
    return text.splitlines()


def _ordered(thing: Any) -> Any:
    """Names first, the rest by the alphabet: API servers give keys in an order of their own."""
    if isinstance(thing, dict):
        first = [key for key in ("apiVersion", "kind", "metadata", "name") if key in thing]
        return {key: _ordered(thing[key]) for key in [*first, *sorted(thing.keys() - set(first))]}
    return [_ordered(each) for each in thing] if isinstance(thing, list) else thing
