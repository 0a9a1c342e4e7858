"""The objects, one counter of resource versions, and what changed: etcd with a watch cache.

Objects in the store are never changed in place: a write puts a new one there. Readers may keep what they got.
"""

import threading
from collections import deque
from itertools import takewhile
from typing import Any, NamedTuple

from tests.fakes.kubernetes.resources import Resource

Json = dict[str, Any]
Key = tuple[str, str]  # of a resource: group and plural


class Change(NamedTuple):
    version: int
    key: Key
    old: Json | None
    new: Json | None  # None: deleted; `last` is then the object as it was, with the version of the deletion
    last: Json


class Store:
    def __init__(self, history: int = 4096) -> None:
        self.version = 1
        self.objects: dict[Key, dict[tuple[str, str], Json]] = {}
        self.changes: deque[Change] = deque(maxlen=history)
        self.oldest = 1  # a watch from before this version is answered with 410
        self.changed = threading.Condition(threading.RLock())

    def get(self, key: Key, namespace: str, name: str) -> Json | None:
        return self.objects.get(key, {}).get((namespace, name))

    def ordered(self, key: Key, namespace: str | None = None) -> list[Json]:
        """Sorted by namespace and name, as etcd returns them."""
        found = self.objects.get(key, {})
        return [found[at] for at in sorted(found) if namespace is None or at[0] == namespace]

    def every(self, key: Key) -> list[Json]:
        """All objects of a resource, in no particular order."""
        return list(self.objects.get(key, {}).values())

    def put(self, resource: Resource, thing: Json) -> Json:
        metadata = thing["metadata"]
        at = (metadata.get("namespace", ""), metadata["name"])
        with self.changed:
            self.version += 1
            stored = {**thing, "metadata": {**metadata, "resourceVersion": str(self.version)}}
            things = self.objects.setdefault(resource.key, {})
            self._note(Change(self.version, resource.key, things.get(at), stored, stored))
            things[at] = stored
        return stored

    def remove(self, resource: Resource, thing: Json) -> Json:
        metadata = thing["metadata"]
        with self.changed:
            self.version += 1
            last = {**thing, "metadata": {**metadata, "resourceVersion": str(self.version)}}
            old = self.objects[resource.key].pop((metadata.get("namespace", ""), metadata["name"]))
            self._note(Change(self.version, resource.key, old, None, last))
        return last

    def _note(self, change: Change) -> None:
        if len(self.changes) == self.changes.maxlen:
            self.oldest = self.changes[0].version
        self.changes.append(change)
        self.changed.notify_all()

    def since(self, version: int) -> list[Change]:
        """What changed after a version, in order."""
        found = list(takewhile(lambda change: change.version > version, reversed(self.changes)))
        return found[::-1]

    def compact(self) -> None:
        """Forgets the history: watches and continued lists from before answer 410."""
        with self.changed:
            self.changes.clear()
            self.oldest = self.version
