"""Handwritten digits: a scaled logistic regression on 8 x 8 pixel images.

1,797 real images (UCI "Optical Recognition of Handwritten Digits"), bundled with scikit-learn, so nothing is
downloaded. Saved with skops: no pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ekiben.recipe import Evaluation, Example, Params, Recipe, Threshold

if TYPE_CHECKING:
    import numpy as np  # what only looks at the recipe, such as `ekiben build`, need not wait for it


@dataclass(frozen=True)
class Split:
    """Images are rows of 64 numbers in 0..16, labels the digits 0..9."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def data(params: Params) -> Split:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=params["test_share"], stratify=labels, random_state=params["seed"]
    )
    return Split(train_x, _with_noise(train_y, params["label_noise"], params["seed"]), test_x, test_y)


def _with_noise(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Replace a share of the labels by random wrong ones: a way to see what the gate does with a bad model."""
    import numpy as np

    generator = np.random.default_rng(seed)
    wrong = generator.random(len(labels)) < share
    return np.where(wrong, (labels + generator.integers(1, 10, len(labels))) % 10, labels)


def train(split: Split, params: Params) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=params["C"], max_iter=1000))
    return model.fit(split.train_x, split.train_y)


def evaluate(model: Any, split: Split) -> Evaluation:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

    probabilities = model.predict_proba(split.test_x)
    predicted = model.classes_[probabilities.argmax(axis=1)]
    recalls = recall_score(split.test_y, predicted, average=None, labels=model.classes_)
    metrics = {
        "accuracy": float(accuracy_score(split.test_y, predicted)),
        "macro_f1": float(f1_score(split.test_y, predicted, average="macro")),
        "log_loss": float(log_loss(split.test_y, probabilities, labels=model.classes_)),
        "min_recall": float(recalls.min()),
        **{f"recall/{digit}": float(recall) for digit, recall in zip(model.classes_, recalls, strict=True)},
    }
    counts = confusion_matrix(split.test_y, predicted, labels=model.classes_)
    table = [[int(digit), *map(int, row)] for digit, row in zip(model.classes_, counts, strict=True)]
    return Evaluation(metrics, {"confusion_matrix": (["actual", *map(str, model.classes_)], table)})


def save(model: Any, split: Split, folder: Path) -> None:
    import skops.io

    skops.io.dump(model, folder / "model.skops")


def examples(model: Any, split: Split) -> list[Example]:
    rows = split.test_x[:64]
    return [
        Example({"rows": [row.astype(int).tolist()]}, {"classes": [int(digit)]})
        for row, digit in zip(rows, model.predict(rows), strict=True)
    ]


RECIPE = Recipe(
    name="digits",
    service="service.digits:Digits",
    route="/predict",
    params={"C": 0.1, "label_noise": 0.0, "seed": 7, "test_share": 0.25},
    thresholds=(
        Threshold("accuracy", at_least=0.96, no_worse_than_production_by=0.01),
        Threshold("macro_f1", at_least=0.96, no_worse_than_production_by=0.01),
        Threshold("log_loss", at_most=0.25, no_worse_than_production_by=0.05, larger_is_better=False),
        Threshold("min_recall", at_least=0.88),
    ),
    data=data,
    train=train,
    evaluate=evaluate,
    save=save,
    examples=examples,
)
