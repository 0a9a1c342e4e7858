"""One look at a colour, and what many looks add up to."""

import math
from collections.abc import Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta

from ekiben.errors import NotFoundError, UnavailableError
from ekiben.platforms.kubernetes import prometheus
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.rollout.metrics import Counted, total
from ekiben.rollout.verdict import Window
from ekiben.types import Slot

SCRAPE_SECONDS = 3.0
"""Until what pods tell is in; well below the time from one look of a watch to the next."""
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Look:
    """`counts` by pod; a pod whose metrics could not be read is in `silent`, with the reason. `restarts` of every pod
    there is, ready or not."""

    at: datetime
    counts: Mapping[str, Counted]
    silent: Mapping[str, str]
    restarts: Mapping[str, int]
    ready: int


def look(place: KubernetesPlatform, slot: Slot, ago_s: int = 0) -> Look:
    """Pods as the API server knows them, and what those that are ready have counted; with Prometheus, had counted so
    many seconds ago."""
    restarts, ready = {}, []
    for pod in place.hold.pods(slot):
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        if "deletionTimestamp" in pod["metadata"]:
            continue
        restarts[name] = sum(each.get("restartCount", 0) for each in status.get("containerStatuses") or ())
        if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()):
            ready.append(name)
    read = _queried(place, slot, ready, ago_s) if place.target.settings.prometheus else _scraped(place, ready)
    return Look(place.hold.now() - timedelta(seconds=ago_s), *read, restarts, len(ready))


def look_at_live(place: KubernetesPlatform) -> Look | None:
    """What is live, before anything is done; with Prometheus, as it was a watch's length ago. None where nothing is.
    UnavailableError where Prometheus, which is to judge, does not answer."""
    slot, settings = place.observe().selector, place.target.settings
    if settings.prometheus:
        prometheus.counted(place.target, slot or "blue")
    return look(place, slot, settings.watch.seconds if settings.prometheus else 0) if slot else None


def _queried(
    place: KubernetesPlatform, slot: Slot, pods: list[str], ago_s: int
) -> tuple[dict[str, Counted], dict[str, str]]:
    try:
        counts, silent = prometheus.counted(place.target, slot, ago_s)
    except UnavailableError as error:
        return {}, dict.fromkeys(pods, error.seen)
    unheard = {pod: silent.get(pod, "Prometheus has none") for pod in pods if pod not in counts}
    return {pod: counts[pod] for pod in pods if pod in counts}, unheard


def _scraped(place: KubernetesPlatform, pods: list[str]) -> tuple[dict[str, Counted], dict[str, str]]:
    """Side by side, so that a pod that hangs holds up nobody else: it is silent when the time is over."""
    counts, silent = {}, {}
    pool = ThreadPoolExecutor(max(1, min(MOST_AT_ONCE, len(pods))), thread_name_prefix="scrape")
    try:
        asked = {pod: pool.submit(place.traffic.metrics, pod, SCRAPE_SECONDS) for pod in pods}
        wait(asked.values(), timeout=SCRAPE_SECONDS + 0.5)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    for pod, answer in asked.items():
        try:
            counts[pod] = Counted.parse(answer.result(timeout=0))
        except (TimeoutError, CancelledError):
            silent[pod] = f"its /metrics did not come within {SCRAPE_SECONDS:g} s"
        except (NotFoundError, UnavailableError) as error:
            silent[pod] = error.seen
        except ValueError as error:
            silent[pod] = f"its /metrics are no metrics: {error}"
    return counts, silent


class Tally:
    """Adds up what was counted from the first look on. What a pod counted that has gone since is kept."""

    def __init__(self, first: Look) -> None:
        self._first, self._last = first, first
        self._seen = dict(first.counts)
        self._added = Counted()
        self._progress: list[float] = []

    def add(self, last: Look) -> None:
        parts = [self._added]
        for pod, now in last.counts.items():
            # A pod that was there and could not be read may have counted long before.
            parts.append(now.since(self._seen.get(pod, now if pod in self._first.restarts else Counted())))
            self._seen[pod] = now
        self._added, self._last = total(parts), last
        if last.counts:
            self._progress.append(total(last.counts.values()).in_progress / len(last.counts))

    def window(self, elapsed: float = 1.0, probes: int = 0, wrong: str = "") -> Window:
        known = [each for each in self._progress if math.isfinite(each)]
        was = self._first.restarts
        return Window(
            self._added,
            sum(known) / len(known) if known else math.nan,
            elapsed,
            sum(max(0, count - was.get(pod, 0)) for pod, count in self._last.restarts.items()),
            self._last.ready,
            self._last.silent,
            probes,
            wrong,
        )

    def past(self) -> Window:
        """As `window`, for a colour that was looked at twice only: what was in progress follows from how long its
        requests took."""
        seconds, busy = (self._last.at - self._first.at).total_seconds(), self._added.busy_s
        pods = len(self._last.counts)
        return Window(self._added, busy / seconds / pods if seconds > 0 and pods and busy > 0 else math.nan)
