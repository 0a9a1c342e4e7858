"""The same contract and model on FastAPI. MODEL names the skops file; with TUNED=1 scikit-learn is set as in ours."""

import os
from typing import Annotated

import numpy as np
import sklearn
import skops.io
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

Pixel = Annotated[float, Field(strict=True, ge=0, le=16, allow_inf_nan=False)]
Row = Annotated[list[Pixel], Field(min_length=64, max_length=64)]


class DigitsRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    rows: Annotated[list[Row], Field(min_length=1, max_length=1_000)]


class DigitsAnswer(BaseModel):
    classes: list[int]
    probabilities: list[list[float]]


pipeline = skops.io.load(os.environ["MODEL"], trusted=[])
if os.environ.get("TUNED"):
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
app = FastAPI()


@app.post("/predict")
async def predict(request: DigitsRequest) -> DigitsAnswer:
    probabilities = pipeline.predict_proba(np.array(request.rows))
    classes = pipeline.classes_[probabilities.argmax(axis=1)]
    return DigitsAnswer(classes=classes.tolist(), probabilities=probabilities.tolist())


@app.get("/readyz")
async def readyz() -> None:
    return None
