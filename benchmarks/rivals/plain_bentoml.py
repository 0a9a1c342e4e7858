"""A BentoML service as the tutorials write it: arrays in, a dict out, no setting changed."""

from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import DType, Shape
from model import here


@bentoml.service
class Plain:
    def __init__(self) -> None:
        self.model = here()

    @bentoml.api
    def predict(self, rows: Annotated[np.ndarray, DType("float64"), Shape((-1, 64))]) -> dict[str, Any]:
        classes, probabilities = self.model(rows)
        return {"classes": classes, "probabilities": probabilities}
