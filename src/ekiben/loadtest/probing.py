"""The prober's own process: settings on the first line of standard input, what was seen on standard output.

It ends when its standard input does, so it cannot outlive whoever started it. Every request gets one attempt, with one
exception that every HTTP client makes: a kept connection that its other end closes while it is idle may look open at
the moment when the next request is sent. If such a *reused* connection is closed before one byte of the answer came,
the request is sent again, once, on a new connection, and counted in `reconnects`. On a new connection the same is a
failure, and so is any answer that breaks off.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools

from ekiben.loadtest.golden import Golden, difference
from ekiben.types import Probe

REPORT_EVERY_S = 0.05
MAX_IN_FLIGHT = 2_000
MAX_ANSWER = 16 * 1024 * 1024  # bytes
MAX_FAILURE = 300  # characters


@dataclass(frozen=True)
class Question:
    """One request, ready to be sent, and the answers that count as right."""

    path: str
    body: bytes
    accepted: Sequence[Any]
    keys_only: bool  # some model's answer to it is not known

    def wrong(self, body: bytes) -> str:
        """What is wrong with an answer; '' when it is right."""
        try:
            answer = json.loads(body)
        except ValueError:
            return f"wanted JSON, got {body[:60]!r}"
        differences = [difference(expected, answer) for expected in self.accepted]
        if "" in differences:
            return ""
        if self.keys_only and isinstance(answer, dict):
            missing = [key for key in self.accepted[0] if key not in answer]
            return f"answer: {missing[0]} is missing" if missing else ""
        return differences[0]


def questions(goldens: Sequence[Golden]) -> list[Question]:
    """Each distinct request of the golden files, with every answer that one of them expects."""
    known: dict[tuple[str, bytes], list[Any]] = {}
    for golden in goldens:
        for example in golden.examples:
            known.setdefault((golden.route_of(example), example.body), []).append(example.response)
    asked_by = [{(golden.route_of(example), example.body) for example in golden.examples} for golden in goldens]
    return [
        Question(path, body, accepted, keys_only=not all((path, body) in asked for asked in asked_by))
        for (path, body), accepted in known.items()
    ]


class StaleError(Exception):
    """A reused connection was closed before any byte of the answer."""


class Answer:
    """One HTTP response as it comes in."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = bytearray()
        self.complete = self.keep = False

    def on_body(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > MAX_ANSWER:
            raise ValueError(f"answer larger than {MAX_ANSWER} bytes")

    def on_message_complete(self) -> None:
        self.complete = True
        self.keep = self.parser.should_keep_alive()  # known only now: afterwards the parser awaits the next response


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.used = False

    @property
    def open(self) -> bool:
        return not self.reader.at_eof()

    async def ask(self, request: bytes) -> Answer:
        reused, self.used = self.used, True
        answer = Answer()
        received = 0
        try:
            self.writer.write(request)
            await self.writer.drain()
            while not answer.complete:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionResetError(f"closed after {received} bytes of the answer")
                received += len(data)
                answer.parser.feed_data(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            if reused and received == 0:
                raise StaleError from error
            raise
        return answer


class Session:
    def __init__(self, url: str, asked: Sequence[Question], timeout_s: float) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.tls = parts.scheme == "https"
        self.asked = asked
        self.timeout_s = timeout_s
        self.idle: list[Connection] = []
        self.in_flight: set[asyncio.Task[None]] = set()
        self.requests = self.failed = self.reconnects = 0
        self.worst_ms = 0.0
        self.first_failure = ""
        prefix = parts.path.rstrip("/")
        self.heads = [
            f"POST {prefix}{q.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nContent-Length: {len(q.body)}\r\n"
            for q in asked
        ]

    def probe(self) -> Probe:
        return Probe(
            requests=self.requests,
            failed=self.failed,
            worst_ms=round(self.worst_ms, 1),
            first_failure=self.first_failure,
            reconnects=self.reconnects,
        )

    def start(self, number: int) -> None:
        if len(self.in_flight) >= MAX_IN_FLIGHT:
            self.count(number, 0.0, f"not sent: {MAX_IN_FLIGHT} requests were in flight")
            return
        task = asyncio.create_task(self.one(number))
        self.in_flight.add(task)
        task.add_done_callback(self.in_flight.discard)

    async def one(self, number: int) -> None:
        began = time.perf_counter()
        failure = ""
        try:
            async with asyncio.timeout(self.timeout_s):
                failure = await self.exchange(number)
        except TimeoutError:
            failure = f"no complete answer within {self.timeout_s:g} s"
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        self.count(number, (time.perf_counter() - began) * 1000.0, failure)

    def count(self, number: int, took_ms: float, failure: str) -> None:
        self.requests += 1
        self.worst_ms = max(self.worst_ms, took_ms)
        if failure:
            self.failed += 1
            connection = "a new" if self.fresh(number) else "a kept"
            self.first_failure = (
                self.first_failure
                or (f"request {number} on {connection} connection, after {took_ms:.0f} ms: {failure}"[:MAX_FAILURE])
            )

    @staticmethod
    def fresh(number: int) -> bool:
        return number % 2 == 0

    async def exchange(self, number: int) -> str:
        """Ask the next question; what is wrong with the answer, '' when nothing is."""
        which = number // 2 % len(self.asked)  # each question on both kinds of connection
        question = self.asked[which]
        close = "Connection: close\r\n" if self.fresh(number) else ""
        request = f"{self.heads[which]}{close}\r\n".encode() + question.body
        connection = self.kept() if not self.fresh(number) else None
        connection = connection or await self.connect()
        try:
            try:
                answer = await connection.ask(request)
            except StaleError:
                connection.writer.close()
                self.reconnects += 1
                connection = await self.connect()
                answer = await connection.ask(request)
            if answer.keep and not self.fresh(number):
                self.idle.append(connection)
        finally:
            if connection not in self.idle:
                connection.writer.close()
        status = answer.parser.get_status_code()
        if not 200 <= status < 300:
            return f"status {status}: {answer.body[:120].decode(errors='replace')}"
        wrong = question.wrong(bytes(answer.body))
        return f"wrong answer: {wrong}" if wrong else ""

    def kept(self) -> Connection | None:
        """An idle connection, if there is one that is not yet known to be closed."""
        while self.idle:
            connection = self.idle.pop()
            if connection.open:
                return connection
            connection.writer.close()
        return None

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection(self.host, self.port, ssl=self.tls or None))


async def probe(settings: dict[str, Any], commands: asyncio.StreamReader) -> None:
    """Ask at an even pace until a line comes in; end at once when the input does."""
    goldens = [Golden.read(Path(path)) for path in settings["golden"]]
    session = Session(settings["url"], questions(goldens), settings["timeout_s"])
    command = asyncio.create_task(commands.readline())
    origin, reported, number = time.perf_counter(), 0.0, 0
    while not command.done():
        now = time.perf_counter()
        while origin + number / settings["rate"] <= now:
            session.start(number)
            number += 1
        if now - reported >= REPORT_EVERY_S:
            reported = now
            say(session.probe(), final=False)
        await asyncio.wait([command], timeout=max(0.0, origin + number / settings["rate"] - time.perf_counter()))
    if command.result():
        while session.in_flight:
            await asyncio.wait(session.in_flight)
        say(session.probe(), final=True)


def say(seen: Probe, *, final: bool) -> None:
    print(json.dumps({**seen.model_dump(), "final": final}), flush=True)  # noqa: T201


async def main() -> None:
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await probe(json.loads(await commands.readline()), commands)


if __name__ == "__main__":
    asyncio.run(main())
