"""service/digits_cnn.py without its batching: what the batching itself costs and brings."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml

from service import network
from service.checks import CheckedService
from service.contracts import DigitsAnswer, DigitsRequest


@bentoml.service(
    service_class=CheckedService,
    workers=1,
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}],
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "/"},
)
class Unbatched:
    def __init__(self) -> None:
        self.probabilities, _ = network.load(Path(os.environ["MODEL"]))
        self.thread = ThreadPoolExecutor(1)

    @bentoml.api(input_spec=DigitsRequest, output_spec=DigitsAnswer)
    async def predict(self, rows: list[list[float]]) -> DigitsAnswer:
        loop = asyncio.get_running_loop()
        return DigitsAnswer.of(await loop.run_in_executor(self.thread, self.probabilities, rows))
