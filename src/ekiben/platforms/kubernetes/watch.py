"""The watch after the switch, or of a canary: is the new colour as good as it must be, and no worse than the old one?

Read are the pods (restarts, readiness) and their own /metrics, through the API server: nothing has to be installed.
"""

from collections.abc import Callable
from datetime import timedelta

from ekiben.platforms.kubernetes.look import Look, Tally, look
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.rollout.metrics import total
from ekiben.rollout.verdict import Window, enough, judge
from ekiben.types import Outcome, Slot, Verdict, other

POLL_SECONDS = 5.0


def look_at_live(place: KubernetesPlatform) -> Look | None:
    """What is live, before anything is done; None where nothing is."""
    slot = place.observe().selector
    return look(place, slot) if slot else None


def watch(place: KubernetesPlatform, slot: Slot, say: Callable[[str], None], *, since: Look | None = None) -> Verdict:
    """Watches for the environment's `watch.seconds`; ends at once when enough was seen to refuse it. INCONCLUSIVE,
    never PASS, when there were too few requests, or pods whose metrics could not be read.

    `since` is a look at the other colour from before: what it counted from then to now is what `slot` is held against.
    """
    settings = place.target.settings.watch
    before = _before(place, other(slot), since, say)
    tally, start = Tally(look(place, slot)), place.hold.now()
    until, told = start + timedelta(seconds=settings.seconds), ""
    while True:
        place.hold.sleep(min(POLL_SECONDS, max(0.0, (until - place.hold.now()).total_seconds())))
        place.hold.renew()
        tally.add(look(place, slot))
        elapsed = min(1.0, (place.hold.now() - start).total_seconds() / settings.seconds)
        verdict = judge(settings, tally.window(elapsed), before, f"watch of {slot}")
        if str(verdict) != told:
            say(told := str(verdict))
        if verdict.outcome is Outcome.FAIL or elapsed >= 1:
            return verdict


def _before(place: KubernetesPlatform, old: Slot, since: Look | None, say: Callable[[str], None]) -> Window | None:
    """What is known of the old colour: since that look, or, where that is too little, since its pods started."""
    settings, now = place.target.settings.watch, look(place, old)
    found = [Window(total(now.counts.values()))]
    if since and since.counts.keys() & now.counts.keys():
        tally = Tally(since)
        tally.add(now)
        found.insert(0, tally.past())
    for window in found:
        if enough(settings, window):
            counted = window.counted
            say(f"{old}: {counted.requests:,.0f} requests before, p99 {counted.percentile_ms(99):.0f} ms")
            return window
    say(f"{old}: {found[-1].counted.requests:,.0f} requests before: too few to compare with")
    return None
