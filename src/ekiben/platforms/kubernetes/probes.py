"""Golden requests for a service so quiet that nothing could be said of it.

They go through the preview Service, which reaches just the colour that is watched, by the API server; the shipped Role
allows that already. The pods count them like any request, so that errors and latency are judged from one source.
"""

import math
from itertools import cycle

from ekiben.loadtest.golden import Golden
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.traffic import NOBODY
from ekiben.types import Slot

MOST_PER_SECOND = 10.0


class Probes:
    """The preview Service is aimed at the colour from the start. `sent` is how many were answered by the service;
    `wrong` what was wrong with an answer, '' if nothing."""

    def __init__(self, place: KubernetesPlatform, slot: Slot, golden: Golden) -> None:
        self._place, self._slot, self._golden = place, slot, golden
        self._next = cycle(golden.examples)
        place.traffic.preview(slot)  # its endpoints have time to follow
        self.sent, self.wrong = 0, ""

    def send(self, missing: float, left_s: float, poll_s: float) -> None:
        """A fair part of what is missing, so that it is complete in `left_s`; takes at most `poll_s`."""
        hold, traffic = self._place.hold, self._place.traffic
        if traffic.astray(self._slot):
            return  # now the other colour might answer
        # The last look sees only what was answered before it.
        due = min(math.ceil(missing / max(1.0, left_s // poll_s)), int(MOST_PER_SECOND * poll_s))
        began = hold.now()
        for example in (next(self._next) for _ in range(due)):
            if self.wrong or (hold.now() - began).total_seconds() >= poll_s:
                return
            route = self._golden.route_of(example)
            status, answer = traffic.ask_preview(route, example.body)
            if status in NOBODY:  # where a pod says so, it counts it itself
                return
            self.sent += 1
            if status == 200:
                self.wrong = example.check(answer)[1]
            elif status < 500:  # a 5xx is an error like any, within its limit
                self.wrong = f"POST {route}: {status}: {answer[:200].decode(errors='replace').strip()}"
