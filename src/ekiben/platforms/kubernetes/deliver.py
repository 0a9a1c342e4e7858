"""A release from its Bento to kept or taken back: stage, smoke test, switch, watch, and then one of the two."""

import contextlib
from collections.abc import Callable

from ekiben.errors import EkibenError, NotFoundError
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.manifests.names import Delivery
from ekiben.types import Check, Outcome, Release, Slot, Verdict


def deliver(
    place: KubernetesPlatform,
    delivery: Delivery,
    release: Release,
    smoke: Callable[[Slot], Verdict],
    watch: Callable[[], Verdict],
    *,
    hold: bool = False,
) -> Verdict:
    """Only what passes both judges stays live. What the smoke test refuses never gets there; what the watch refuses
    is taken back, and so is what it saw too little of, unless `hold`: then both colours stay as they are. A candidate
    that does not become ready is scaled down again; the error says why.

    Run again after it was cut off, it goes on: what is live already is watched, if its watch had not ended.
    The very first release stays even if its watch refuses it: there is nothing to go back to, and the verdict says so.
    """
    try:
        endpoint = place.stage(delivery, release.run or release.by)
        seen = place.last_seen()
        started = endpoint.slot == seen.selector
        if started and seen.idle not in seen.running:
            place.retire()
            return Verdict(outcome=Outcome.PASS, subject=f"{release.bento}, live already")
        verdict = None if started else smoke(endpoint.slot)
    except EkibenError:
        with contextlib.suppress(EkibenError):  # the first one says what is wrong
            place.retire()
        raise
    if verdict and not verdict.passed:
        place.retire()
        return verdict
    if not started:
        place.switch(release.model_copy(update={"slot": endpoint.slot}))
    try:
        verdict = watch()
    except EkibenError as error:
        check = Check(name="watch", outcome=Outcome.ERROR, seen=str(error), wanted="a watch to its end")
        verdict = Verdict.of([check], str(release.bento))
    if verdict.outcome is Outcome.INCONCLUSIVE and hold:
        return verdict
    if not verdict.passed:
        try:
            place.take_back(release.bento, f"watch of {release.bento}")
        except NotFoundError as error:
            seen_then = f"{error.seen}: it stays live"
            kept = Check(name="rollback", outcome=Outcome.ERROR, seen=seen_then, wanted=error.wanted)
            verdict = Verdict.of([*verdict.checks, kept], verdict.subject)
    place.retire()
    return verdict
