"""Steps that have secrets in their environment and use them, as those of a release do."""

import os
from typing import Annotated

from hera.workflows import Input, Output, Parameter, script

from ekiben.errors import UsageError


class Name(Input):
    name: str


class RunOut(Output):
    run: Annotated[str, Parameter(name="run")]


@script(constructor="runner")
def track(given: Name) -> RunOut:
    """A W&B run, with the client's own look at process and environment."""
    import wandb

    assert os.environ["WANDB_API_KEY"]
    with wandb.init(project=given.name, config={"name": given.name}) as run:
        run.log({"loss": 0.1})
        print("tracked", run.id)  # noqa: T201
        artifact = wandb.Artifact(given.name, type="model")
        with artifact.new_file("weights") as file:
            file.write("weights")
        run.log_artifact(artifact, aliases=["production"]).wait()
        return RunOut(run=run.id)


@script(constructor="runner")
def fail(given: Name) -> RunOut:
    raise UsageError(f"{given.name} failed, with {len(os.environ)} variables around it")
