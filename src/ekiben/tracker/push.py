"""Copy what this tracker holds to another W&B server, through the real client: a way to grow out of it.

Read from the export, written as any script would: runs with their config, history, summary and files; artifacts with
their metadata, aliases and tags; what used what. A run that is there already is passed over, so a push that was cut off
can be repeated. The other server numbers versions by itself; the copy of a version is found by its digest.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ekiben.errors import IntegrityError, UnavailableError
from ekiben.tracker.blobs import Blobs
from ekiben.tracker.export import export
from ekiben.tracker.state import open_blobs

Item = dict[str, Any]


class Pushed(NamedTuple):
    """How many of each were copied; `skipped` runs were there already."""

    runs: int
    versions: int
    skipped: int


def push(data: Path, entity: str, tell: Callable[[str], None]) -> Pushed:
    """Copy all runs and versions below `data` to `entity` (empty: the key's own) of the server that WANDB_BASE_URL and
    WANDB_API_KEY name. `tell` gets a line for each run.

    IntegrityError when a version arrives with another digest than it has here; UnavailableError without the server.
    """
    import wandb
    from wandb.errors import AuthenticationError, CommError

    try:
        api = wandb.Api()
    except (AuthenticationError, CommError) as error:
        raise UnavailableError(f"no session with the server to push to: {error}") from None
    source = _Source(data)
    target = _Target(entity or api.default_entity, open_blobs(data), source)
    runs = skipped = 0
    for run in source.runs:
        project = run["project"].partition("/")[2]
        if target.has(api, project, run["name"]):
            skipped += 1
            tell(f"{run['name']}: is there already")
            continue
        with wandb.init(
            entity=target.entity, project=project, id=run["name"], name=run["display_name"], notes=run["notes"],
            group=run["group_name"], job_type=run["job_type"], tags=run["tags"], config=_config(run["config"]),
            resume="never",
        ) as copy:  # fmt: skip
            versions = target.copy(copy, run)
        runs += 1
        tell(f"{run['name']}: copied with {versions} versions")
    return Pushed(runs, target.versions, skipped)


class _Source:
    """The export, by what its lines belong to."""

    def __init__(self, data: Path) -> None:
        self.runs: list[Item] = []
        self.collections: dict[str, Item] = {}
        self.versions: dict[str, Item] = {}
        self.history: dict[str, list[Item]] = defaultdict(list)
        self.files: dict[str, str] = {}  # run and path -> MD5
        self.inputs: dict[str, list[str]] = defaultdict(list)
        self.outputs: dict[str, list[str]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "export.jsonl"
            export(data, out)
            with out.open(encoding="utf-8") as lines:
                for line in lines:
                    self._take(json.loads(line))

    def _take(self, item: Item) -> None:
        match item["kind"]:
            case "run":
                self.runs.append(item)
            case "line" if item["stream"] == "history":
                self.history[item["run"]].append(json.loads(item["data"]))
            case "run_file":
                self.files[f"{item['run']}/{item['name']}"] = item["md5"]
            case "collection":
                self.collections[item["name"]] = item
            case "version":
                self.versions[f"{item['collection']}:v{item['version']}"] = item
            case "input":
                self.inputs[item["run"]].append(item["version"])
            case "output":
                self.outputs[item["run"]].append(item["version"])


class _Target:
    def __init__(self, entity: str, blobs: Blobs, source: _Source) -> None:
        self.entity, self.blobs, self.source = entity, blobs, source
        self.copies: dict[str, str] = {}  # a version here -> its copy there
        self.versions = 0

    def has(self, api: Any, project: str, run: str) -> bool:
        from wandb.errors import CommError

        try:
            api.run(f"{self.entity}/{project}/{run}")
        except (CommError, ValueError):
            return False
        return True

    def copy(self, run: Any, item: Item) -> int:
        path = f"{item['project']}/{item['name']}"
        for version in self.source.inputs[path]:
            run.use_artifact(self.copies.get(version) or self._there(version))
        for row in self.source.history[path]:
            values = {key: self._value(path, value) for key, value in row.items() if not key.startswith("_")}
            run.log({key: value for key, value in values.items() if value is not None}, step=row.get("_step"))
        plain = {key: value for key, value in (item["summary"] or {}).items() if not _is_media(value)}
        run.summary.update({key: value for key, value in plain.items() if not key.startswith("_")})
        made = [version for version in self.source.outputs[path] if self._is_users(version)]
        for version in made:
            self._log(run, version)
        return len(made)

    def _value(self, run: str, value: Any) -> Any:
        """As it was logged. Of the kinds of media only tables are copied; None for another."""
        import wandb

        if not _is_media(value):
            return value
        if value["_type"] != "table-file" or (md5 := self.source.files.get(f"{run}/{value['path']}")) is None:
            return None
        table = json.loads(self.blobs.path(md5).read_text(encoding="utf-8"))
        return wandb.Table(columns=table["columns"], data=table["data"])

    def _there(self, version: str) -> str:
        """Where a version of a run that was passed over is: by its digest, since its number may differ."""
        return f"{self.entity}/{version.partition('/')[2].rpartition(':')[0]}:{self.source.versions[version]['digest']}"

    def _is_users(self, version: str) -> bool:
        # Tables that were logged in the history become artifacts again by themselves.
        kind = self.source.collections[self.source.versions[version]["collection"]]["type"]
        return kind != "run_table" and not kind.startswith("wandb-")

    def _log(self, run: Any, version: str) -> None:
        import wandb

        item = self.source.versions[version]
        collection = self.source.collections[item["collection"]]
        artifact = wandb.Artifact(
            item["collection"].rpartition("/")[2],
            type=collection["type"],
            description=item["description"],
            metadata=item["metadata"],
        )
        for file in _files(item):
            local = str(self.blobs.path(file["md5"]))
            artifact.add_file(local, name=file["name"], policy="immutable", skip_cache=True)
        aliases = [alias for alias in item["aliases"] if alias != "latest"]
        logged = run.log_artifact(artifact, aliases=aliases, tags=item["tags"]).wait()
        if logged.digest != item["digest"]:
            raise IntegrityError(
                f"{version} arrived as {logged.qualified_name} with the digest {logged.digest}", wanted=item["digest"]
            )
        self.copies[version] = logged.source_qualified_name
        self.versions += 1


def _files(version: Item) -> Iterable[Item]:
    for file in version["files"] or ():
        if not file["md5"]:
            raise IntegrityError(
                f"{file['name']} of {version['collection']}:v{version['version']} is a reference to elsewhere",
                wanted="files that the tracker itself holds",
                next_step="log the reference to the other server from where it can be read",
            )
        yield file


def _is_media(value: Any) -> bool:
    return isinstance(value, dict) and "_type" in value


def _config(config: Item | None) -> Item:
    return {key: value["value"] for key, value in (config or {}).items() if not key.startswith("_")}
