"""Lists, in chunks, and watches."""

import time as wall
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes import selectors
from tests.fakes.kubernetes.faults import Call, ConnectionLost
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.statuses import ApiFailure, bad_request
from tests.fakes.kubernetes.store import Change

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

Json = dict[str, Any]


class Reads:
    def __init__(self, cluster: "Cluster") -> None:
        self.cluster, self.store, self.clock = cluster, cluster.store, cluster.clock
        self._snapshots: dict[str, tuple[int, list[Json]]] = {}  # the rest of lists, by their continue token

    def _selected(self, resource: Resource, params: dict[str, str]) -> Callable[[Json], bool]:
        labels = selectors.label_selector(params.get("labelSelector", ""))
        fields = selectors.field_selector(params.get("fieldSelector", ""), resource.kind)
        return lambda thing: labels(thing) and fields(thing)

    def listed(self, resource: Resource, call: Call) -> Json:
        params = call.params
        limit = int(params.get("limit") or 0)
        version = self.store.version
        if params.get("continue"):
            if params["continue"] not in self._snapshots or self._snapshots[params["continue"]][0] < self.store.oldest:
                raise ApiFailure(
                    410,
                    "Expired",
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter.",
                )
            version, items = self._snapshots[params["continue"]]
        else:
            match = self._selected(resource, params)
            namespace = call.namespace or None if resource.namespaced else None
            items = [each for each in self.store.ordered(resource.key, namespace) if match(each)]
        metadata: Json = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            token = f"{version}-{len(self._snapshots)}-{self.cluster.writer.suffix()}"
            self._snapshots[token] = (version, items[limit:])
            metadata["continue"] = token
            if not params.get("labelSelector") and not params.get("fieldSelector"):
                metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        bare = items if resource.custom else [_untyped(each) for each in items]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": bare,
        }

    def watch(self, resource: Resource, call: Call) -> Iterator[Json]:
        """Events; between them the clock advances unless something else drives it."""
        params = call.params
        match = self._selected(resource, params)
        within = int(params.get("timeoutSeconds") or 1800)
        bookmarks = params.get("allowWatchBookmarks") in ("true", "1")
        initial = params.get("sendInitialEvents") == "true"
        wanted = params.get("resourceVersion") or "0"
        namespace = call.namespace if resource.namespaced else ""
        if not wanted.isdigit():
            raise bad_request(
                f'invalid resource version "{wanted}": strconv.ParseUint: parsing "{wanted}": invalid syntax'
            )

        def chosen(thing: Json | None) -> bool:
            if thing is None:
                return False
            at = thing["metadata"]
            here = namespace in ("", at.get("namespace")) and call.name in ("", at["name"])
            return here and match(thing)

        with self.store.changed:
            seen = int(wanted)
            first: list[Json] = []
            if not seen or initial:
                seen = self.store.version
                first = [each for each in self.store.ordered(resource.key, namespace or None) if chosen(each)]
        return self._events(resource, chosen, seen, first, within, bookmarks, initial)

    def _events(
        self,
        resource: Resource,
        chosen: Callable[[Json | None], bool],
        seen: int,
        first: list[Json],
        within: float,
        bookmarks: bool,
        initial: bool,
    ) -> Iterator[Json]:
        for each in first:
            yield {"type": "ADDED", "object": each}
        if initial:
            yield _bookmark(resource, seen, {"k8s.io/initial-events-end": "true"})
        started, real = self.clock.seconds, wall.monotonic()
        marked = started
        while True:
            with self.store.changed:
                if seen < self.store.oldest:
                    yield gone(str(seen), self.store.oldest)
                    return
                changes = [each for each in self.store.since(seen) if each.key == resource.key]
                seen = self.store.version
            for change in changes:
                if event := _event(change, chosen):
                    yield event
            over = self.clock.seconds - started >= within or (self.cluster.driven and wall.monotonic() - real >= within)
            if bookmarks and (over or self.clock.seconds - marked >= 60):
                marked = self.clock.seconds
                yield _bookmark(resource, seen)
            if over:
                return
            self._await_change(seen)

    def _await_change(self, seen: int) -> None:
        if self.cluster.driven:
            with self.store.changed:
                self.store.changed.wait_for(lambda: self.store.version > seen, timeout=0.25)
        else:
            self.cluster.advance(0.1)


def _untyped(thing: Json) -> Json:
    """Items of built-in lists come without apiVersion and kind."""
    return {key: value for key, value in thing.items() if key not in ("apiVersion", "kind")}


def _event(change: Change, chosen: Callable[[Json | None], bool]) -> Json | None:
    before, after = chosen(change.old), chosen(change.new)
    if after:
        return {"type": "MODIFIED" if before else "ADDED", "object": change.new}
    if before:
        # An object that no longer fits the selector is as good as deleted: with its old content and the new version.
        last = change.last
        if change.new is not None and change.old is not None:
            metadata = {**change.old["metadata"], "resourceVersion": str(change.version)}
            last = {**change.old, "metadata": metadata}
        return {"type": "DELETED", "object": last}
    return None


def _bookmark(resource: Resource, version: int, annotations: dict[str, str] | None = None) -> Json:
    metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "type": "BOOKMARK",
        "object": {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata},
    }


def gone(asked: str, oldest: int) -> Json:
    failure = ApiFailure(410, "Expired", f"too old resource version: {asked} ({oldest})")
    return {"type": "ERROR", "object": failure.body()}


def dropped(events: Iterator[Json], after: int) -> Iterator[Json]:
    for _ in range(after):
        try:
            yield next(events)
        except StopIteration:
            return
    raise ConnectionLost(committed=False)
