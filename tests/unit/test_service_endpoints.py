"""What a test against a live server would have to wait for, or cannot provoke: slow, lost and failing requests."""

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from service import endpoints


class Question(BaseModel):
    number: int


class Answer(BaseModel):
    half: int


HALVE = SimpleNamespace(name="halve", input_spec=Question, route="/halve")


async def halve(number: int) -> Answer:
    return Answer(half=1 // 0 if number < 0 else number // 2)


def ask(*messages: dict[str, Any]) -> tuple[int, Any] | None:
    """Status and JSON of the answer to a request that arrives as `messages` and then stays silent."""
    asked = endpoints.Endpoints(None, {"/halve": HALVE})
    asked.calls["halve"] = halve
    waiting, sent = list(messages), []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asked({"type": "http", "method": "POST", "path": "/halve", "headers": []}, receive, send))
    return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else None


def piece(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_may_come_in_pieces() -> None:
    assert ask(piece(b'{"num', True), piece(b'ber": ', True), piece(b"8}")) == (200, {"half": 4})


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "BODY_SECONDS", 0.05)
    assert ask(piece(b'{"number"', True)) == (408, {"error": "the body did not arrive within 0.05 s"})


def test_a_client_that_leaves_gets_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    assert ask({"type": "http.disconnect"}) is None
    assert ask(piece(b'{"number"', True), {"type": "http.disconnect"}) is None
    assert not caplog.records


def test_a_failure_of_ours_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, answer = ask(piece(b'{"number": -1}'))
    assert (status, list(answer)) == (500, ["error"])
    assert "ZeroDivisionError" in caplog.text and "division" not in answer["error"]
