"""A canary's share by the weights of an HTTPRoute, whose backends are the active and the preview Service.

Every write tests the fence that was read and sets one that nobody had before: a late one changes nothing, and the
statuses that gateways write do not matter. Weights are set after the active Service says so, and taken back before it
says so no more.
"""

import secrets
from collections.abc import Callable
from random import uniform

from ekiben.errors import ConflictError, UsageError
from ekiben.platforms.kubernetes.api import NoAnswerError
from ekiben.platforms.kubernetes.hold import Hold
from ekiben.platforms.kubernetes.state import FENCE, annotations, fenced
from ekiben.platforms.manifests.names import Manifest, Target

ATTEMPTS = 6  # while others write, or no answer comes


class Route:
    def __init__(self, hold: Hold, name: str) -> None:
        self._hold, self.name = hold, name
        self._where = hold.path("gateway.networking.k8s.io/v1", "httproutes", name)

    def fence(self) -> str | None:
        """To be read before anybody can know of the canary. UsageError if the route can share nothing."""
        route = self._hold.api.get(self._where)
        if not _pairs(self._hold.target, route):
            raise UsageError(
                f"no rule of HTTPRoute {self.name} has both Services of {self._hold.service} as backends",
                wanted=f"{self._hold.target.name} and {self._hold.target.preview} in the backendRefs of one rule",
                next_step="add them, as `ekiben render` shows where `gateway` is set, or leave `http_route` out",
            )
        return annotations(route).get(FENCE)

    def share(self, percent: int, fence: str | None, token: str) -> None:
        """That share goes to the preview Service; the fence is then `token`. ConflictError if it is no longer `fence`:
        then somebody has ended this canary."""

        def try_it() -> None:
            route = self._hold.api.get(self._where)
            if annotations(route).get(FENCE) != token:
                self._hold.api.patch(self._where, weighing(self._hold.target, route, percent, fence, token))

        self._insist(try_it)

    def close(self) -> None:
        """The active Service gets all, and no share that was asked for before comes about any more."""

        def try_it() -> None:
            route = self._hold.api.find(self._where)
            if route:
                fence, new = annotations(route).get(FENCE), f"closed {secrets.token_hex(6)}"
                self._hold.api.patch(self._where, weighing(self._hold.target, route, 0, fence, new))

        self._insist(try_it)

    def weights(self) -> set[tuple[int, int]]:
        """Of the active and the preview Service, in each rule that has both."""
        route = self._hold.api.get(self._where)
        pairs = _pairs(self._hold.target, route)
        return {
            (_ref(route, *active).get("weight", 1), _ref(route, *preview).get("weight", 1)) for active, preview in pairs
        }

    def _insist(self, act: Callable[[], None]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                act()
                return
            except (ConflictError, NoAnswerError):
                if attempt + 1 == ATTEMPTS:
                    raise
                self._hold.sleep(uniform(0.5, 1.5) * 0.1 * 2**attempt)


Place = tuple[int, int]
"""Of a backendRef: which rule, and which of its backends."""


def weighing(target: Target, route: Manifest, percent: int, fence: str | None, new: str) -> list[Manifest]:
    """The patch that gives the preview Service that share in each rule that has both, if the fence is `fence`."""
    patch = fenced(fence, (f"/metadata/annotations/{FENCE.replace('/', '~1')}", new))
    if not annotations(route):  # a test of what is in no map fails
        none = {"op": "test", "path": "/metadata/annotations", "value": None}
        patch = [none, {"op": "add", "path": "/metadata/annotations", "value": {FENCE: new}}]
    for pair in _pairs(target, route):
        for (rule, number), weight in zip(pair, (100 - percent, percent), strict=True):
            where = f"/spec/rules/{rule}/backendRefs/{number}"
            name = _ref(route, rule, number)["name"]
            patch += [{"op": "test", "path": f"{where}/name", "value": name}]
            patch += [{"op": "add", "path": f"{where}/weight", "value": weight}]
    return patch


def _pairs(target: Target, route: Manifest) -> list[tuple[Place, Place]]:
    """Where the active and the preview Service stand, in each rule that has both."""
    found = []
    for number, rule in enumerate(route["spec"].get("rules") or ()):
        places = {
            ref["name"]: (number, each)
            for each, ref in enumerate(rule.get("backendRefs") or ())
            if ref.get("kind", "Service") == "Service"
            and ref.get("namespace", target.settings.namespace) == target.settings.namespace
        }
        if {target.name, target.preview} <= places.keys():
            found.append((places[target.name], places[target.preview]))
    return found


def _ref(route: Manifest, rule: int, number: int) -> Manifest:
    ref: Manifest = route["spec"]["rules"][rule]["backendRefs"][number]
    return ref
