"""Recordings by hand: what one process saw, arrival by arrival, through the very path that a run takes."""

import numpy as np
from numpy.typing import NDArray

from ekiben.loadtest.recorder import OK, Collector, Recording, Writer


class Recorder:
    def __init__(self, scheduled_s: NDArray[np.float64]) -> None:
        self.scheduled_s = scheduled_s
        self._writer, self._collector = Writer(), Collector([scheduled_s])

    def record(
        self,
        number: int,
        *,
        lag_ms: float,
        latency_ms: float,
        kind: str = OK,
        example: str = "",
        endpoint: str = "POST /predict",
    ) -> None:
        at_s = float(self.scheduled_s[number])
        self._writer.record(
            number, at_s, lag_ms=lag_ms, latency_ms=latency_ms, kind=kind, example=example, endpoint=endpoint
        )

    def recording(self) -> Recording:
        self._collector.take(self._writer.chunk())
        return self._collector.recording()
