"""Who asks, and under which address: what every route needs to know of a request first."""

import base64
import binascii

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ekiben.tracker import keys
from ekiben.tracker.graph.base import User
from ekiben.tracker.state import State
from ekiben.tracker.urls import Urls

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def authenticate(request: Request) -> User:
    """Who asks. Raises HTTPException 401."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    key = value
    if kind.lower() == "basic":
        try:
            key = base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            key = ""
    state: State = request.app.state.tracker
    user = keys.check(state.store, key.strip())  # some 20 µs, and never kept waiting by writers: no thread needed
    if user is None:
        # The header makes a browser ask for the key, as the password of any user name.
        raise HTTPException(
            401,
            "the API key is not one of this tracker's, or was revoked",
            {"WWW-Authenticate": 'Basic realm="ekiben tracker: any user name, an API key as password"'},
        )
    if user.keyless and request.url.hostname not in LOOPBACK:
        # Else a page from elsewhere, whose name was made to lead to this machine, could read all there is.
        raise HTTPException(403, f"without keys this tracker answers to {', '.join(LOOPBACK)} only")
    return user


def urls_for(request: Request) -> Urls:
    return Urls(str(request.base_url).rstrip("/"), request.app.state.tracker.store.secret)
