"""A release from its Bento to kept or taken back: stage, smoke test, switch, watch, and then one of the two."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from ekiben.errors import EkibenError, NotFoundError, UnavailableError
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.manifests.names import Delivery
from ekiben.types import BentoRef, Check, Outcome, Release, Slot, Verdict


@dataclass(frozen=True)
class Trial:
    """A share of the traffic, in percent, and what judges the colour that gets it."""

    percent: int
    judge: Callable[[Slot], Verdict]


def deliver(
    place: KubernetesPlatform,
    delivery: Delivery,
    release: Release,
    smoke: Callable[[Slot], Verdict],
    watch: Callable[[], Verdict],
    *,
    hold: bool = False,
    trial: Trial | None = None,
) -> Verdict:
    """Only what passes both judges stays live. What the smoke test refuses never gets there; what the watch refuses
    is taken back, and so is what it saw too little of, unless `hold`: then both colours stay as they are. A candidate
    that does not become ready is scaled down again; the error says why. A `trial` comes before the switch: the
    candidate gets a share only, which is taken back unless its judge passes it.

    Run again after it was cut off, it goes on: what is live already is watched, if its watch had not ended.
    The very first release stays even if its watch refuses it: there is nothing to go back to, and the verdict says so.
    """
    place.share(trial.percent if trial else 0)
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
    there = release.model_copy(update={"slot": endpoint.slot})
    if not started and trial and place.last_seen().selector:
        verdict = _tried(place, there, trial)
        if not verdict.passed:
            return verdict
    elif not started:
        place.switch(there)
    verdict = _judged(watch, release.bento)
    if verdict.outcome is Outcome.INCONCLUSIVE and hold:
        return verdict
    if not verdict.passed:
        try:
            place.take_back(release.bento, f"watch of {release.bento}")
        except NotFoundError as error:
            seen_then = f"{error.seen}: it stays live"
            kept = Check(name="rollback", outcome=Outcome.ERROR, seen=seen_then, wanted=error.wanted)
            verdict = Verdict.of([*verdict.checks, kept], verdict.subject)
        except UnavailableError as error:
            active = place.last_seen().active
            if active is None or active.bento != release.bento:
                raise
            raise UnavailableError(
                f"{release.bento} is live though its watch refused it ({verdict}); it was not taken back: {error.seen}",
                wanted="what was live before it",
                next_step=f"once it answers: ekiben rollback {release.service} --env {place.target.environment}",
            ) from None
    place.retire()
    return _live(place, release.bento, verdict)


def _live(place: KubernetesPlatform, bento: BentoRef, verdict: Verdict) -> Verdict:
    """What somebody took back while it was watched has not passed, however good it was."""
    active = place.last_seen().active
    if not verdict.passed or (active and active.bento == bento):
        return verdict
    seen = f"{active.bento if active else 'nothing'} is live by now"
    taken = Check(name="live", outcome=Outcome.ERROR, seen=seen, wanted=str(bento))
    return Verdict.of([*verdict.checks, taken], verdict.subject)


def _tried(place: KubernetesPlatform, release: Release, trial: Trial) -> Verdict:
    """With PASS the release is live; else what was live has all traffic again, and the candidate is stopped."""
    try:
        token = place.widen(release, trial.percent)
        place.hold.say(f"{release.slot}: canary: {place.share_seen(token)}")
        verdict = _judged(lambda: trial.judge(release.slot), release.bento)
        if verdict.passed:
            place.promote(release, token)
            return verdict
        place.narrow(token, f"canary of {release.bento}")
    except EkibenError:
        with contextlib.suppress(EkibenError):  # the first one says what is wrong
            place.end_own_canary(f"canary of {release.bento}")
            if place.observe().selector != release.slot:
                place.retire()
        raise
    place.retire()
    return verdict


def _judged(watch: Callable[[], Verdict], bento: BentoRef) -> Verdict:
    try:
        return watch()
    except EkibenError as error:
        check = Check(name="watch", outcome=Outcome.ERROR, seen=str(error), wanted="a watch to its end")
        return Verdict.of([check], str(bento))
