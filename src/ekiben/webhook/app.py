"""The routes. POST /wandb answers 202 with the run that was submitted, 200 where it was before or nothing is wanted,
and otherwise a problem (RFC 9457): 400, 401, 408, 413, 422; 503 with Retry-After where W&B or the cluster is away.
"""

import sys
import time
from dataclasses import asdict, dataclass
from http import HTTPStatus

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ekiben.errors import ConflictError, EkibenError, NotFoundError, UnavailableError
from ekiben.pipeline.promotion import AliasError, Promoter, Promotion
from ekiben.triggers import Webhook
from ekiben.webhook import payload, signature
from ekiben.webhook.counts import Counts

BODY_LIMIT = 1 << 20  # bytes
BODY_SECONDS = 10
MOST_AT_ONCE = 32
RETRY_SECONDS = 15
_OUTCOMES = {
    200: "nothing-to-do",
    202: "submitted",
    400: "malformed",
    401: "unauthorised",
    408: "too-slow",
    413: "too-large",
    422: "unusable",
    503: "unavailable",
}


class Problem(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass
class Receiver:
    """`tokens` may give none: then no Authorization is asked for."""

    settings: Webhook
    promoter: Promoter
    secrets: signature.Secrets
    tokens: signature.Secrets


def create_app(receiver: Receiver) -> Starlette:
    """The ASGI application."""
    counts = Counts()
    here = 0
    unready = ""

    async def wandb(request: Request) -> Response:
        nonlocal here
        began = time.monotonic()
        here += 1
        try:
            if here > MOST_AT_ONCE:
                raise Problem(503, f"{MOST_AT_ONCE} events are being worked on")
            answer = await _received(receiver, request)
        except Problem as problem:
            answer = _told(problem)
        except Exception as error:  # what it says could be of any kind, so it is not told
            _say(f"failed: {type(error).__name__}")
            answer = _told(Problem(500, "the receiver failed"))
        finally:
            here -= 1
        counts.add(_OUTCOMES.get(answer.status_code, "failed"), time.monotonic() - began)
        return answer

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        nonlocal unready
        try:
            await to_thread.run_sync(receiver.promoter.ready, receiver.settings.workflows)
        except EkibenError as error:
            if error.seen != unready:  # once, and not to whoever asks
                _say(f"not ready: {error.seen}")
            unready = error.seen
            return PlainTextResponse("not ready\n", 503)
        unready = ""
        return PlainTextResponse("ok\n")

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(counts.render())

    return Starlette(
        routes=[
            Route("/wandb", wandb, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


async def _received(receiver: Receiver, request: Request) -> Response:
    try:
        tokens, secrets = receiver.tokens(), receiver.secrets()
    except UnavailableError as error:
        _say(error.seen)
        raise Problem(503, "no secrets to verify with") from None
    if tokens and not signature.bears(request.headers.get("authorization", ""), tokens):
        raise Problem(401, "the access token is missing or wrong")
    body = await _body(request)
    given = request.headers.getlist("x-wandb-signature")
    if len(given) != 1 or not signature.signed(body, given[0], secrets):
        raise Problem(401, "X-Wandb-Signature is missing, or no signature of this body by a secret known here")
    try:
        event = payload.read(body)
    except payload.MalformedError as error:
        raise Problem(400, str(error)) from None
    except payload.UnusableError as error:
        raise Problem(422, str(error)) from None
    done = await to_thread.run_sync(_promoted, receiver, event)
    if not done:
        return JSONResponse({"runs": [], "why": "no trigger of [tool.ekiben.webhook] is about this event"})
    for each in done:
        _say(str(each))
    new = next((each for each in done if each.new), None)
    runs = [asdict(each) for each in done]
    return JSONResponse({"run": (new or done[0]).run, "runs": runs}, 202 if new else 200)


def _promoted(receiver: Receiver, event: dict[str, str]) -> list[Promotion]:
    collection = event["artifact_collection_name"]
    try:
        about = receiver.settings.about(event).items()
        return [receiver.promoter.promote(name, trigger, collection, event) for name, trigger in about]
    except EkibenError as error:
        _say(f"{collection}: {error.seen}")
        match error:
            case AliasError():
                raise Problem(422, error.seen) from None
            case UnavailableError() | ConflictError() | NotFoundError():  # a template that is not there may come
                raise Problem(503, error.seen) from None
        raise Problem(500, error.seen) from None


async def _body(request: Request) -> bytes:
    """As it came, since that is what is signed."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > BODY_LIMIT:
        raise Problem(413, f"the body is larger than {BODY_LIMIT} bytes")
    body = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise Problem(413, f"the body is larger than {BODY_LIMIT} bytes")
    except TimeoutError:
        raise Problem(408, f"the body was not here after {BODY_SECONDS} s") from None
    except ClientDisconnect:
        raise Problem(400, "the body broke off") from None
    return bytes(body)


def _told(problem: Problem) -> Response:
    headers = {"Retry-After": str(RETRY_SECONDS)} if problem.status == 503 else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.status in (408, 413):
        headers["Connection"] = "close"  # what still comes of the body is not read
    told = {"title": HTTPStatus(problem.status).phrase, "status": problem.status, "detail": problem.detail}
    return JSONResponse(told, problem.status, headers, media_type="application/problem+json")


def _say(text: str) -> None:
    print(f"ekiben webhook: {text}", file=sys.stderr, flush=True)  # noqa: T201
