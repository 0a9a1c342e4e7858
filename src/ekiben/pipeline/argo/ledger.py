"""What was promoted last, for every trigger and alias: in one ConfigMap, so that receiver and poller agree.

Argo deletes finished workflows; without a ledger that outlives them, the poller would promote the same version again.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from ekiben.errors import ConflictError, UnavailableError
from ekiben.platforms.kubernetes.api import APPLIER, Api, NoAnswerError, path

NAME = "ekiben-promotions"
LABELS = {"app.kubernetes.io/managed-by": "ekiben"}


@dataclass(frozen=True)
class Entry:
    """`generation` counts the promotions, so that a version which comes back after another is promoted anew. `run` is
    empty from the claim until the workflow was submitted."""

    subject: str
    model: str
    generation: int
    run: str


class Ledger:
    """In one namespace. Its entries are written only where nobody has written since they were read."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._path = path("v1", "configmaps", namespace, NAME)

    def read(self, subject: str) -> tuple[Entry | None, dict[str, Any]]:
        """The last entry for that subject, and the state of the ledger that `write` asks for."""
        found = self._api.find(self._path) or self._created()
        text = (found.get("data") or {}).get(_key(subject))
        return (Entry(**json.loads(text)) if text else None), found

    def write(self, entry: Entry, state: dict[str, Any]) -> dict[str, Any] | None:
        """The new state; None where somebody else wrote since `state`, or nobody knows whether this was written."""
        changes: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": state["metadata"]["resourceVersion"]}
        ]
        if not state.get("data"):
            changes.append({"op": "add", "path": "/data", "value": {}})
        changes.append({"op": "add", "path": f"/data/{_key(entry.subject)}", "value": json.dumps(asdict(entry))})
        try:
            return self._api.patch(self._path, changes, APPLIER)
        except (ConflictError, NoAnswerError):
            return None

    def _created(self) -> dict[str, Any]:
        metadata = {"name": NAME, "namespace": self._namespace, "labels": LABELS}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        try:
            return self._api.create(path("v1", "configmaps", self._namespace), made, APPLIER)
        except ConflictError:
            found = self._api.find(self._path)
            if found is None:
                raise UnavailableError(f"the ConfigMap {NAME} comes and goes", next_step="try again") from None
            return found


def _key(subject: str) -> str:
    """Subjects hold characters that a ConfigMap's keys cannot."""
    return hashlib.sha256(subject.encode()).hexdigest()[:40]
