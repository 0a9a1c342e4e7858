"""A torch network from a model's folder: network.json describes its layers, model.safetensors holds the weights.

Both are data: nothing in them can run code.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAYERS = {"Conv2d", "Dropout", "Flatten", "Linear", "MaxPool2d", "ReLU"}
"""The classes of torch.nn that a description may name."""


def load(folder: Path) -> tuple[Callable[[list[list[float]]], Any], str]:
    """What computes the probabilities of rows of numbers, as an array of (row, class), and the device it runs on.

    That is the GPU where torch finds one, else the CPU.
    """
    import torch
    from safetensors.torch import load_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False  # the same digits of an answer on every device
    described = json.loads((folder / "network.json").read_text())
    network = torch.nn.Sequential(*(_layer(kind, arguments) for kind, *arguments in described["layers"]))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    network.to(device).eval()
    scale, shape = described["scale"], described["shape"]

    def probabilities(rows: list[list[float]]) -> Any:
        with torch.inference_mode():
            images = torch.tensor(rows, dtype=torch.float32).mul_(scale).reshape(-1, *shape)
            return network(images.to(device)).double().softmax(1).cpu().numpy()

    return probabilities, device


def _layer(kind: str, arguments: list[Any]) -> Any:
    import torch

    if kind not in LAYERS:
        raise ValueError(f"network.json names the layer {kind!r}; known: {', '.join(sorted(LAYERS))}")
    return getattr(torch.nn, kind)(*arguments)
