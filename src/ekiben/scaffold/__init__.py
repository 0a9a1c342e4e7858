"""`ekiben new`: the files of a new model, and of the project around it where there is none yet."""

from enum import StrEnum


class Framework(StrEnum):
    """What the new model is made with."""

    SKLEARN = "sklearn"
    TORCH = "torch"
