"""Handwritten digits by a small convolutional network, on the very split of the recipe `digits`.

Trained on one CPU thread whatever the machine has, so that the same parameters give the same weights, bit for bit.
Saved as safetensors with its layers as JSON, which together are all that a service needs: no pickle, no code.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bentos.digits import recipe as digits
from ekiben.recipe import Evaluation, Params, Recipe, Threshold

if TYPE_CHECKING:
    import torch

SCALE = 1 / 16  # pixels are 0..16
SHAPE = [1, 8, 8]


@dataclass(frozen=True)
class Model:
    """A trained network, its layers as JSON values, and the metrics of each epoch. Has scikit-learn's predictions."""

    network: "torch.nn.Sequential"
    layers: list[list[Any]]
    history: list[dict[str, float]]

    @cached_property
    def classes_(self) -> np.ndarray:
        return np.arange(10)

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.network(_tensor(images)).double().softmax(1).numpy()

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.predict_proba(images).argmax(axis=1)


def architecture(width: int, hidden: int) -> list[list[Any]]:
    """The layers, each the name of a class of torch.nn and its positional arguments."""
    return [
        ["Conv2d", 1, width, 3, 1, 1],
        ["ReLU"],
        ["Conv2d", width, 2 * width, 3, 1, 1],
        ["ReLU"],
        ["MaxPool2d", 2],
        ["Flatten"],
        ["Dropout", 0.5],
        ["Linear", 2 * width * 16, hidden],
        ["ReLU"],
        ["Linear", hidden, 10],
    ]


def train(split: digits.Split, params: Params) -> Model:
    """Stops when the loss on a validation part of the training data has not fallen for `patience` epochs, and takes
    the weights of the best epoch."""
    import torch
    from sklearn.model_selection import train_test_split

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(params["seed"])
    train_x, valid_x, train_y, valid_y = train_test_split(
        split.train_x, split.train_y, test_size=0.15, stratify=split.train_y, random_state=params["seed"]
    )
    images, labels = _tensor(train_x), torch.from_numpy(train_y)
    valid_images, valid_labels = _tensor(valid_x), torch.from_numpy(valid_y)
    layers = architecture(params["width"], params["hidden"])
    network = torch.nn.Sequential(*(getattr(torch.nn, kind)(*arguments) for kind, *arguments in layers))
    optimizer = torch.optim.Adam(network.parameters(), lr=params["learning_rate"])
    history: list[dict[str, float]] = []
    best, best_epoch, weights = float("inf"), 0, network.state_dict()
    for epoch in range(params["epochs"]):
        network.train()
        loss = 0.0
        for batch in _batches(len(images), params["batch"]):
            optimizer.zero_grad()
            batch_loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
            batch_loss.backward()
            optimizer.step()
            loss += float(batch_loss.detach()) * len(batch) / len(images)
        network.eval()
        with torch.inference_mode():
            answers = network(valid_images)
        validation = float(torch.nn.functional.cross_entropy(answers, valid_labels))
        correct = float((answers.argmax(1) == valid_labels).double().mean())
        history.append(
            {"epoch": epoch, "train_loss": loss, "validation_loss": validation, "validation_accuracy": correct}
        )
        if validation < best:
            best, best_epoch, weights = validation, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= params["patience"]:
            break
    network.load_state_dict(weights)
    return Model(network, layers, history)


def _batches(count: int, size: int) -> "Iterator[torch.Tensor]":
    import torch

    return iter(torch.randperm(count).split(size))


def _tensor(images: np.ndarray) -> "torch.Tensor":
    import torch

    return torch.tensor(images * SCALE, dtype=torch.float32).reshape(-1, *SHAPE)


def evaluate(model: Model, split: digits.Split) -> Evaluation:
    return replace(digits.evaluate(model, split), history=model.history)


def save(model: Model, split: digits.Split, folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.network.state_dict(), folder / "model.safetensors")
    description = {"version": 1, "scale": SCALE, "shape": SHAPE, "layers": model.layers}
    (folder / "network.json").write_text(json.dumps(description, indent=1) + "\n")


RECIPE = Recipe(
    name="digits_cnn",
    service="service.digits_cnn:DigitsCNN",
    route="/predict",
    params={
        "width": 16,
        "hidden": 64,
        "learning_rate": 0.002,
        "batch": 64,
        "epochs": 80,
        "patience": 10,
        "label_noise": 0.0,
        "seed": 7,
        "test_share": 0.25,
    },
    thresholds=(
        Threshold("accuracy", at_least=0.98, no_worse_than_production_by=0.01),
        Threshold("macro_f1", at_least=0.975, no_worse_than_production_by=0.01),
        Threshold("log_loss", at_most=0.1, no_worse_than_production_by=0.03, larger_is_better=False),
        Threshold("min_recall", at_least=0.93),
    ),
    data=digits.data,
    train=train,
    evaluate=evaluate,
    save=save,
    examples=digits.examples,
)
