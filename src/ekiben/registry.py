"""Models in W&B, through its real client: log, resolve, download and verify, promote.

The client reads WANDB_* from the environment, which `ekiben.tracking` fills: the same code serves W&B's cloud, a
server of one's own and the embedded one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekiben.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError
from ekiben.recipe import Evaluation, Metrics
from ekiben.types import ModelVersion

PRODUCTION = "production"
"""The alias of the model that is live."""

BENTO = "bento"
"""The type of artifact that a published Bento is."""

LOAD_REPORT = "load-report"
"""The type of artifact that the report of a load test is."""


@dataclass(frozen=True)
class Lineage:
    """Ids of W&B runs: `made_by` is empty where no run logged the model."""

    made_by: str
    used_by: tuple[str, ...]


class Registry:
    """The models of one W&B project; an empty entity is the API key's own."""

    def __init__(self, project: str, entity: str = "") -> None:
        import wandb
        from wandb.errors import AuthenticationError, CommError

        self.project = project
        try:
            self._api = wandb.Api()
        except (AuthenticationError, CommError) as error:
            raise UnavailableError(
                f"no session with W&B: {error}",
                wanted="the server that WANDB_BASE_URL names, and a key that it knows in WANDB_API_KEY",
            ) from None
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
            artifact.add_dir(_seen_from_anywhere(folder), policy="immutable", skip_cache=True)
            logged = run.log_artifact(artifact).wait()
        return _version(logged)

    def resolve(self, name: str, alias: str) -> ModelVersion:
        """The exact version behind `name:alias`. NotFoundError if there is none."""
        return self.resolve_path(f"{self.entity}/{self.project}/{name}:{alias}")

    def resolve_path(self, path: str) -> ModelVersion:
        """The exact version behind `entity/project/name:alias`. NotFoundError if there is none."""
        return _version(self._artifact(path))

    def find(self, name: str, alias: str) -> ModelVersion | None:
        """As `resolve`, but None if there is none."""
        try:
            return self.resolve(name, alias)
        except NotFoundError:
            return None

    def metadata(self, model: ModelVersion) -> dict[str, Any]:
        return dict(self._pinned(model).metadata)

    def metrics(self, model: ModelVersion) -> Metrics:
        """What the model achieved when it was trained; empty if it was logged without."""
        metrics: Metrics = self.metadata(model).get("metrics", {})
        return metrics

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
            artifact.add_dir(_seen_from_anywhere(folder), policy="immutable", skip_cache=True)
            logged = run.log_artifact(artifact, aliases=["latest", alias]).wait()
        return str(logged.source_qualified_name)

    def resolve_bento(self, name: str, alias: str) -> tuple[str, dict[str, Any]]:
        """The exact `entity/project/name:vN` behind `name:alias`, and its metadata."""
        found = self._artifact(f"{self.entity}/{self.project}/{name}:{alias}", BENTO)
        return str(found.source_qualified_name), dict(found.metadata)

    def download_bento(self, path: str, into: Path) -> None:
        """The files of the Bento `path`, an exact version, into `into`, which must be new, each checked."""
        _download(self._artifact(path, BENTO), path, into)

    def promote(self, model: ModelVersion, alias: str = PRODUCTION, *, instead_of: ModelVersion | None) -> None:
        """Move `alias` to this version from `instead_of`, the one that had it when the caller looked (None: nobody).

        ConflictError when it is elsewhere by now, or was moved at the same moment. W&B has no compare-and-set of its
        own: between the look and the move another client may move it too, and the last one to move it has it; the
        look afterwards finds that, so that no two promotions both believe that they hold the alias.
        """
        self._expect(model.name, alias, {instead_of, model})
        artifact = self._pinned(model)
        if alias not in artifact.aliases:
            artifact.aliases.append(alias)
            artifact.save()
        self._expect(model.name, alias, {model})

    def _expect(self, name: str, alias: str, wanted: set[ModelVersion | None]) -> None:
        found = self.find(name, alias)
        if found not in wanted:
            raise ConflictError(
                f"the alias {alias} of {name} is at {found or 'no version'} in W&B",
                wanted=" or ".join(str(version or "no version") for version in wanted),
                next_step="somebody else promotes this model; see which version should be live, then try again",
            )

    def lineage(self, model: ModelVersion) -> Lineage:
        """The runs that made the model and that used it, by id."""
        artifact = self._pinned(model)
        made = artifact.logged_by()
        return Lineage(made_by=made.id if made else "", used_by=tuple(sorted(run.id for run in artifact.used_by())))

    def record(self, model: ModelVersion, job_type: str, config: Mapping[str, str]) -> None:
        """A W&B run that used the model, so that its lineage goes on to what was made of it: `config` says what."""
        import wandb

        with wandb.init(project=self.project, entity=self.entity, job_type=job_type, config=dict(config)) as run:
            run.use_artifact(str(model))

    def log_load_report(
        self, model: ModelVersion | None, folder: Path, config: Mapping[str, str], summary: Mapping[str, str | float]
    ) -> str:
        """A run of type `load-test` that used the model, with `summary` as its figures, report.html to look at and the
        report's files in `folder` as an artifact of type `load-report`. The run that made the model gets the figures
        too, beside its metrics: those of its last load test, where it has had several. `model` is None where nobody
        knows which one answered.

        Returns the artifact's `entity/project/name:vN`.
        """
        import wandb

        from ekiben.report.write import FILES

        made = self._pinned(model).logged_by() if model else None
        figures = {f"load_test/{key}": value for key, value in summary.items()}
        settings = {**({"model": str(model)} if model else {}), **config}
        with wandb.init(project=self.project, entity=self.entity, job_type="load-test", config=settings) as run:
            if model:
                run.use_artifact(str(model))
            run.log({"load_test/report": wandb.Html((folder / "report.html").read_text(), inject=False)})
            run.summary.update(figures)
            artifact = wandb.Artifact(
                f"{model.name}-load-report" if model else "load-report", type=LOAD_REPORT, metadata=dict(summary)
            )
            for name in FILES:
                artifact.add_file(_seen_from_anywhere(folder / name), policy="immutable", skip_cache=True)
            logged = run.log_artifact(artifact).wait()
        if made is not None:
            made.summary.update({**figures, "load_test/run": run.id})
        return str(logged.source_qualified_name)

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


def _seen_from_anywhere(path: Path) -> str:
    """The client's service reads the files; where a parent process has started it, it works in another folder."""
    return str(path.absolute())
