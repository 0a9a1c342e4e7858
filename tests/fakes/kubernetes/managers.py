"""metadata.managedFields: who wrote what, conflicts between them, server-side apply
(k8s.io/apimachinery/pkg/util/managedfields and structured-merge-diff's merge.Updater)."""

from dataclasses import dataclass
from typing import Any

from tests.fakes.kubernetes import fields
from tests.fakes.kubernetes.fields import Path, Paths
from tests.fakes.kubernetes.schema import Type
from tests.fakes.kubernetes.statuses import ApiFailure

_UNTRACKED = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    ("f:status",),
    ("f:spec",),
    *(
        ("f:metadata", f"f:{name}")
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        ]
    ),
}


@dataclass(frozen=True)
class Manager:
    """Who writes; `operation` is Apply or Update."""

    name: str
    operation: str
    version: str  # apiVersion of the object as it was written
    subresource: str = ""

    def key(self) -> tuple[str, str, str, str]:
        return (self.name, self.operation, "" if self.operation == "Apply" else self.version, self.subresource)

    def shown(self) -> str:
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.version}" if self.operation == "Update" else text


Entries = dict[tuple[str, str, str, str], tuple[Manager, Paths, str]]  # the last is the time of the last change


def read(managed: list[dict[str, Any]] | None) -> Entries:
    entries: Entries = {}
    for each in managed or []:
        manager = Manager(each["manager"], each["operation"], each["apiVersion"], each.get("subresource", ""))
        entries[manager.key()] = (manager, fields.from_fields(each.get("fieldsV1", {})), each.get("time", ""))
    return entries


def write(entries: Entries) -> list[dict[str, Any]]:
    """Sorted as the API server does: appliers first, then by time and name."""
    made = []
    ordered = sorted(entries.values(), key=lambda e: (e[0].operation != "Apply", e[2], e[0].name, e[0].subresource))
    for manager, paths, time in ordered:
        if paths:
            entry: dict[str, Any] = {
                "manager": manager.name,
                "operation": manager.operation,
                "apiVersion": manager.version,
                "time": time,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields.to_fields(paths),
                "subresource": manager.subresource,
            }
            made.append({key: value for key, value in entry.items() if value != ""})
    return made


def bare(thing: dict[str, Any]) -> dict[str, Any]:
    """The object without its managedFields."""
    metadata = {key: value for key, value in thing.get("metadata", {}).items() if key != "managedFields"}
    return {**thing, "metadata": metadata}


def _tracked(paths: Paths, ignored: tuple[Path, ...]) -> Paths:
    return {path for path in paths if path and path not in _UNTRACKED and not any(path[: len(i)] == i for i in ignored)}


def update(
    live: dict[str, Any], new: dict[str, Any], kind: Type, manager: Manager, now: str, ignored: tuple[Path, ...] = ()
) -> list[dict[str, Any]]:
    """managedFields after a write that is no apply: what it changed is the writer's, and nobody else's any more."""
    entries = read(live.get("metadata", {}).get("managedFields"))
    added, modified, removed = fields.compare(bare(live), bare(new), kind)
    taken = _tracked(added | modified, ignored)
    gone = taken | removed
    for key, (each, paths, time) in entries.items():
        if paths & gone:
            entries[key] = (each, paths - gone, time)
    if taken:
        before = entries.get(manager.key(), (manager, set(), ""))[1]
        entries[manager.key()] = (manager, before | taken, now)
    return write(entries)


def apply(
    live: dict[str, Any],
    config: dict[str, Any],
    kind: Type,
    manager: Manager,
    now: str,
    force: bool,
    ignored: tuple[Path, ...] = (),
) -> dict[str, Any]:
    """The live object after a server-side apply, managedFields included. `live` is {} for one that is not there yet.
    Raises 409 with the fields that others own."""
    if mistakes := list(fields.check(config, kind)):
        metadata = config.get("metadata", {})
        group_version = config.get("apiVersion", "")
        shown = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; " + (
            f"{group_version if '/' in group_version else '/' + group_version}, Kind={config.get('kind', '')}"
        )
        listed = mistakes[0] if len(mistakes) == 1 else "errors:" + "".join(f"\n  {each}" for each in mistakes)
        raise ApiFailure(500, "", f"failed to create typed patch object ({shown}): {listed}")
    entries = read(live.get("metadata", {}).get("managedFields"))
    live, config = bare(live), bare(config)
    if live.get("apiVersion") and not entries:
        unowned = Manager("before-first-apply", "Update", manager.version)
        entries[unowned.key()] = (unowned, _tracked(fields.leaves(live, kind), ignored), "")
    merged = fields.merge(live, config, kind)
    last = entries.get(manager.key(), (manager, set(), ""))
    entries[manager.key()] = (manager, _tracked(fields.leaves(config, kind), ignored), last[2])
    owned = set().union(*(paths for _, paths, _ in entries.values()))
    merged = fields.prune(merged, kind, last[1], owned)
    added, modified, removed = fields.compare(live, merged, kind)
    changed = added | modified
    conflicts = [
        (each, path)
        for key, (each, paths, _) in entries.items()
        if key != manager.key()
        for path in sorted(paths & changed)
    ]
    if conflicts and not force:
        raise _conflict(conflicts)
    for key, (each, paths, time) in entries.items():
        if key != manager.key():
            entries[key] = (each, paths - changed - removed, time)
    if changed or removed:
        entries[manager.key()] = (*entries[manager.key()][:2], now)
    merged["metadata"] = {**(merged.get("metadata") or {}), "managedFields": write(entries)}
    return merged


def _conflict(conflicts: list[tuple[Manager, Path]]) -> ApiFailure:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {each.shown()}",
            "field": fields.shown(path),
        }
        for each, path in conflicts
    ]
    if len(conflicts) == 1:
        message = f"Apply failed with 1 conflict: conflict with {conflicts[0][0].shown()}: {causes[0]['field']}"
    else:
        lines: list[str] = []
        for shown in sorted({each.shown() for each, _ in conflicts}):
            lines.append(f"conflicts with {shown}:")
            lines += [f"- {fields.shown(path)}" for each, path in conflicts if each.shown() == shown]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    return ApiFailure(409, "Conflict", message, {"causes": causes})
