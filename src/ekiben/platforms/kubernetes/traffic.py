"""Who gets traffic, seen from outside: endpoints, the preview, and what pods tell of themselves, all through the API
server."""

from datetime import timedelta

from ekiben.errors import UnavailableError
from ekiben.platforms.kubernetes.hold import Hold
from ekiben.platforms.manifests.names import PORT, PORT_NAME, Manifest
from ekiben.types import SLOTS, Slot

VERIFY_SECONDS = 30.0
SETTLE_SECONDS = 1.0
"""The API server's proxy may go by Endpoints, which another controller writes than the EndpointSlices that are seen."""
DIAL_SECONDS = 30.0
NOBODY = (0, 502, 503, 504)
"""Statuses of a proxied request that reached no pod, or one that says itself that it is not ready."""


class Traffic:
    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._aimed: Slot | None = None
        self._readable = False

    def preview(self, slot: Slot) -> None:
        """Aim the preview Service at that colour. Its endpoints follow some time later: see `astray`. Whoever holds the
        idle colour does this, so once is enough."""
        if self._aimed == slot:
            return
        patch: list[Manifest] = [{"op": "add", "path": "/spec/selector", "value": self._hold.target.selector(slot)}]
        where = self._hold.path("v1", "services", self._hold.target.preview)
        self._hold.api.patch(where, patch, repeatable=True)
        self._aimed = slot

    def astray(self, slot: Slot) -> str:
        """What is wrong with the preview Service's endpoints, '' if they are pods of that colour alone that stay: else
        the other colour might answer, or what this one held before."""
        names = self.ready(self._hold.target.preview)
        staying = {
            pod["metadata"]["name"] for pod in self._hold.pods(slot) if "deletionTimestamp" not in pod["metadata"]
        }
        return _among(names, [name for name in names if name not in staying])

    def aim(self, slot: Slot) -> None:
        """Aim the preview Service at that colour, and wait until it alone can answer. UnavailableError if that does not
        come about within seconds."""
        self.preview(slot)
        deadline, pause = self._hold.now() + timedelta(seconds=VERIFY_SECONDS), SETTLE_SECONDS
        self._hold.sleep(pause)
        while wrong := self.astray(slot):
            if self._hold.now() > deadline:
                raise self._late(self._hold.target.preview, slot, wrong, "look at the EndpointSlices, and deploy again")
            self._hold.sleep(pause)
            pause = min(2 * pause, 5.0)
        if pause > SETTLE_SECONDS:  # they have come about just now
            self._hold.sleep(SETTLE_SECONDS)

    def ask_preview(self, route: str, body: bytes) -> tuple[int, bytes]:
        """POST to the preview Service, through the API server: status and body; status 0: no answer."""
        where = self._hold.path("v1", "services", f"{self._hold.target.preview}:{PORT_NAME}", f"proxy{route}")
        # The API server itself waits so long for a connection to a pod.
        seconds = max(DIAL_SECONDS, self._hold.target.settings.longest_request_seconds) + 5.0
        return self._hold.api.proxied(where, body, seconds)

    def metrics(self, pod: str, seconds: float) -> str:
        """What the pod's /metrics says, through the API server, within about so long."""
        where = self._hold.path("v1", "pods", f"{pod}:{PORT}", "proxy/metrics")
        return self._hold.api.text(where, seconds=seconds)

    def verify(self) -> None:
        """The live Service's endpoints are ready pods of the live colour, and nothing else but a canary's.
        UnavailableError if that does not come about within seconds."""
        deadline = self._hold.now() + timedelta(seconds=VERIFY_SECONDS)
        pause = 0.0
        while True:
            slot = self._hold.live_slot()
            wrong = self._strays(slot)
            if not wrong:
                return
            if pause:  # it takes some time; if it takes longer, somebody may have switched meanwhile
                service = self._hold.api.get(self._hold.path("v1", "services", self._hold.target.name))
                self._hold.view = self._hold.known.with_service(service)
            if self._hold.now() > deadline:
                next_step = "look at the EndpointSlices; `ekiben rollback` goes back"
                raise self._late(self._hold.target.name, slot, wrong, next_step)
            pause = min(2 * pause, 2.0) or 0.25
            self._hold.sleep(pause)

    def readable(self) -> None:
        """Who may not read endpoints learns it here, before anything moves."""
        if not self._readable:
            self.ends()

    def ends(self, service: str = "") -> list[Manifest]:
        """Of the live Service where none is named."""
        params = {"labelSelector": f"kubernetes.io/service-name={service or self._hold.target.name}"}
        slices = self._hold.api.get(self._hold.path("discovery.k8s.io/v1", "endpointslices"), params)["items"]
        self._readable = True
        return [end for each in slices for end in each.get("endpoints") or ()]

    def _strays(self, slot: Slot) -> str:
        canary = self._hold.known.canary
        names, wanted = self.ready(), SLOTS if canary and not canary.route else (slot,)
        return _among(names, [name for name in names if not any(self._is_of(name, each) for each in wanted)])

    def _late(self, service: str, slot: Slot, wrong: str, next_step: str) -> UnavailableError:
        seen = f"the endpoints of {service} do not follow its selector: {wrong}"
        return UnavailableError(seen, wanted=f"ready pods of {slot}, and only those", next_step=next_step)

    def counts(self) -> dict[Slot, int]:
        """How many ready pods of each colour the live Service sends traffic to."""
        names = self.ready()
        return {slot: sum(self._is_of(name, slot) for name in names) for slot in SLOTS}

    def ready(self, service: str = "") -> list[str]:
        """Names of the pods that the live Service sends traffic to, or that one; a pod with addresses of two families
        is one."""
        ready = [end for end in self.ends(service) if (end.get("conditions") or {}).get("ready") is not False]
        return list(dict.fromkeys((end.get("targetRef") or {}).get("name", "?") for end in ready))

    def _is_of(self, pod: str, slot: Slot) -> bool:
        return pod.startswith(f"{self._hold.target.of(slot)}-")


def _among(names: list[str], strange: list[str]) -> str:
    return f"{', '.join(strange)} among them" if strange else "" if names else "none is ready"
