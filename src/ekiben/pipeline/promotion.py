"""A promotion in W&B, an alias that has moved, becomes a workflow in the cluster: exactly one for each move.

An event only says that there may be something to do: which version has the alias is asked of W&B, and what was
promoted last of the ledger. So a repeated, late or forged event, another replica and the poller do no harm, and it is
no matter which of them comes first.
"""

import contextlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ekiben.config import Project
from ekiben.errors import ConflictError, EkibenError, NotFoundError, UsageError
from ekiben.pipeline import argo, sources
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.ledger import Entry, Ledger
from ekiben.triggers import FIELDS, Trigger
from ekiben.types import ModelVersion

if TYPE_CHECKING:
    from ekiben.registry import Registry

TRIES = 5


@dataclass(frozen=True)
class Promotion:
    """`new` where the workflow was submitted now."""

    trigger: str
    model: str
    run: str
    namespace: str
    new: bool

    def __str__(self) -> str:
        return f"{self.trigger}: {self.model} {'submitted' if self.new else 'was submitted before'} as {self.run}"


class AliasError(NotFoundError):
    """No version has the alias, or the model is not there."""


class Models:
    """W&B, asked when it is needed: who waits for it to come up can still answer others."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._registry: Registry | None = None

    def place(self, trigger: Trigger) -> tuple[str, str]:
        """Entity and project of a trigger's collections."""
        registry = self._connected()
        return trigger.entity or registry.entity, trigger.project or registry.project

    def resolve(self, path: str) -> ModelVersion:
        """NotFoundError where no version has the alias; UnavailableError."""
        return self._connected().resolve_path(path)

    def _connected(self) -> "Registry":
        if self._registry is None:
            self._registry = sources.registry(self._project)
        return self._registry


class Promoter:
    """One at a time: W&B's client is asked by one thread, and what comes twice at once is seen to be the same."""

    def __init__(self, models: Models, client: Client, ledger: Ledger) -> None:
        self._models, self._client, self._ledger = models, client, ledger
        self._lock = threading.Lock()

    def promote(self, name: str, trigger: Trigger, collection: str, event: Mapping[str, str]) -> Promotion:
        """Submit the trigger's workflow for the version that has the alias now, unless it was promoted last.

        `event` is what else is known, by names of triggers.FIELDS. AliasError where no version has the alias;
        UnavailableError; what `argo.submit` raises.
        """
        with self._lock:
            for _ in range(TRIES):
                done = self._once(name, trigger, collection, event)
                if done:
                    return done
        raise ConflictError(f"{collection}:{trigger.alias} or the ledger changes too fast", next_step="try again")

    def ready(self, workflows: Iterable[str]) -> None:
        """An EkibenError where the cluster does not answer, or has not these templates."""
        for workflow in workflows:
            self._client.template(workflow)

    def _once(self, name: str, trigger: Trigger, collection: str, event: Mapping[str, str]) -> Promotion | None:
        """None where the ledger or the alias changed meanwhile: then all is to be looked at again."""
        entity, project = self._models.place(trigger)
        path = f"{entity}/{project}/{collection}:{trigger.alias}"
        subject = f"{name} {path}"
        last, state = self._ledger.read(subject)
        model = self._now(path)
        exact = f"{model}@{model.digest}"
        if last and last.model == exact and last.run:
            return Promotion(name, str(model), last.run, self._client.namespace, new=False)
        if last is None or last.model != exact:
            # Claimed first: who looked before the alias moved on finds out before it submits what is old.
            last = Entry(subject, exact, last.generation + 1 if last else 1, run="")
            claimed = self._ledger.write(last, state)
            if claimed is None:
                return None
            state = claimed
        fields = dict.fromkeys(FIELDS, "") | {
            **event,
            "entity_name": entity,
            "project_name": project,
            "artifact_collection_name": collection,
            "alias": trigger.alias,
            "artifact_version": str(model),
            "artifact_digest": model.digest,
        }
        run = argo.submit(
            trigger.workflow,
            trigger.filled(fields),
            key=json.dumps([subject, exact, last.generation]),
            labels={"ekiben.dev/trigger": name},
            client=self._client,
        )
        if self._ledger.write(replace(last, run=run.name), state) is None:
            return None
        # Who told of a move back while this one was not claimed yet found nothing to do: it is done here.
        with contextlib.suppress(AliasError):
            if self._now(path) != model:
                return None
        return Promotion(name, str(model), run.name, run.namespace, new=True)

    def _now(self, path: str) -> ModelVersion:
        try:
            return self._models.resolve(path)
        except NotFoundError as error:
            raise AliasError(error.seen) from None


def connected(project: Project) -> Promoter:
    """By Kubernetes' API alone, which has the ledger too. UsageError where no trigger is configured."""
    from ekiben.pipeline.argo.cluster import Cluster
    from ekiben.platforms.kubernetes.api import Api
    from ekiben.platforms.kubernetes.kubeconfig import configured

    settings = project.settings.webhook
    if not settings.triggers:
        raise UsageError(
            "no triggers: nothing in W&B would start anything",
            next_step="add the table [tool.ekiben.webhook.triggers.NAME] to pyproject.toml: collections, workflow",
        )
    place = project.environment(settings.environment, project.settings.recipe) if settings.environment else None
    config = configured(place.context if place else "")
    api, namespace = Api(config), (place.pipelines if place else config.namespace) or "default"
    return Promoter(Models(project), Cluster(api, namespace), Ledger(api, namespace))


def poll(project: Project, by: str) -> list[Promotion]:
    """What every alias of the settings asks for; `by` says who looks.

    Each is looked at; then the first EkibenError is raised, if any.
    """
    promoter, found, failed = connected(project), [], []
    for name, trigger in project.settings.webhook.triggers.items():
        for collection in trigger.collections:
            try:
                found.append(promoter.promote(name, trigger, collection, {"event_author": by}))
            except AliasError:
                continue  # nobody was promoted yet
            except EkibenError as error:
                failed.append(error)
    if failed:
        raise failed[0]
    return found
