"""The models that are served, trained by their recipes, and what is asked of them."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROWS = (1, 8, 64)
CONCURRENCY = (1, 16, 64)
IMPORT = """
import bentoml, shutil, sys
with bentoml.models.create(sys.argv[1]) as stored:
    shutil.copytree(sys.argv[2], stored.path, dirs_exist_ok=True)
"""


@dataclass(frozen=True)
class Case:
    """A model, how it is trained, and the sizes of the requests, in rows."""

    name: str
    text: str
    recipe: str
    params: dict[str, str]
    rows: tuple[int, ...]

    @property
    def torch(self) -> bool:
        return self.recipe == "digits_cnn"


CASES = (
    Case("digits", "scikit-learn: scaler and logistic regression", "digits", {}, ROWS),
    Case("digits_cnn", "torch: the network of the recipe", "digits_cnn", {}, ROWS),
    Case(
        "digits_cnn, wide",
        "torch: 19 million weights, so that a call costs 5 ms or more whatever it is asked",
        "digits_cnn",
        {"hidden": "36864", "epochs": "1"},
        (1,),
    ),
)


@dataclass(frozen=True)
class Trained:
    """`folder` holds the model's files; `bodies` one request for each size, with the digits to be answered;
    `alone_ms` the CPU time of one call of the model itself for that size, in ms."""

    folder: Path
    bodies: dict[int, tuple[bytes, list[int]]]
    alone_ms: dict[int, float]


def available() -> list[Case]:
    """The cases that can be run with what is installed; says what is left out."""
    if find_spec("torch"):
        return list(CASES)
    print("torch is not installed: only scikit-learn's model is measured. With torch: make bench-torch\n")
    return [case for case in CASES if not case.torch]


def train(case: Case, folder: Path, home: Path) -> Trained:
    """Train the case's model into `folder` and import it as `<recipe>:v1` into the BentoML store in `home`."""
    recipe = _recipe(case)
    params = recipe.with_params(case.params)
    split = recipe.data(params)
    model = recipe.train(split, params)
    folder.mkdir(parents=True)
    recipe.save(model, split, folder)
    # In a process of its own: BentoML looks at BENTOML_HOME once.
    command = [sys.executable, "-c", IMPORT, f"{case.recipe}:v1", str(folder)]
    subprocess.run(command, env={**os.environ, "BENTOML_HOME": str(home)}, check=True)
    bodies, alone = {}, {}
    for rows in case.rows:
        images = split.test_x[:rows]
        bodies[rows] = json.dumps({"rows": images.tolist()}).encode(), model.predict(images).tolist()
        alone[rows] = _cost(model.predict_proba, images)
    return Trained(folder, bodies, alone)


def _recipe(case: Case) -> Any:
    if case.torch:
        from bentos.digits_cnn.recipe import RECIPE
    else:
        from bentos.digits.recipe import RECIPE
    return RECIPE


def _cost(call: Any, images: Any) -> float:
    call(images)
    began, calls = time.process_time(), 0
    while time.process_time() - began < 0.2:
        call(images)
        calls += 1
    return (time.process_time() - began) / calls * 1e3
