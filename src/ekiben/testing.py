"""For the tests of a model: what its recipe makes, and its service as it will be served.

made = testing.make(RECIPE)
with testing.serve(made, tmp_path) as client:
    client.post(RECIPE.route, json=made.examples[0].request)
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ekiben.config import find_root
from ekiben.errors import UnavailableError
from ekiben.recipe import Evaluation, Example, Recipe

if TYPE_CHECKING:
    import httpx

    from ekiben.processes import Daemon

READY_SECONDS = 90.0
_FAILED = "Application startup failed"  # uvicorn says so


@dataclass(frozen=True)
class Made:
    """What a recipe made, carried out once."""

    recipe: Recipe
    split: Any
    model: Any
    evaluation: Evaluation
    examples: Sequence[Example]


def make(recipe: Recipe, **params: str) -> Made:
    """Carry out the recipe, with `params` instead of its defaults; nothing is logged."""
    values = recipe.with_params(params)
    split = recipe.data(values)
    model = recipe.train(split, values)
    return Made(recipe, split, model, recipe.evaluate(model, split), recipe.examples(model, split))


@contextmanager
def serve(made: Made, folder: Path) -> "Iterator[httpx.Client]":
    """A client of the model's service, which `bentoml serve` runs from the project's source.

    `folder`, which must be empty, gets a BentoML store that holds only this model. IntegrityError when the recipe
    saves a pickle; UnavailableError, with the end of its log, when the service fails to start or is not ready in time.
    """
    import httpx

    from ekiben.packaging import pickles
    from ekiben.processes import Daemon, free_port

    files, home = folder / "model", folder / "bentoml"
    files.mkdir(parents=True)
    home.mkdir()
    made.recipe.save(made.model, made.split, files)
    pickles.refuse(files, made.recipe.pickles)
    env = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
    tag = f"{made.recipe.name}:test"
    subprocess.run([sys.executable, "-m", "ekiben.testing", tag, str(files)], env=env, check=True)
    address = ["--host", "127.0.0.1", "--port", str(free_port())]
    command = [sys.executable, "-m", "bentoml", "serve", made.recipe.service, "--arg", f"model={tag}", *address]
    url = f"http://127.0.0.1:{address[-1]}"
    service = Daemon(folder, "service")
    try:
        service.start(command, url=url, env=env, cwd=find_root(Path.cwd()))
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:  # no proxy
            service.wait_ready(lambda: _ready(client, service), READY_SECONDS)
            yield client
    finally:
        service.stop()


def _ready(client: "httpx.Client", service: "Daemon") -> bool:
    """UnavailableError as soon as the service's own code fails: BentoML starts it again and again, and in between
    accepts connections that nobody answers."""
    import httpx

    if _FAILED in (log := service.tail(30)):
        raise UnavailableError(
            f"the service fails when it starts:\n{log}",
            wanted="a service that takes the model which its recipe saves",
            next_step="the error is above; service/ and bentos/ must agree on files, features and classes",
        )
    try:
        return client.get("/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def main(tag: str, files: str) -> None:
    """Put the files into the BentoML store: in a process of its own, because BentoML knows one store per process."""
    import bentoml

    with bentoml.models.create(tag) as model:
        shutil.copytree(files, model.path, dirs_exist_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
