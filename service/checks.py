"""What every service does with HTTP, around BentoML's own application."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import bentoml
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from service.draining import Draining
from service.endpoints import App, Endpoints, Receive, Scope, Send, error

_ELSEWHERE = "/unknown"


class CheckedService(bentoml.Service):
    """A BentoML service that gets checked requests, names its model in each answer, and ends in good order.

    Its endpoints are `async def`, and take and return pydantic models.
    """

    def to_asgi(self, is_main: bool = True) -> App:
        self.add_asgi_middleware(Endpoints, methods={method.route: method for method in self.apis.values()})
        app = super().to_asgi(is_main)
        # What is answered within one turn of the event loop no timeout can interrupt, and each leaves a timer behind.
        app.user_middleware = [each for each in app.user_middleware if each.cls is not TimeoutMiddleware]
        app.add_exception_handler(HTTPException, _http_error)
        versions = {"model": " ".join(str(model.tag) for model in self.models), "bento": ""}
        if self.bento is not None:
            versions["bento"] = str(self.bento.tag)
        _tell_metrics(versions)
        headers = [(f"x-{of}-version".encode(), version.encode()) for of, version in versions.items() if version]
        return Front(app, _paths(app), headers, Draining())


class Front:
    """Stands before all else of a service.

    BentoML's metrics label each series with the raw path, so unknown paths are made to share one. `headers` are added
    to every answer. While the service drains it is not ready, and no connection is kept.
    """

    def __init__(self, app: App, paths: frozenset[str], headers: list[tuple[bytes, bytes]], draining: Draining) -> None:
        self.app = app
        self.paths = paths
        self.headers = headers
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, self.draining.from_startup(send))
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"] not in self.paths:
            scope["path"] = _ELSEWHERE

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                closing = [(b"connection", b"close")] if self.draining.began else []
                message["headers"] = [*message["headers"], *self.headers, *closing]
            await send(message)

        if self.draining.began and scope["path"] == "/readyz":
            return await error(503, "shutting down")(scope, receive, sending)
        return await self.app(scope, receive, sending)


def _tell_metrics(versions: dict[str, str]) -> None:
    """What answers, as labels of a metric that is always 1: to be joined with the others when they are read."""
    from prometheus_client import Gauge

    labels = {f"{of}_version": version for of, version in versions.items()}
    info = Gauge("ekiben_model_info", "Which model and Bento answer.", [*labels], multiprocess_mode="max")
    info.labels(**labels).set(1)


async def _http_error(request: Request, refusal: HTTPException) -> Response:
    return error(refusal.status_code, refusal.detail, refusal.headers)


def _paths(app: Starlette) -> frozenset[str]:
    """Every path that the application answers."""
    routes = {route.path for route in app.routes if isinstance(route, Route)}
    mounts = [route for route in app.routes if isinstance(route, Mount)]
    for mount in mounts:
        folder = Path(mount.app.directory)
        routes |= {f"{mount.path}/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}
    return frozenset(routes)
