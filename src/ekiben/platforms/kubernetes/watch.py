"""The watch after the switch: is what is live now as good as it must be?

Read are the pods (restarts, readiness) and their own /metrics, through the API server: nothing has to be installed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from ekiben import environments
from ekiben.errors import NotFoundError, UnavailableError
from ekiben.platforms.kubernetes.metrics import Counted, total
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.types import Check, Outcome, Slot, Verdict

POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Look:
    """One look at a colour. `counts` by pod; a pod that did not answer is in `silent`. `restarts` by pod."""

    counts: Mapping[str, Counted]
    silent: tuple[str, ...]
    restarts: Mapping[str, int]
    ready: int


def watch(place: KubernetesPlatform, slot: Slot, say: Callable[[str], None]) -> Verdict:
    """Watches for the environment's `watch.seconds`; ends at once when enough was seen to refuse it. INCONCLUSIVE,
    never PASS, when there were too few requests, or pods whose metrics could not be read."""
    settings = place.target.settings.watch
    first = look(place, slot)
    until = place.hold.now() + timedelta(seconds=settings.seconds)
    told = ""
    before, gone = first, Counted()
    while True:
        place.hold.sleep(min(POLL_SECONDS, max(0.0, (until - place.hold.now()).total_seconds())))
        place.hold.renew()
        last = look(place, slot)
        # What a pod counted that has gone since is kept from the look before.
        ended = [_added(first, before, pod) for pod in before.counts.keys() - last.counts.keys() - set(last.silent)]
        gone = total([gone, *ended])
        added = total([gone, *(_added(first, last, pod) for pod in last.counts)])
        over = place.hold.now() >= until
        verdict = judge(settings, first, last, added, f"watch of {slot}")
        if str(verdict) != told:
            say(told := str(verdict))
        if verdict.outcome is Outcome.FAIL or over:
            return verdict
        before = last


def look(place: KubernetesPlatform, slot: Slot) -> Look:
    counts, silent, restarts, ready = {}, [], {}, 0
    for pod in place.hold.pods(slot):
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        if "deletionTimestamp" in pod["metadata"]:
            continue
        restarts[name] = sum(each.get("restartCount", 0) for each in status.get("containerStatuses") or ())
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()):
            continue
        ready += 1
        try:
            counts[name] = Counted.parse(place.traffic.metrics(name))
        except (NotFoundError, UnavailableError):
            silent.append(name)
    return Look(counts, tuple(silent), restarts, ready)


def judge(settings: environments.Watch, first: Look, last: Look, added: Counted, subject: str) -> Verdict:
    """The verdict at this moment; `added` is what was counted since the first look.

    A share is refused as soon as it must end above the limit whatever the rest of `min_requests` brings.
    """
    restarted = sum(max(0, count - first.restarts.get(pod, 0)) for pod, count in last.restarts.items())
    checks = [
        _check("restarts", restarted > 0, f"{restarted} restarts", "none"),
        _check("ready pods", last.ready == 0, f"{last.ready} ready pods", "at least 1"),
    ]
    n, limit = added.requests, settings.error_percent / 100
    share = added.failed / n if n else 0.0
    seen = f"{share:.2%} of {n:,.0f} requests failed (5xx)"
    wanted = f"≤ {settings.error_percent:g} % of at least {settings.min_requests:,}"
    few = n < settings.min_requests or bool(last.silent)
    bad = added.failed > limit * max(n, settings.min_requests)
    if last.silent:
        seen += f"; no metrics from {', '.join(last.silent)}"
    checks.append(_check("errors", bad, seen, wanted, few))
    p99 = added.percentile_ms(99)
    slow = not few and p99 > settings.p99_ms
    said = f"p99 {p99:.0f} ms" if not math.isnan(p99) else "p99 unknown"
    checks.append(_check("p99", slow, said, f"≤ {settings.p99_ms:g} ms", few or math.isnan(p99)))
    return Verdict.of(checks, subject)


def _added(first: Look, now: Look, pod: str) -> Counted:
    return now.counts[pod].since(first.counts.get(pod, Counted()))


def _check(name: str, bad: bool, seen: str, wanted: str, unclear: bool = False) -> Check:
    outcome = Outcome.FAIL if bad else Outcome.INCONCLUSIVE if unclear else Outcome.PASS
    return Check(name=name, outcome=outcome, seen=seen, wanted=wanted)
