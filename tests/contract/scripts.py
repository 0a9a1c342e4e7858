"""What users write with `wandb`. Each function is run in a process of its own, by any version of the client.

Standard library and `wandb` only. Arguments come as JSON in CONTRACT; what is returned goes out as JSON.
"""

import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import wandb


def write_model(name, content, size=0):
    path = Path(name)
    path.write_bytes(content.encode() + os.urandom(size))
    return str(path)


def model(name, content, size=0, **options):
    artifact = wandb.Artifact(name, "model", **options)
    artifact.add_file(write_model("model.bin", content, size), "weights/model.bin")
    with artifact.new_file("about.json") as file:
        file.write(json.dumps({"content": content}))
    return artifact


def train(project, collection, content="one", aliases=("candidate",)):
    """Log in, train, log a model, finish."""
    assert wandb.login()
    with wandb.init(project=project, config={"lr": 0.1, "layers": [1, 2]}, tags=["first"]) as run:
        for step in range(5):
            run.log({"loss": 1 / (step + 1), "nothing": float("nan")})
        run.summary["accuracy"] = 0.97
        artifact = model(collection, content, metadata={"kind": "linear"}, description="a model")
        logged = run.log_artifact(artifact, aliases=list(aliases), tags=["tested"]).wait()
        return {
            "run": run.id,
            "entity": run.entity,
            "version": logged.version,
            "digest": logged.digest,
            "aliases": sorted(logged.aliases),
            "name": logged.source_qualified_name,
        }


def fetch(project, entity, collection, alias):
    """Use a model in a run: resolve, record, download, verify."""
    with wandb.init(project=project, entity=entity, job_type="serve") as run:
        artifact = run.use_artifact(f"{entity}/{project}/{collection}:{alias}")
        folder = artifact.download(root="fetched")
        artifact.verify(folder)
        return {
            "run": run.id,
            "version": artifact.version,
            "name": artifact.source_qualified_name,
            "digest": artifact.digest,
            "metadata": artifact.metadata,
            "tags": artifact.tags,
            "files": sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()),
            "content": (Path(folder) / "weights/model.bin").read_text(),
        }


def look(project, entity, run):
    """Read a finished run back."""
    found = wandb.Api().run(f"{entity}/{project}/{run}")
    return {
        "state": found.state,
        "config": dict(found.config),
        "accuracy": found.summary["accuracy"],
        "tags": found.tags,
        "steps": [row["_step"] for row in found.history(pandas=False)],
        "losses": [row["loss"] for row in found.scan_history(keys=["loss"])],
        "files": sorted(file.name for file in found.files()),
        "logged": [artifact.name for artifact in found.logged_artifacts()],
        "used": [artifact.name for artifact in found.used_artifacts()],
        "listed": [other.id for other in wandb.Api().runs(f"{entity}/{project}")],
    }


def promote(project, entity, collection, version, alias):
    """Move an alias to a version, and see that it has moved."""
    api = wandb.Api()
    artifact = api.artifact(f"{entity}/{project}/{collection}:{version}")
    artifact.aliases.append(alias)
    artifact.save()
    again = api.artifact(f"{entity}/{project}/{collection}:{alias}")
    return {"version": again.version, "aliases": sorted(again.aliases), "digest": again.digest}


def demote(project, entity, collection, alias):
    """Take an alias from the version that has it."""
    artifact = wandb.Api().artifact(f"{entity}/{project}/{collection}:{alias}")
    artifact.aliases.remove(alias)
    artifact.save()
    again = wandb.Api().artifact(f"{entity}/{project}/{collection}:{artifact.version}")
    path = f"{entity}/{project}/{collection}:{alias}"
    return {"aliases": sorted(again.aliases), "exists": wandb.Api().artifact_exists(path)}


def lineage(project, entity, collection, version):
    artifact = wandb.Api().artifact(f"{entity}/{project}/{collection}:{version}")
    return {
        "by": artifact.logged_by().id,
        "used": sorted(run.id for run in artifact.used_by()),
        "aliases": sorted(artifact.aliases),
    }


