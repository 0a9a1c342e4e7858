"""Models in W&B, through its real client: log, resolve, download and verify, promote.

The client reads WANDB_* from the environment, which `ekiben.tracking` fills: the same code serves W&B's cloud, a
server of one's own and the embedded one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ekiben.errors import IntegrityError, NotFoundError, UnavailableError
from ekiben.recipe import Evaluation, Metrics
from ekiben.types import ModelVersion

PRODUCTION = "production"
"""The alias of the model that is live."""

BENTO = "bento"
"""The type of artifact that a published Bento is."""


class Registry:
    """The models of one W&B project; an empty entity is the API key's own."""

    def __init__(self, project: str, entity: str = "") -> None:
        import wandb

        self.project = project
        self._api = wandb.Api()
        self.entity = entity or self._api.default_entity

    def log(
        self, name: str, params: Mapping[str, Any], evaluation: Evaluation, folder: Path, metadata: Mapping[str, Any]
    ) -> ModelVersion:
        """One W&B run with its config, metrics and tables, and the files of `folder` as a new version of model `name`.

        Returns only once the server has committed it: without waiting, the client keeps a server's failure to itself.
        """
        import wandb

        config = {"recipe": name, **params}
        with wandb.init(project=self.project, entity=self.entity, job_type="train", config=config) as run:
            for step in evaluation.history:
                run.log(dict(step))
            run.log(dict(evaluation.metrics))
            for key, (columns, rows) in evaluation.tables.items():
                run.log({key: wandb.Table(columns=columns, data=rows)})
            artifact = wandb.Artifact(
                name, type="model", metadata={"metrics": dict(evaluation.metrics), "params": dict(params), **metadata}
            )
            artifact.add_dir(str(folder), policy="immutable", skip_cache=True)
            logged = run.log_artifact(artifact).wait()
        return _version(logged)

    def resolve(self, name: str, alias: str) -> ModelVersion:
        """The exact version behind `name:alias`. NotFoundError if there is none."""
        return self.resolve_path(f"{self.entity}/{self.project}/{name}:{alias}")

    def resolve_path(self, path: str) -> ModelVersion:
        """The exact version behind `entity/project/name:alias`. NotFoundError if there is none."""
        return _version(self._artifact(path))

    def production(self, name: str) -> ModelVersion | None:
        """The version that is aliased `production`; None while there is none."""
        try:
            return self.resolve(name, PRODUCTION)
        except NotFoundError:
            return None

    def metadata(self, model: ModelVersion) -> dict[str, Any]:
        return dict(self._pinned(model).metadata)

    def metrics(self, model: ModelVersion) -> Metrics:
        """What the model achieved when it was trained; empty if it was logged without."""
        metrics: Metrics = self.metadata(model).get("metrics", {})
        return metrics

    def run(self, model: ModelVersion) -> str:
        """Id of the W&B run that logged the model; empty where none did."""
        run = self._pinned(model).logged_by()
        return run.id if run else ""

    def download(self, model: ModelVersion, into: Path) -> None:
        """The model's files into `into`, which must be new, each checked against W&B's manifest.

        `download` itself checks nothing and trusts cached files of the right size, so a fresh folder and `verify` do.
        """
        _download(self._pinned(model), str(model), into)

    def log_bento(self, name: str, folder: Path, model: ModelVersion, alias: str, metadata: Mapping[str, Any]) -> str:
        """Log the exported Bento in `folder` as an artifact of type `bento` that was made from `model`.

        Returns its `entity/project/name:vN`; W&B keeps what has the same files as one version.
        """
        import wandb

        with wandb.init(project=self.project, entity=self.entity, job_type="package") as run:
            self._pinned(model)
            run.use_artifact(str(model))
            artifact = wandb.Artifact(name, type=BENTO, metadata=dict(metadata))
            artifact.add_dir(str(folder), policy="immutable", skip_cache=True)
            logged = run.log_artifact(artifact, aliases=["latest", alias]).wait()
        return str(logged.source_qualified_name)

    def resolve_bento(self, name: str, alias: str) -> tuple[str, dict[str, Any]]:
        """The exact `entity/project/name:vN` behind `name:alias`, and its metadata."""
        found = self._artifact(f"{self.entity}/{self.project}/{name}:{alias}", BENTO)
        return str(found.source_qualified_name), dict(found.metadata)

    def download_bento(self, path: str, into: Path) -> None:
        """The files of the Bento `path`, an exact version, into `into`, which must be new, each checked."""
        _download(self._artifact(path, BENTO), path, into)

    def promote(self, model: ModelVersion, alias: str = PRODUCTION) -> None:
        """Move `alias` to this version; W&B takes it from the version that had it."""
        artifact = self._pinned(model)
        if alias not in artifact.aliases:
            artifact.aliases.append(alias)
            artifact.save()

    def _pinned(self, model: ModelVersion) -> Any:
        artifact = self._artifact(str(model))
        if model.digest and artifact.digest != model.digest:
            raise IntegrityError(
                f"{model} has the digest {artifact.digest} in W&B",
                wanted=model.digest,
                next_step="this project's tracker is not the one that the model was logged to",
            )
        return artifact

    def _artifact(self, path: str, kind: str = "model") -> Any:
        from wandb.errors import CommError

        try:
            return self._api.artifact(path, type=kind)
        except (CommError, ValueError) as error:
            # The client has one error for "not there" and "no answer"; only its text tells them apart.
            if "not found" in str(error).lower():
                raise NotFoundError(f"W&B has no {kind} {path}") from None
            raise UnavailableError(f"W&B did not answer for {path}: {error}") from None


def _version(artifact: Any) -> ModelVersion:
    return ModelVersion.parse(artifact.source_qualified_name, artifact.digest)


def _download(artifact: Any, name: str, into: Path) -> None:
    if into.exists():
        raise IntegrityError(f"{into} exists already", wanted="a new folder, so that nothing stale can be in it")
    artifact.download(root=str(into))
    try:
        artifact.verify(root=str(into))
    except ValueError as error:
        raise IntegrityError(
            f"what was downloaded for {name} is not what W&B has: {error}",
            wanted=f"files with W&B's digest {artifact.digest}",
            next_step="remove the folder that WANDB_CACHE_DIR names (.ekiben/wandb/cache) and try again",
        ) from None
