"""Reads handwritten digits: images of 8 x 8 pixels in, digits and probabilities out."""

from pathlib import Path

import bentoml
from bentoml.models import BentoModel

from service.checks import CheckedService
from service.contracts import PIXELS, DigitsAnswer, DigitsRequest
from service.pinned import pinned_model

MODEL = pinned_model("digits:latest")


@bentoml.service(
    name="digits",
    service_class=CheckedService,
    labels=MODEL.info.labels,
    workers=1,  # a second worker that dies goes unnoticed; scale by running more services
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}],  # one small product a request: threads only cost
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "/"},  # spans are made, and paid for, even where nothing collects them
)
class Digits:
    model = BentoModel(MODEL.tag)

    def __init__(self) -> None:
        # Here and not above: the process that only supervises the worker imports this module too.
        import numpy
        import sklearn
        import skops.io

        self.array = numpy.array
        # The contract has checked what scikit-learn would check again.
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
        self.pipeline = skops.io.load(Path(self.model.path) / "model.skops", trusted=[])
        self._answer([[0.0] * PIXELS])  # the first call is slow; ready means warm

    @bentoml.api(route="/predict", input_spec=DigitsRequest, output_spec=DigitsAnswer)
    async def predict(self, rows: list[list[float]]) -> DigitsAnswer:
        """The likeliest digit for each image, and the probability of each digit."""
        return self._answer(rows)

    def _answer(self, rows: list[list[float]]) -> DigitsAnswer:
        probabilities = self.pipeline.predict_proba(self.array(rows))
        classes = self.pipeline.classes_[probabilities.argmax(axis=1)]
        return DigitsAnswer.model_construct(classes=classes.tolist(), probabilities=probabilities.tolist())
