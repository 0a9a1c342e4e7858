"""Requests that wait for a slow model, merged: each gets its own rows back, and nobody waits for company."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from bentoml.exceptions import ServiceUnavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from service import batching


class Model:
    """Returns the rows themselves, and remembers how many each call had."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.calls: list[int] = []

    def __call__(self, rows: list[list[float]]) -> Any:
        time.sleep(self.seconds)
        self.calls.append(len(rows))
        if any(row[0] < 0 for row in rows):
            raise ValueError("negative")
        return np.array(rows)


def made(model: Model, most_rows: int = 10) -> batching.Batching:
    for collector in [c for c in REGISTRY._collector_to_names if getattr(c, "_name", "") == "ekiben_batch_requests"]:
        REGISTRY.unregister(collector)
    batches = batching.Batching(model, [0.0], most_rows)
    model.calls.clear()
    return batches


async def ask(batches: batching.Batching, requests: list[list[list[float]]]) -> list[Any]:
    return await asyncio.gather(*(batches(rows) for rows in requests), return_exceptions=True)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 10), min_size=1, max_size=30))
def test_each_request_gets_its_own_rows_in_batches_that_are_no_larger_than_allowed(sizes: list[int]) -> None:
    model = Model(0.001)
    batches = made(model)
    requests = [[[float(100 * number + row)] for row in range(size)] for number, size in enumerate(sizes)]
    answers = asyncio.run(ask(batches, requests))
    assert [answer.tolist() for answer in answers] == requests
    wanted = [0]
    for size in sizes:
        if wanted[-1] + size > 10:
            wanted.append(0)
        wanted[-1] += size
    assert model.calls == wanted


def test_what_arrives_while_the_model_works_is_the_next_batch() -> None:
    model = Model(0.002)
    asyncio.run(ask(made(model), [[[1.0]]] * 9))
    assert model.calls == [9]

    async def later() -> None:
        first = asyncio.create_task(ask(batches, [[[1.0]]]))
        await asyncio.sleep(0.01)
        await ask(batches, [[[2.0]]] * 5)
        await first

    model = Model(0.05)
    batches = made(model)
    asyncio.run(later())
    assert model.calls == [1, 5]


def test_a_quick_model_is_called_directly() -> None:
    model = Model(0)
    batches = made(model)
    asyncio.run(ask(batches, [[[1.0]]] * 9))
    assert not batches.pays and model.calls == [1] * 9


def test_an_error_of_the_model_reaches_those_of_its_batch_and_nobody_after() -> None:
    batches = made(Model(0.002))

    async def story() -> None:
        spoilt = await ask(batches, [[[1.0]], [[-1.0]]])
        assert [type(error) for error in spoilt] == [ValueError, ValueError]
        assert (await batches([[3.0]])).tolist() == [[3.0]]

    asyncio.run(story())


def test_more_than_may_wait_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_WAITING", 5)
    answers = asyncio.run(ask(made(Model(0.002)), [[[1.0]]] * 8))
    assert sum(isinstance(answer, ServiceUnavailable) for answer in answers) == 3


def test_a_request_that_is_given_up_disturbs_nobody() -> None:
    async def story() -> None:
        given_up = asyncio.create_task(batches([[1.0]]))
        await asyncio.sleep(0.01)
        other = asyncio.create_task(batches([[2.0]]))
        given_up.cancel()
        assert (await other).tolist() == [[2.0]]
        assert (await batches([[3.0]])).tolist() == [[3.0]]

    batches = made(Model(0.03))
    asyncio.run(story())
