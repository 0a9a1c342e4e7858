"""The routes: who may ask, how much may be sent, and which module answers."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ekiben.errors import EkibenError
from ekiben.tracker import filestream, metrics, page, transfer
from ekiben.tracker.access import authenticate, urls_for
from ekiben.tracker.answer import answer
from ekiben.tracker.graph.base import Context
from ekiben.tracker.graph.run_mutations import find_run
from ekiben.tracker.graphql import GraphQLError
from ekiben.tracker.state import State

BODY_LIMIT = 32 << 20  # bytes of JSON; the client splits its streams well below
WORKERS = 8  # threads: enough to keep two disks busy, few enough to keep memory flat


def create_app(state: State) -> Starlette:
    """The ASGI application over an open store."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = WORKERS
        yield
        state.store.close()

    app = Starlette(
        routes=[
            Route("/graphql", graphql, methods=["POST"]),
            Route("/files/{entity}/{project}/{run}/file_stream", file_stream, methods=["POST"]),
            *transfer.ROUTES,
            Route("/healthz", healthz),
            Route("/metrics", prometheus),
            *page.ROUTES,
        ],
        exception_handlers={HTTPException: _http_error, EkibenError: _ekiben_error, GraphQLError: _bad_request},
        lifespan=lifespan,
    )
    app.state.tracker = state
    return app


async def graphql(request: Request) -> Response:
    user = authenticate(request)
    body = await read_json(request)
    state = request.app.state.tracker
    return JSONResponse(await run_in_threadpool(answer, state, user, urls_for(request), body))


async def file_stream(request: Request) -> Response:
    user = authenticate(request)
    body = await read_json(request)
    state: State = request.app.state.tracker
    wanted = request.path_params

    def receive() -> dict[str, Any]:
        with state.store.write() as db:
            context = Context(db, state.blobs, state.uploads, user, urls_for(request))
            run = find_run(context, wanted["entity"], wanted["project"], wanted["run"])
            filestream.receive(db, run.key, body)
            return {"exitcode": None, "limits": {}, "stopped": bool(run.row["stop_requested"])}

    return JSONResponse(await run_in_threadpool(receive))


async def healthz(request: Request) -> Response:
    state: State = request.app.state.tracker
    return JSONResponse(
        {
            "status": "damaged" if state.missing else "ok",
            "unknown_operations": sorted(state.unknown),
            "missing_files": len(state.missing),
        }
    )


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises HTTPException 413, 415, 400."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # What a page in a browser can send to a server elsewhere without asking first is never JSON.
        raise HTTPException(415, "the body must be application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise HTTPException(413, f"the body is larger than {BODY_LIMIT >> 20} MiB")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return value


async def prometheus(request: Request) -> Response:
    authenticate(request)
    return PlainTextResponse(await run_in_threadpool(metrics.render, request.app.state.tracker))


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    # Both spellings are read by the client, in different places.
    return JSONResponse({"error": message, "errors": [{"message": message}]}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


async def _bad_request(request: Request, error: Exception) -> Response:
    return _error(404 if str(error).startswith("no ") else 400, str(error))


async def _ekiben_error(request: Request, error: Exception) -> Response:
    return _error(400, str(error))
