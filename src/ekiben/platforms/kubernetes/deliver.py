"""A release from its Bento to kept or taken back: stage, smoke test, switch, watch, and then one of the two."""

from collections.abc import Callable

from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.manifests.names import Delivery
from ekiben.types import Outcome, Release, Slot, Verdict


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
    is taken back, and so is what it saw too little of, unless `hold`: then both colours stay as they are.

    Run again after it was cut off, it goes on: what is live already is watched, if its watch had not ended.
    NotFoundError when the very first release is refused by the watch: there is nothing to go back to.
    """
    endpoint = place.stage(delivery, release.run or release.by)
    seen = place.last_seen()
    if endpoint.slot != seen.selector:
        verdict = smoke(endpoint.slot)
        if not verdict.passed:
            place.retire()
            return verdict
        place.switch(release.model_copy(update={"slot": endpoint.slot}))
    elif seen.idle not in seen.running:
        return Verdict(outcome=Outcome.PASS, subject=f"{release.bento}, live already")
    verdict = watch()
    if verdict.outcome is Outcome.INCONCLUSIVE and hold:
        return verdict
    if not verdict.passed:
        place.take_back(release.bento, f"watch of {release.bento}")
    place.retire()
    return verdict
