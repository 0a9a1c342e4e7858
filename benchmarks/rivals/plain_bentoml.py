"""A BentoML service as the tutorials write it: arrays in, a dict out, no setting changed."""

from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
import skops.io
from bentoml.models import BentoModel
from bentoml.validators import DType, Shape


@bentoml.service
class Plain:
    model = BentoModel("digits:latest")

    def __init__(self) -> None:
        self.pipeline = skops.io.load(Path(self.model.path) / "model.skops", trusted=[])

    @bentoml.api
    def predict(self, rows: Annotated[np.ndarray, DType("float64"), Shape((-1, 64))]) -> dict[str, Any]:
        probabilities = self.pipeline.predict_proba(rows)
        classes = self.pipeline.classes_[probabilities.argmax(axis=1)]
        return {"classes": classes.tolist(), "probabilities": probabilities.tolist()}
