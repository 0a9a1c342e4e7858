"""A share of the traffic for a candidate: the selector names both colours, and their pods share alike; or, where the
environment has an HTTPRoute, that one gives it to the preview Service by weight (route.py).

Selector, epoch and the note of who tries what move in one fenced patch, there and back. While the selector names both,
nobody may claim, overwrite or stop either; see `rollout.state`.
"""

from datetime import timedelta

from ekiben.errors import ConflictError, UnavailableError
from ekiben.platforms.kubernetes.colour import ATTEMPTS, SCALERS, Colours, fit
from ekiben.platforms.kubernetes.hold import Hold
from ekiben.platforms.kubernetes.route import Route
from ekiben.platforms.kubernetes.state import CANARY, ENDED, View, at_version, canary_note, claim_key, sizes
from ekiben.platforms.kubernetes.traffic import VERIFY_SECONDS, Traffic
from ekiben.platforms.manifests import workload
from ekiben.platforms.manifests.names import EPOCH
from ekiben.rollout.plan import Narrow, Widen
from ekiben.rollout.state import Canary
from ekiben.types import SLOTS, Slot, other


def pods(percent: int, old: int) -> int:
    """How many new pods besides `old` ones get at most that share of all connections; at least one. 0 %: no canary,
    as many as there are old ones."""
    return max(1, percent * old // (100 - percent)) if percent else old


class CanaryColours(Colours):
    """`percent`: the share that a candidate is sized for; 0: it is to take over all."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(hold)
        self.percent = 0

    def size(self, view: View | None = None) -> int:
        view = view or self._hold.known
        full = super().size(view)
        selector = view.state.selector
        if not self.percent or selector is None:
            return full
        return pods(self.percent, sizes(view.deployments[selector]).wanted or full)

    def hold_size(self, slot: Slot, size: int, claim: str) -> None:
        """A canary stays at exactly that size: with more pods it would get a greater share."""
        super().hold_size(slot, size, claim)
        scaler = workload.autoscaler(self._hold.target, slot)
        if scaler is None or not self.percent or slot == self._hold.known.state.selector:
            return
        where, least = self._hold.path_of(scaler), SCALERS[scaler["kind"]]
        bounds = [(f"/spec/{key}", size) for key in (least, least.replace("min", "max"))]
        for attempt in range(ATTEMPTS):
            # Never late: it would hold down what is live by then.
            version = self._hold.api.get(where)["metadata"]["resourceVersion"]
            try:
                self._hold.api.patch(where, at_version(version, *bounds))
                return
            except ConflictError:  # somebody's status, more often than not
                if attempt + 1 == ATTEMPTS:
                    raise


class Canaries:
    def __init__(self, hold: Hold, traffic: Traffic, colours: CanaryColours) -> None:
        self._hold, self._traffic, self._colours = hold, traffic, colours

    def widen(self, action: Widen, claim: str) -> None:
        """ConflictError if the colour is no longer this command's, or not ready."""
        hold, slot = self._hold, action.slot
        if sizes(hold.known.deployments[slot]).wanted != self._colours.size():
            self._colours.start(slot, action.bento, claim)
        stamp, old = hold.take(slot, claim), other(slot)
        hold.look_at(*SLOTS)  # under the stamp: nobody else can change it from here on
        view, size = hold.known, sizes(hold.known.deployments[slot])
        if view.fence(slot) != stamp or not fit(size, self._colours.size()):
            raise ConflictError(
                f"{slot} of {hold.service} is no longer ready: {size.available} of {size.wanted} pods available",
                wanted=f"{self._colours.size()} pods of {action.bento}",
                next_step="run the command again",
            )
        self._colours.hold_size(old, sizes(view.deployments[old]).wanted, claim)
        name = hold.target.settings.http_route
        canary = Canary(slot=slot, percent=action.percent, by=claim, token=action.token, route=name)
        after = view.state.widened(canary, action.bento, action.epoch)
        made = {EPOCH: str(after.epoch), CANARY: canary_note(canary), claim_key(slot): str(hold.token(claim))}
        hold.change_service(made, None if name else hold.target.selector())

    def narrow(self, action: Narrow) -> None:
        view = self._hold.known
        after = view.state.narrowed(action.token, action.epoch)
        self.close_route()
        made = {EPOCH: str(after.epoch), CANARY: None, ENDED: action.token}
        self._hold.change_service(made, self._hold.target.selector(action.slot))
        self._hold.say(f"{action.slot}: has all traffic again")

    def close_route(self) -> None:
        """Where a route shares, the active Service gets all again."""
        canary = self._hold.known.canary
        if canary and canary.route:
            Route(self._hold, canary.route).close()

    def share_seen(self, token: str) -> str:
        """The share that canary has, once it is seen. ConflictError if it was ended meanwhile; UnavailableError if it
        does not come about within seconds."""
        hold, pause = self._hold, 0.25
        deadline = hold.now() + timedelta(seconds=VERIFY_SECONDS)
        while True:
            hold.view = hold.known.with_service(hold.api.get(hold.path("v1", "services", hold.target.name)))
            canary = hold.known.canary
            if canary is None or canary.token != token:
                raise ConflictError(
                    f"somebody ended this canary of {hold.service}",
                    wanted="a canary that is let run to its verdict",
                    next_step="find out who rolled it back, and why, then deploy again",
                )
            if canary.route:
                weights = Route(hold, canary.route).weights()
                told = " and ".join(f"{active}:{preview}" for active, preview in sorted(weights))
                return f"asked {canary.percent} %, weights {told} of HTTPRoute {canary.route}"
            seen = self._traffic.counts()
            new, every = seen[canary.slot], sum(seen.values())
            if new >= self._colours.size() and every > new:
                return f"asked {canary.percent} %, {new} of {every} pods = {100 * new / every:.0f} %"
            if hold.now() > deadline:
                raise UnavailableError(
                    f"the endpoints of {hold.target.name} are {new} pods of {canary.slot} among {every}",
                    wanted=f"{self._colours.size()} of {canary.slot}, and some of {other(canary.slot)}",
                    next_step="look at the EndpointSlices, then deploy again",
                )
            hold.sleep(pause)
            pause = min(2 * pause, 2.0)
