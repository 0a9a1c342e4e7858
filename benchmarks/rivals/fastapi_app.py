"""The same contract and model on FastAPI: a quick model in the event loop, a slow one in threads, as it is faster."""

import os
from typing import Annotated

from fastapi import FastAPI
from model import here
from pydantic import BaseModel, ConfigDict, Field

Pixel = Annotated[float, Field(strict=True, ge=0, le=16, allow_inf_nan=False)]
Row = Annotated[list[Pixel], Field(min_length=64, max_length=64)]


class DigitsRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    rows: Annotated[list[Row], Field(min_length=1, max_length=1_000)]


class DigitsAnswer(BaseModel):
    classes: list[int]
    probabilities: list[list[float]]


try:
    import sklearn

    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)  # as in ours
except ImportError:
    pass
model = here()
app = FastAPI()


def answer(request: DigitsRequest) -> DigitsAnswer:
    classes, probabilities = model(request.rows)
    return DigitsAnswer(classes=classes, probabilities=probabilities)


if os.environ.get("SLOW"):

    @app.post("/predict")
    def predict(request: DigitsRequest) -> DigitsAnswer:
        return answer(request)

else:

    @app.post("/predict")
    async def predict(request: DigitsRequest) -> DigitsAnswer:
        return answer(request)


@app.get("/readyz")
async def readyz() -> None:
    return None
