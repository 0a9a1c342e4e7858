"""One call of a slow model for all the requests that wait for it.

BentoML's own adaptive batching (`batchable=True`) learns from the load how long to hold a request back in the hope of
more. Measured with max_latency_ms=10000 under load that came and went: with a model of 5 ms a call it was about as fast
for 64 clients, but a client that came alone in between waited 330 to 650 ms, mostly against 7 to 50 ms with this one.
Here nothing is held back: a request goes to the model at once if it is free, and what arrives meanwhile is the next
batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bentoml.exceptions import ServiceUnavailable

Rows = list[list[float]]

PAYS_SECONDS = 0.001
"""A model whose call costs less is called directly, in the event loop: merging costs more than it saves."""
MOST_WAITING = 1_000
"""Requests that may wait for the model; more are turned away with 503."""


class Batching:
    """Calls `model`, a function of rows that returns an array with as many, for one request after the other or for
    several at once. A batch holds whole requests with at most `most_rows` rows together."""

    def __init__(self, model: Callable[[Rows], Any], row: list[float], most_rows: int) -> None:
        from prometheus_client import Histogram

        self.model = model
        self.most_rows = most_rows
        for rows in (1, most_rows):  # the first calls are slow; ready means warm
            model([row] * rows)
        self.pays = min(_seconds(model, [row]) for _ in range(5)) >= PAYS_SECONDS
        self.sizes = Histogram("ekiben_batch_requests", "Requests in a batch.", buckets=[2**n for n in range(11)])
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[Rows, asyncio.Future[Any]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, rows: Rows) -> Any:
        """The request's own part of what the model returned. ServiceUnavailable when too many wait."""
        if not self.pays:
            return self.model(rows)
        if len(self._waiting) >= MOST_WAITING:
            raise ServiceUnavailable("too many requests wait for the model")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._waiting.append((rows, answer))
        if self._working is None:
            self._working = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            await self._answer(self._batch())
        self._working = None

    def _batch(self) -> list[tuple[Rows, "asyncio.Future[Any]"]]:
        batch = [self._waiting.popleft()]
        count = len(batch[0][0])
        while self._waiting and (count := count + len(self._waiting[0][0])) <= self.most_rows:
            batch.append(self._waiting.popleft())
        return batch

    async def _answer(self, batch: list[tuple[Rows, "asyncio.Future[Any]"]]) -> None:
        self.sizes.observe(len(batch))
        merged = [row for rows, _ in batch for row in rows]
        try:
            # In a thread: while the model works, the next requests are read and checked.
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self.model, merged)
        except Exception as error:
            for _, answer in batch:
                if not answer.done():  # it is when its request was given up
                    answer.set_exception(error)
            return
        at = 0
        for rows, answer in batch:
            if not answer.done():
                answer.set_result(results[at : at + len(rows)])
            at += len(rows)


def _seconds(model: Callable[[Rows], Any], rows: Rows) -> float:
    began = time.perf_counter()
    model(rows)
    return time.perf_counter() - began
