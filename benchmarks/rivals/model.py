"""The model that MODEL names, a folder, as a function of rows: (classes, probabilities)."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np


def load(folder: Path) -> Any:
    return _torch(folder) if (folder / "network.json").exists() else _sklearn(folder)


def _sklearn(folder: Path) -> Any:
    import skops.io

    pipeline = skops.io.load(folder / "model.skops", trusted=[])

    def predict(rows: Any) -> tuple[list[int], list[list[float]]]:
        probabilities = pipeline.predict_proba(np.asarray(rows))
        return probabilities.argmax(axis=1).tolist(), probabilities.tolist()

    return predict


def _torch(folder: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    described = json.loads((folder / "network.json").read_text())
    network = torch.nn.Sequential(*(getattr(torch.nn, kind)(*given) for kind, *given in described["layers"])).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))

    def predict(rows: Any) -> tuple[list[int], list[list[float]]]:
        with torch.inference_mode():
            images = torch.tensor(rows, dtype=torch.float32) * described["scale"]
            probabilities = network(images.reshape(-1, *described["shape"])).softmax(1)
        return probabilities.argmax(1).tolist(), probabilities.tolist()

    return predict


def here() -> Any:
    return load(Path(os.environ["MODEL"]))
