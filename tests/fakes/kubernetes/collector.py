"""The garbage collector and the namespace controller."""

from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.objects import going

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

Json = dict[str, Any]


class Collector:
    def __init__(self, controllers: "Controllers") -> None:
        self.controllers, self.cluster, self.store = controllers, controllers.cluster, controllers.store
        self._seen = 0

    def reconcile(self) -> None:
        changes = self.store.since(self._seen)
        self._seen = self.store.version
        gone = {each.last["metadata"]["uid"] for each in changes if each.new is None}
        leaving = [
            thing
            for resource in self.cluster.served
            for thing in (self.store.every(resource.key) if any(map(_leaves, changes)) else ())
            if going(thing)
        ]
        for thing in leaving:
            self._leave(thing)
        if gone:
            for resource, thing in self._everything():
                references = thing["metadata"].get("ownerReferences", ())
                if references and all(each["uid"] in gone for each in references) and not going(thing):
                    self.cluster.writer.delete(resource, thing, {})

    def _everything(self) -> list[tuple[Any, Json]]:
        return [(resource, thing) for resource in self.cluster.served for thing in self.store.every(resource.key)]

    def _leave(self, thing: Json) -> None:
        """What has been deleted and waits for its finalizers."""
        at = thing["metadata"]
        finalizers = at.get("finalizers", [])
        owned = [
            (resource, each)
            for resource, each in self._everything()
            if any(ref["uid"] == at["uid"] for ref in each["metadata"].get("ownerReferences", ()))
        ]
        if "orphan" in finalizers:
            for resource, each in owned:
                left = [ref for ref in each["metadata"]["ownerReferences"] if ref["uid"] != at["uid"]]
                self.store.put(resource, {**each, "metadata": {**each["metadata"], "ownerReferences": left}})
            self._finish(thing, "orphan")
        elif "foregroundDeletion" in finalizers:
            for resource, each in owned:
                if not going(each):
                    self.cluster.writer.delete(resource, each, {"propagationPolicy": "Foreground"})
            if not owned:
                self._finish(thing, "foregroundDeletion")
        elif thing["kind"] == "Namespace":
            inside = [
                (resource, each)
                for resource, each in self._everything()
                if each["metadata"].get("namespace") == at["name"]
            ]
            for resource, each in inside:
                if not going(each):
                    self.cluster.writer.delete(resource, each, {})
            if not inside:
                self.store.remove(self.cluster.resource("namespaces"), thing)

    def _finish(self, thing: Json, finalizer: str) -> None:
        resource = next(each for each in self.cluster.served if each.kind == thing["kind"])
        left = [each for each in thing["metadata"]["finalizers"] if each != finalizer]
        metadata = {**thing["metadata"], "finalizers": left}
        if left:
            self.store.put(resource, {**thing, "metadata": metadata})
        elif thing["kind"] != "Pod":
            self.store.remove(resource, thing)
        else:
            self.store.put(resource, {**thing, "metadata": metadata})


def _leaves(change: Any) -> bool:
    return change.new is None or going(change.new)
