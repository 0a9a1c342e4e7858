"""The watch after the switch, or of a canary: is the new colour as good as it must be, and no worse than the old one?

Read are the pods (restarts, readiness) and their own /metrics, through the API server: nothing has to be installed.
Where the environment names a Prometheus, that is asked for the metrics instead.
"""

import math
from collections.abc import Callable
from datetime import timedelta

from ekiben.loadtest.golden import Golden
from ekiben.platforms.kubernetes.look import Look, Tally, look
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.probes import Probes
from ekiben.rollout.metrics import total
from ekiben.rollout.verdict import Window, enough, judge
from ekiben.types import Outcome, Slot, Verdict, other

POLL_SECONDS = 5.0
LEAST_LOOKS = 4
"""Of a watch that is short: half of it must be left when it is known that too few requests come."""
LEAST_SECONDS = 10.0
"""What a look back must span to tell how many requests are in progress usually."""


def watch(
    place: KubernetesPlatform,
    slot: Slot,
    say: Callable[[str], None],
    *,
    since: Look | None = None,
    golden: Golden | None = None,
) -> Verdict:
    """Watches for the environment's `watch.seconds`; ends at once when enough was seen to refuse it. INCONCLUSIVE,
    never PASS, when there were too few requests, or pods whose metrics could not be read.

    `since` is a look at the other colour from before: what it counted from then to now is what `slot` is held against.
    With `golden`, what is still missing of `min_requests` after half of the time is asked of `slot` by the watch.
    """
    settings, hold = place.target.settings.watch, place.hold
    before = _before(place, other(slot), since, say)
    probes = Probes(place, slot, golden) if golden else None
    tally, start, told = Tally(look(place, slot)), hold.now(), ""
    poll = min(POLL_SECONDS, settings.seconds / LEAST_LOOKS)
    until, due = start + timedelta(seconds=settings.seconds), start
    while True:
        due = min(max(due, hold.now() - timedelta(seconds=poll)) + timedelta(seconds=poll), until)
        hold.sleep(max(0.0, (due - hold.now()).total_seconds()))
        hold.renew()
        tally.add(look(place, slot))
        left = (until - hold.now()).total_seconds()
        asked = (probes.sent, probes.wrong) if probes else (0, "")
        window = tally.window(1 - max(0.0, left) / settings.seconds, *asked)
        verdict = judge(settings, window, before, f"watch of {slot}")
        if str(verdict) != told:
            say(told := str(verdict))
        if verdict.outcome is Outcome.FAIL or left <= 0:
            return verdict
        missing = settings.min_requests - window.counted.requests
        if probes and missing > 0 and left <= settings.seconds / 2:
            probes.send(missing, left, poll)


def _before(place: KubernetesPlatform, old: Slot, since: Look | None, say: Callable[[str], None]) -> Window | None:
    """What is known of the old colour: since that look, or, where that is too little, since its pods started. What
    was in progress then is known of the time since that look only: over days it would be no measure for a peak."""
    settings, now = place.target.settings.watch, look(place, old)
    ever, progress = Window(total(now.counts.values())), math.nan
    if since and since.counts.keys() & now.counts.keys():
        tally = Tally(since)
        tally.add(now)
        last = tally.past()
        if (now.at - since.at).total_seconds() >= LEAST_SECONDS:
            progress = last.in_progress
        if enough(settings, last):
            ever = last
    counted = ever.counted
    if not enough(settings, ever):
        say(f"{old}: {counted.requests:,.0f} requests before: too few to compare with")
        return None
    say(f"{old}: {counted.requests:,.0f} requests before, p99 {counted.percentile_ms(99):.0f} ms")
    return Window(counted, progress)
