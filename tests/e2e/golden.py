"""The golden answers: what each service says to the hold-out images, as files under version control.

All ways to serve one Bento must answer alike bit for bit, on one machine. With the file they must agree in every
class, and in every probability up to TOLERANCE: BLAS and torch choose their kernels by the processor, and other
kernels round otherwise. (Trained and asked with five kernels of OpenBLAS, `digits` moved by up to 3e-14; what is
single precision, as `digits_cnn` is, moves by 1e-6.)

The model of `digits` is trained anew each time, for its training has one optimum that every machine finds. That of a
network makes another model of another last bit, so the weights of a small `digits_cnn` lie beside its answers.

    python -m tests.e2e.golden digits        writes the files anew, by the model alone; read the diff
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "answers"
TOLERANCE = {"digits": 1e-9, "digits_cnn": 1e-5}
DECIMALS = 10
SMALL = {"width": "8", "hidden": "16"}


def images() -> "ndarray":
    """The 450 hold-out images, which both recipes share."""
    from bentos.digits.recipe import RECIPE

    held: ndarray = RECIPE.data(RECIPE.with_params({})).test_x
    return held


def weights(name: str) -> Path:
    """The folder with the model's files."""
    return FOLDER / name


def check(name: str, answers: bytes) -> None:
    """Fail unless `answers`, as `serving.answers` gives them, are those of the file."""
    import numpy as np

    golden = json.loads((FOLDER / f"{name}.json").read_text())
    together, *each = [json.loads(line) for line in answers.splitlines()]
    alone = {key: [row for answer in each for row in answer[key]] for key in together}
    for answered in (together, alone):
        assert answered["classes"] == [image["class"] for image in golden]
        wanted = [image["probabilities"] for image in golden]
        np.testing.assert_allclose(answered["probabilities"], wanted, rtol=0, atol=TOLERANCE[name])


def write(name: str) -> None:
    recipe: Any
    if name == "digits":
        from bentos.digits.recipe import RECIPE as recipe
    else:
        from bentos.digits_cnn.recipe import RECIPE as recipe
    params = recipe.with_params({} if name == "digits" else SMALL)
    split = recipe.data(params)
    model = recipe.train(split, params)
    if name != "digits":
        weights(name).mkdir(parents=True, exist_ok=True)
        recipe.save(model, split, weights(name))
    probabilities = model.predict_proba(split.test_x)
    rows = [[round(each, DECIMALS) for each in row] for row in probabilities.tolist()]
    lines = [json.dumps({"class": row.index(max(row)), "probabilities": row}) for row in rows]
    (FOLDER / f"{name}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    write(sys.argv[1])
