"""What users write with `wandb`. Each function is run in a process of its own, by any version of the client.

Standard library and `wandb` only. Arguments come as JSON in CONTRACT; what is returned goes out as JSON.
"""

import json
import os
import sys
from pathlib import Path

import wandb


def write_model(name, content, size=0):
    path = Path(name)
    path.write_bytes(content.encode() + b"\0" * size)
    return str(path)


def model(name, content, **options):
    artifact = wandb.Artifact(name, "model", **options)
    artifact.add_file(write_model("model.bin", content), "weights/model.bin")
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


def main():
    answer = globals()[sys.argv[1]](**json.loads(os.environ["CONTRACT"]))
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
