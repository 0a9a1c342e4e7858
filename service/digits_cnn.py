"""Reads handwritten digits by a convolutional network: the contract of `digits`, answered by torch."""

import logging
from pathlib import Path

import bentoml
from bentoml.models import BentoModel

from service.batching import Batching
from service.checks import CheckedService
from service.contracts import MOST_ROWS, PIXELS, DigitsAnswer, DigitsRequest
from service.pinned import pinned_model

MODEL = pinned_model("digits_cnn:latest")


@bentoml.service(
    name="digits_cnn",
    service_class=CheckedService,
    labels=MODEL.info.labels,
    workers=1,  # a second worker that dies goes unnoticed; scale by running more services
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}],  # for images this small more threads cost more than they bring
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "/"},  # spans are made, and paid for, even where nothing collects them
)
class DigitsCNN:
    model = BentoModel(MODEL.tag)

    def __init__(self) -> None:
        # Here and not above: the process that only supervises the worker imports this module too.
        from service import network

        probabilities, device = network.load(Path(self.model.path))
        self.probabilities = Batching(probabilities, [0.0] * PIXELS, MOST_ROWS)
        how = "requests that wait are merged" if self.probabilities.pays else "each request by itself"
        logging.getLogger("bentoml.serve").info("digits_cnn runs on %s, %s", device, how)

    @bentoml.api(route="/predict", input_spec=DigitsRequest, output_spec=DigitsAnswer)
    async def predict(self, rows: list[list[float]]) -> DigitsAnswer:
        """The likeliest digit for each image, and the probability of each digit."""
        return DigitsAnswer.of(await self.probabilities(rows))
