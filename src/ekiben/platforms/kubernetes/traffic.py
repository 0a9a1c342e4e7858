"""Who gets traffic, seen from outside: endpoints, the preview, and what pods tell of themselves, all through the API
server."""

from datetime import timedelta

from ekiben.errors import UnavailableError
from ekiben.platforms.kubernetes.api import TRIES, NoAnswerError
from ekiben.platforms.kubernetes.hold import Hold
from ekiben.platforms.manifests.names import PORT, PORT_NAME, Manifest
from ekiben.types import SLOTS, Slot

VERIFY_SECONDS = 30.0


class Traffic:
    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._aimed: Slot | None = None
        self._seen = False  # endpoints, by this command

    def preview(self, slot: Slot) -> None:
        """The preview Service selects that colour; whoever holds the idle one does this, so once is enough."""
        if self._aimed == slot:
            return
        patch: list[Manifest] = [{"op": "add", "path": "/spec/selector", "value": self._hold.target.selector(slot)}]
        for attempt in range(TRIES):  # twice is as good as once
            try:
                self._hold.api.patch(self._hold.path("v1", "services", self._hold.target.preview), patch)
                self._aimed = slot
                return
            except NoAnswerError:
                if attempt + 1 == TRIES:
                    raise
                self._hold.sleep(0.2 * 2**attempt)

    def preview_astray(self, slot: Slot, seconds: float) -> str:
        """Whom the preview Service still reaches besides ready pods of that colour; '' as soon as it is nobody. Its
        endpoints follow its selector some time later: until then the other colour would answer for this one."""
        deadline, pause = self._hold.now() + timedelta(seconds=seconds), 0.25
        while wrong := self._strays(self.ready(self._hold.target.preview), (slot,)):
            if self._hold.now() >= deadline:
                break
            self._hold.sleep(pause)
            pause = min(2 * pause, 2.0)
        return wrong

    def ask_preview(self, route: str, body: bytes) -> tuple[int, bytes]:
        """POST to the preview Service, through the API server: status and body; status 0: no answer."""
        return self._hold.api.proxied(
            self._hold.path("v1", "services", f"{self._hold.target.preview}:{PORT_NAME}", f"proxy{route}"), body
        )

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
            canary = self._hold.known.canary
            wrong = self._strays(self.ready(), SLOTS if canary and not canary.route else (slot,))
            if not wrong:
                return
            if pause:  # it takes some time; if it takes longer, somebody may have switched meanwhile
                service = self._hold.api.get(self._hold.path("v1", "services", self._hold.target.name))
                self._hold.view = self._hold.known.with_service(service)
            if self._hold.now() > deadline:
                raise UnavailableError(
                    f"the endpoints of {self._hold.target.name} do not follow its selector: {wrong}",
                    wanted=f"ready pods of {slot}, and only those",
                    next_step="look at the EndpointSlices; `ekiben rollback` goes back",
                )
            pause = min(2 * pause, 2.0) or 0.25
            self._hold.sleep(pause)

    def must_be_seen(self) -> None:
        """Who may not read the endpoints learns it before a switch, and not after it."""
        if not self._seen:
            self.ends()

    def ends(self, service: str = "") -> list[Manifest]:
        params = {"labelSelector": f"kubernetes.io/service-name={service or self._hold.target.name}"}
        slices = self._hold.api.get(self._hold.path("discovery.k8s.io/v1", "endpointslices"), params)["items"]
        self._seen = True
        return [end for each in slices for end in each.get("endpoints") or ()]

    def _strays(self, names: list[str], wanted: tuple[Slot, ...]) -> str:
        strange = [name for name in names if not any(self._is_of(name, each) for each in wanted)]
        return f"{', '.join(strange)} among them" if strange else "" if names else "none is ready"

    def counts(self) -> dict[Slot, int]:
        """How many ready pods of each colour the live Service sends traffic to."""
        names = self.ready()
        return {slot: sum(self._is_of(name, slot) for name in names) for slot in SLOTS}

    def ready(self, service: str = "") -> list[str]:
        """Names of the pods that a Service, by default the live one, sends traffic to."""
        ready = [end for end in self.ends(service) if (end.get("conditions") or {}).get("ready", True)]
        return [(end.get("targetRef") or {}).get("name", "?") for end in ready]

    def _is_of(self, pod: str, slot: Slot) -> bool:
        return pod.startswith(f"{self._hold.target.of(slot)}-")
