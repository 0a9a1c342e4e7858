"""A service's endpoints: each request is checked against the method's contract, and the method is called.

Requests are checked before BentoML sees them, because BentoML logs a traceback with the input's values for each 4xx.
Every error is `{"error": "<one sentence>"}`, the shape that BentoML itself uses; it never repeats input values.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import bentoml
from _bentoml_sdk.method import APIMethod
from bentoml.exceptions import ServiceUnavailable
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1 << 20
"""Largest request body, in bytes."""
MOST_DROPPED = 64 << 20
"""How much of a body that is too large is read and dropped before the connection is closed on it, in bytes."""
BODY_SECONDS = 10.0
"""How long a client may take to send a body."""

logger = logging.getLogger("bentoml.serve")


class Endpoints:
    """Answers the endpoints: checks the request against the method's input type and calls the method.

    It stands inside BentoML's metrics, in place of BentoML's own handler. That one writes what was wrong, with the
    values, into the log, and costs as much CPU again as all the rest of a small prediction.
    """

    def __init__(self, app: App, methods: Mapping[str, APIMethod]) -> None:
        self.app = app
        self.methods = methods
        self.calls: dict[str, Callable[..., Awaitable[BaseModel]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = self.methods.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if method is None:
            return await self.app(scope, receive, send)
        try:
            request = _parse(method.input_spec, await _body(scope, receive))
            answer = await self._call(method.name)(**dict(request))
            response = Response(answer.model_dump_json(), media_type="application/json")
        except ConnectionAbortedError:
            return None
        except HTTPException as refusal:
            response = error(refusal.status_code, refusal.detail)
        except ServiceUnavailable:
            response = error(503, "too many requests wait for the model; try again later", {"Retry-After": "1"})
        except Exception:
            logger.exception("Exception on %s", method.route)
            response = error(500, "an unexpected error has occurred; see the server's log")
        return await response(scope, receive, send)

    def _call(self, name: str) -> Callable[..., Awaitable[BaseModel]]:
        # Looked up once: BentoML inspects the signature anew whenever the attribute is read.
        if name not in self.calls:
            self.calls[name] = getattr(bentoml.get_current_service(), name).local
        return self.calls[name]


async def _body(scope: Scope, receive: Receive) -> bytes:
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise HTTPException(415, "send the header Content-Type: application/json, and JSON in the body")
    too_large = HTTPException(413, f"the body is larger than {MOST_BYTES:,} bytes; send fewer rows at once")
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body = message.get("body", b"")
    else:
        body = await _pieces(message, receive, too_large)
    if len(body) > MOST_BYTES:
        raise too_large
    return body


async def _pieces(message: MutableMapping[str, Any], receive: Receive, too_large: HTTPException) -> bytes:
    """The body that comes in pieces. What is too large is read on, and dropped, before it is refused: a connection that
    is closed with bytes unread is reset, and the client would see that instead of the answer."""
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                if message["type"] == "http.disconnect":
                    raise ConnectionAbortedError
                size += len(message.get("body", b""))
                if size <= MOST_BYTES:
                    body += message.get("body", b"")
                if size > MOST_DROPPED or (size > MOST_BYTES and not message.get("more_body")):
                    raise too_large
                if not message.get("more_body"):
                    return bytes(body)
                message = await receive()
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None


def _parse(contract: type[BaseModel], body: bytes) -> BaseModel:
    if not body.strip():
        raise HTTPException(400, f"the body is empty; wanted a JSON object with {', '.join(contract.model_fields)}")
    try:
        return contract.model_validate_json(body)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise HTTPException(400, _sentence(contract, mistake["type"], mistake["loc"], mistake["msg"])) from None


def _sentence(contract: type[BaseModel], kind: str, where: tuple[int | str, ...], message: str) -> str:
    if kind == "extra_forbidden":  # the place would be a name that the client made up
        return f"unknown field; known: {', '.join(contract.model_fields)}"
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
    return f"{place or 'body'}: {message}"


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)