def missing(project, entity, names):
    """What a script sees that asks for what is not there."""
    errors = {}
    for name in names:
        try:
            wandb.Api().artifact(f"{entity}/{project}/{name}")
        except wandb.errors.CommError as error:
            errors[name] = str(error)
    return errors


def tables_and_files(project):
    with wandb.init(project=project) as run:
        run.log({"confusion": wandb.Table(columns=["true", "seen"], data=[[1, 1], [2, 3]])})
        Path("notes.txt").write_text("by hand")
        run.save("notes.txt", policy="now")
        path = run.path
    found = wandb.Api().run(path)
    files = {file.name: file for file in found.files()}
    files["notes.txt"].download(root="back")
    table = next(a for a in found.logged_artifacts() if a.type == "run_table").get("confusion")
    return {
        "notes": Path("back/notes.txt").read_text(),
        "table": table.data,
        "files": sorted(files),
    }


def resume(project, mode, run):
    """What W&B calls resuming: never (a new run only), allow (either), must (an old run only)."""
    try:
        with wandb.init(project=project, id=run, resume=mode) as found:
            found.log({"epoch": found.summary.get("epoch", 0) + 1})
            return {"resumed": found.resumed, "step": found.step, "error": ""}
    except wandb.errors.UsageError as error:
        return {"error": str(error)}


def edit_run(project):
    """A finished run is edited, filtered for, and deleted."""
    with wandb.init(project=project, group="g", config={"lr": 0.5, "net": {"depth": 3}}, notes="first") as run:
        run.log({"loss": 0.25})
        path, entity, name = run.path, run.entity, run.id
    with wandb.init(project=project, group="other", config={"lr": 0.1}) as other:
        other.log({"loss": 0.75})
    api = wandb.Api()
    found: Any = api.run(path)
    found.notes, found.config["added"] = "second", 1
    found.tags.append("kept")
    found.summary["judged"] = "good"
    found.update()
    api.flush()
    again = api.run(path)

    def names(filters, order="+created_at"):
        return [run.id for run in api.runs(f"{entity}/{project}", filters=filters, order=order)]

    mine = {"$or": [{"group": "g"}, {"group": "other"}]}
    answer = {
        "run": name,
        "other": other.id,
        "notes": again.notes,
        "added": again.config["added"],
        "tags": again.tags,
        "judged": again.summary["judged"],
        "group": again.group,
        "user": again.user.username != "",
        "by_group": names({"group": "g"}),
        "by_config": names({"$and": [mine, {"config.net.depth": {"$gte": 3}}]}),
        "by_summary": names({"$and": [mine, {"summary_metrics.loss": {"$gt": 0.5}}]}),
        "by_tag": names({"tags": {"$in": ["kept"]}}),
        "by_regex": names({"$and": [mine, {"notes": {"$regex": "^sec.*d$"}}]}),
        "by_loss": names(mine, "-summary_metrics.loss"),
        "newest": names(mine, "-created_at"),
        "paged": len(list(api.runs(f"{entity}/{project}", per_page=1))) == len(api.runs(f"{entity}/{project}")),
        "last_step": again.lastHistoryStep,
        "sampled": again.history(keys=["loss"], pandas=False),
        "projects": project in [found.name for found in api.projects(entity)],
    }
    api.run(path).delete()
    try:
        wandb.Api().run(path)
        answer["deleted"] = False
    except (ValueError, wandb.errors.CommError):
        answer["deleted"] = True
    return answer


