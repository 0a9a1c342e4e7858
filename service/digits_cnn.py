"""Reads handwritten digits by a convolutional network: the contract of `digits`, answered by torch."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import bentoml
from bentoml.models import BentoModel

from service.checks import CheckedService
from service.contracts import MOST_ROWS, PIXELS, DigitsAnswer, DigitsRequest
from service.pinned import pinned_model

if TYPE_CHECKING:
    from numpy import ndarray

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

        self.probabilities, device = network.load(Path(self.model.path))
        for rows in (1, MOST_ROWS):
            self.probabilities([[0.0] * PIXELS] * rows)  # the first calls are slow; ready means warm
        logging.getLogger("bentoml.serve").info("digits_cnn runs on %s", device)

    @bentoml.api(
        route="/predict",
        input_spec=DigitsRequest,
        output_spec=DigitsAnswer,
        batchable=True,
        max_batch_size=MOST_ROWS,
        max_latency_ms=10_000,
    )
    def predict(self, rows: list[list[float]]) -> "ndarray":
        """The likeliest digit for each image, and the probability of each digit."""
        return self.probabilities(rows)
