"""Bytes in and out, at addresses that carry their own permission."""

import asyncio
import base64
import binascii
import mimetypes
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from ekiben.tracker.access import authenticate
from ekiben.tracker.blobs import Incoming
from ekiben.tracker.paths import check_path
from ekiben.tracker.state import State
from ekiben.tracker.store import now
from ekiben.tracker.urls import Urls

CHUNK = 1 << 19  # bytes handled at once; one transfer holds twice that


class BlobResponse(FileResponse):
    chunk_size = CHUNK


async def put_blob(request: Request) -> Response:
    state = _permitted(request)
    await _receive(request, state.blobs.incoming, request.path_params["md5"])
    return Response()


async def put_part(request: Request) -> Response:
    uploads = _permitted(request).uploads
    upload, number = request.path_params["upload"], request.path_params["number"]
    md5, _ = await _receive(request, lambda: uploads.part(upload, number), _content_md5(request))
    await run_in_threadpool(uploads.advance, upload)
    return Response(headers={"ETag": f'"{md5}"'})


async def put_run_file(request: Request) -> Response:
    state = _permitted(request)
    run, name = request.path_params["run"], request.path_params["name"]
    check_path(name)
    md5, size = await _receive(request, state.blobs.incoming, _content_md5(request))

    def note() -> None:
        with state.store.write() as db:
            if db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is None:
                raise HTTPException(404, "the run is no longer there")
            db.execute(
                "INSERT INTO run_files (run, name, md5, size, updated_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (run, name) DO UPDATE SET md5 = excluded.md5, size = excluded.size,"
                " updated_at = excluded.updated_at",
                (run, name, md5, size, now()),
            )

    await run_in_threadpool(note)
    return Response()


async def download(request: Request) -> Response:
    return _send(_permitted(request), request.path_params["md5"], request.path_params["name"])


async def download_entry(request: Request) -> Response:
    """One file of an artifact at the address that the client builds itself: …/MD5/NAME, asked for with a key."""
    authenticate(request)
    return _send(request.app.state.tracker, request.path_params["md5"], request.path_params["name"])


def _send(state: State, md5: str, name: str) -> Response:
    path = state.blobs.path(md5)
    if not path.is_file():
        raise HTTPException(404, "no such blob")
    state.sent_bytes += path.stat().st_size
    # Never rendered: what a model's author uploads must not run as a page of this server.
    return BlobResponse(
        path,
        media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
        headers={"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"},
    )


async def _receive(request: Request, begin: Callable[[], Incoming], expected: str | None) -> tuple[str, int]:
    """Takes the body into a blob. Returns its MD5 and size; nothing is left where it comes short or differs."""
    declared = request.headers.get("content-length")
    incoming = begin()
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writing.set_result(None)
    try:
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= CHUNK:
                # One chunk is hashed and written while the next one comes in.
                await writing
                writing = asyncio.ensure_future(run_in_threadpool(incoming.write, waiting))
                waiting = bytearray()
        await writing
        size = incoming.size + len(waiting)
        if declared is not None and declared != str(size):
            raise HTTPException(400, f"{size} bytes came of {declared} that were announced")
        md5 = await run_in_threadpool(_finish, incoming, waiting, expected)
    except ClientDisconnect:
        raise HTTPException(400, "the upload broke off") from None
    finally:
        await asyncio.wait([writing])
        incoming.abandon()
    request.app.state.tracker.received_bytes += incoming.size
    return md5, incoming.size


def _finish(incoming: Incoming, rest: bytearray, expected: str | None) -> str:
    incoming.write(rest)
    return incoming.finish(expected)


def _content_md5(request: Request) -> str | None:
    """The MD5 that the client declares in hexadecimal, if it does."""
    declared = request.headers.get("content-md5")
    if declared is None:
        return None
    try:
        return base64.b64decode(declared, validate=True).hex()
    except (binascii.Error, ValueError):
        raise HTTPException(400, "Content-MD5 is not base64") from None


def _permitted(request: Request) -> State:
    state: State = request.app.state.tracker
    query = request.query_params
    urls = Urls("", state.store.secret)
    method = "GET" if request.method == "HEAD" else request.method
    if not urls.allows(method, request.url.path, query.get("until", ""), query.get("signature", "")):
        raise HTTPException(403, "this address was not given by this tracker, or has expired")
    return state


ROUTES = [
    Route("/upload/blob/{md5}", put_blob, methods=["PUT"]),
    Route("/upload/part/{upload}/{number:int}", put_part, methods=["PUT"]),
    Route("/upload/run/{run:int}/{name:path}", put_run_file, methods=["PUT"]),
    Route("/download/{md5}/{name:path}", download),
    Route("/artifactsV2/{where:path}/{md5}/{name}", download_entry),
]