def edit_version(project, collection):
    """Metadata, description, tags, time to live, files and deletion of a version."""
    with wandb.init(project=project) as run:
        for content in ("one", "two", "three"):
            run.log_artifact(model(collection, content, metadata={"content": content})).wait()
        entity = run.entity
    api = wandb.Api()
    path = f"{entity}/{project}/{collection}"
    second = api.artifact(f"{path}:v1")
    second.metadata["checked"] = True
    second.description = "the second"
    second.tags = ["a-tag"]
    second.aliases = ["staging"]
    second.ttl = datetime.timedelta(days=7)
    second.save()
    second = api.artifact(f"{path}:v1")
    answer = {
        "metadata": second.metadata,
        "description": second.description,
        "tags": second.tags,
        "aliases": second.aliases,
        "ttl": second.ttl.total_seconds(),
        "size": second.size,
        "file_count": second.file_count,
        "files": sorted(file.name for file in second.files()),
        "one_file": Path(second.get_entry("about.json").download(root="single")).read_text(),
        "tagged": [found.name for found in api.artifacts("model", path, tags=["a-tag"])],
        "versions": [found.version for found in api.artifacts("model", path, per_page=2)],
        "exists": [api.artifact_exists(f"{path}:v1"), api.artifact_exists(f"{path}:v9")],
        "collection_exists": [
            api.artifact_collection_exists(path, "model"),
            api.artifact_collection_exists(f"{path}-none", "model"),
        ],
        "created": second.created_at[:2],
    }
    try:
        api.artifact(f"{path}:v1").delete()
        answer["refused"] = ""
    except wandb.errors.CommError as error:
        answer["refused"] = str(error)
    api.artifact(f"{path}:v2").delete(delete_aliases=True)
    answer["left"] = [found.version for found in wandb.Api().artifacts("model", path)]
    answer["latest"] = wandb.Api().artifact(f"{path}:latest").version
    with wandb.init(project=project) as run:
        answer["next"] = run.log_artifact(model(collection, "four")).wait().version
    return answer


def collections(project, collection):
    """List, describe, tag, rename and delete a collection."""
    with wandb.init(project=project) as run:
        run.log_artifact(model(collection, "one")).wait()
        entity = run.entity
    api = wandb.Api()
    path = f"{entity}/{project}"
    found = api.artifact_collection("model", f"{path}/{collection}")
    found.description = "what it is"
    found.tags = ["kept", "old"]
    found.save()
    found.tags = ["kept"]
    found.save()
    again = api.artifact_collection("model", f"{path}/{collection}")
    answer = {
        "description": again.description,
        "tags": again.tags,
        "aliases": sorted(again.aliases),
        "versions": [version.name for version in again.artifacts()],
        "types": "model" in [kind.name for kind in api.artifact_types(path)],
        "listed": collection in [item.name for item in api.artifact_type("model", path).collections()],
    }
    again.name = f"{collection}-renamed"
    again.save()
    answer["renamed"] = api.artifact(f"{path}/{collection}-renamed:v0").name
    api.artifact_collection("model", f"{path}/{collection}-renamed").delete()
    answer["deleted"] = not wandb.Api().artifact_collection_exists(f"{path}/{collection}-renamed", "model")
    return answer


def registry(project, collection):
    """Versions are linked to the registry, found there, promoted there and unlinked."""
    with wandb.init(project=project) as run:
        run.log_artifact(model(collection, "one")).wait()
        second = run.log_artifact(model(collection, "two")).wait()
        linked = run.link_artifact(second, f"wandb-registry-model/{collection}", aliases=["staging"])
        entity = run.entity
    api = wandb.Api()
    first = api.artifact(f"{entity}/{project}/{collection}:v0")
    first.link(f"wandb-registry-model/{collection}", aliases=["production"])
    promoted = api.artifact(f"wandb-registry-model/{collection}:production")
    moved = api.artifact(f"wandb-registry-model/{collection}:staging")
    moved.aliases.append("production")
    moved.save()
    folder = wandb.Api().artifact(f"wandb-registry-model/{collection}:production").download(root="linked")
    answer = {
        "linked": linked.qualified_name.partition("/")[2],
        "source": promoted.source_qualified_name,
        "version": promoted.version,
        "is_link": promoted.is_link,
        "production": sorted(wandb.Api().artifact(f"wandb-registry-model/{collection}:production").aliases),
        "content": (Path(folder) / "weights/model.bin").read_text(),
        "links": [link.name for link in api.artifact(f"{entity}/{project}/{collection}:v0").linked_artifacts],
        "source_aliases": sorted(api.artifact(f"{entity}/{project}/{collection}:v1").aliases),
        "found": [
            item.name for item in api.registries(filter={"name": "model"}).collections(filter={"name": collection})
        ],
        "found_versions": [
            item.version
            for item in api.registries(filter={"name": "model"}).versions(filter={"alias": "production"})
            if item.collection.name == collection
        ],
        "description": api.registry("model").full_name,
    }
    wandb.Api().artifact(f"wandb-registry-model/{collection}:v1").unlink()
    answer["unlinked"] = not wandb.Api().artifact_exists(f"wandb-registry-model/{collection}:v1")
    answer["source_stays"] = wandb.Api().artifact_exists(f"{entity}/{project}/{collection}:v0")
    return answer


def registries(project):
    """A registry is made, changed and deleted."""
    api = wandb.Api()
    name = project.replace("ekiben-", "")
    made = api.create_registry(name, visibility="organization", description="first")
    made.description = "second"
    made.save()
    answer = {"description": api.registry(name).description, "name": made.full_name}
    made.delete()
    try:
        wandb.Api().registry(name)
        answer["deleted"] = False
    except ValueError:
        answer["deleted"] = True
    return answer


def many(project, collection, number, start):
    """Logs `number` models of its own content as fast as it can, without waiting between them."""
    with wandb.init(project=project) as run:
        while time.time() < start:
            time.sleep(0.01)
        logged = [run.log_artifact(model(collection, f"{os.getpid()} {n}")) for n in range(number)]
        return {"versions": [[artifact.wait().version, artifact.digest] for artifact in logged], "entity": run.entity}


def log_until(project, collection, stop, ledger):
    """Logs one model after the other; what the server acknowledged is in the ledger, on disk, at once."""
    number = 0
    with wandb.init(project=project) as run, Path(ledger).open("a") as file:
        while not Path(stop).exists():
            number += 1
            try:
                logged = run.log_artifact(model(collection, f"{os.getpid()} {number}", size=300_000)).wait()
            except Exception:
                continue  # the server went away, and the client says so: nothing was acknowledged
            file.write(json.dumps([logged.version, logged.digest]) + "\n")
            file.flush()
        return {"logged": number, "entity": run.entity}


def verify_all(project, entity, collection):
    """Downloads and verifies every version that is to be seen."""
    seen = []
    for artifact in wandb.Api().artifacts("model", f"{entity}/{project}/{collection}", per_page=100):
        artifact.verify(artifact.download(root=f"all/{artifact.version}"))
        seen.append([artifact.version, artifact.digest])
    return {"versions": seen}


def all_versions(project, entity, collection):
    found = wandb.Api().artifacts("model", f"{entity}/{project}/{collection}", per_page=100)
    return {"versions": [[artifact.version, artifact.digest] for artifact in found]}


def references(project, collection):
    """Files that stay where they are, a folder of files, and an artifact built on another."""
    Path("folder/deep").mkdir(parents=True)
    for number in range(30):
        Path(f"folder/deep/{number} ü.txt").write_text(str(number))
    with wandb.init(project=project) as run:
        artifact = wandb.Artifact(collection, "dataset")
        artifact.add_dir("folder", name="data")
        artifact.add_reference("https://example.invalid/data.csv", name="far.csv", checksum=False)
        first = run.log_artifact(artifact).wait()
        draft = first.new_draft()
        with draft.new_file("more.txt") as file:
            file.write("more")
        draft.remove("data/deep/0 ü.txt")
        second = run.log_artifact(draft).wait()
        path = second.qualified_name
        grown = wandb.Artifact(collection, "dataset", incremental=True)
        with grown.new_file("grown.txt") as file:
            file.write("grown")
        third = run.log_artifact(grown).wait()
        third_path = third.qualified_name
    fetched = wandb.Api().artifact(path)
    folder = fetched.download(root="back", skip_cache=None, allow_missing_references=True)
    third = wandb.Api().artifact(third_path)
    return {
        "version": fetched.version,
        "files": sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*.txt")),
        "reference": fetched.manifest.entries["far.csv"].ref,
        "content": (Path(folder) / "data/deep/7 ü.txt").read_text(),
        "grown": [third.version, len(third.manifest.entries), "grown.txt" in third.manifest.entries],
    }


def main():
    answer = globals()[sys.argv[1]](**json.loads(os.environ["CONTRACT"]))
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
