"""What is planned in each situation, and what the state refuses."""

from datetime import UTC, datetime

import pytest

from ekiben.errors import ConflictError, NotFoundError
from ekiben.rollout.plan import (
    Action,
    Claim,
    Live,
    Narrow,
    Narrowed,
    Promoted,
    Retired,
    RolledBack,
    Serving,
    Stage,
    Staged,
    Start,
    Stop,
    Switch,
    Unclaim,
    Wanted,
    Widen,
    Widened,
    plan,
)
from ekiben.rollout.state import KEPT_RELEASES, Canary, Observed, ServiceState
from ekiben.types import BentoRef, ModelVersion, Release, Slot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ME, YOU = "run-1 (pid 1, started 1.00)", "run-2 (pid 2, started 2.00)"


def bento(number: int) -> BentoRef:
    model = ModelVersion.parse(f"acme/vision/digits:v{number}")
    return BentoRef(name="digits", version=f"b{number}", digest="0" * 64, model=model)


def release(slot: Slot, number: int) -> Release:
    return Release(service="digits", slot=slot, bento=bento(number), time=NOW, by="anna")


def staged(state: ServiceState, number: int, claim: str = ME) -> ServiceState:
    slot = state.idle
    claimed = state.claimed(slot, claim, state.slots[slot].claim)
    return claimed.staging(slot, claim, state.epoch).staged(slot, claim, bento(number), f"127.0.0.1:{20000 + number}")


def deployed(*numbers: int) -> ServiceState:
    state = ServiceState(service="digits")
    for number in numbers:
        state = staged(state, number)
        state = state.switched(release(state.idle, number), state.epoch).unclaimed(ME)
    return state


def seen(state: ServiceState, running: str = "blue green", ready: str = "blue green", held: str = "") -> Observed:
    return Observed.model_validate(
        {**dict(state), "running": running.split(), "ready": ready.split(), "held": held.split()}
    )


def back(number: int | None = None) -> RolledBack:
    return RolledBack(bento(number) if number else None, by="anna", time=NOW, claim=ME)


EMPTY = ServiceState(service="digits")
ONE, TWO = deployed(1), deployed(1, 2)
CANDIDATE = staged(ONE, 2)
THREE = release("green", 3)


@pytest.mark.parametrize(
    ("observed", "wanted", "actions"),
    [
        (seen(EMPTY, "", ""), Staged(bento(1), ME), [Claim("blue", ME, ""), Stage("blue", bento(1), ME, 0)]),
        (seen(ONE, "blue", "blue"), Staged(bento(2), ME), [Claim("green", ME, ""), Stage("green", bento(2), ME, 1)]),
        (seen(ONE), Staged(bento(1), ME), []),
        (seen(CANDIDATE), Staged(bento(2), ME), []),
        (seen(CANDIDATE), Staged(bento(2), YOU), [Claim("green", YOU, ME)]),
        (seen(CANDIDATE, "blue", "blue"), Staged(bento(2), ME), [Start("green", bento(2))]),
        (seen(CANDIDATE), Staged(bento(3), ME), [Stage("green", bento(3), ME, 1)]),
        (seen(CANDIDATE), Live(release("green", 2), ME), [Switch(release("green", 2), 1, keep=ME)]),
        (seen(CANDIDATE), Live(release("blue", 2), ME), [Switch(release("green", 2), 1, keep=ME)]),
        (
            seen(ONE, "blue", "blue"),
            Live(THREE, ME),
            [Claim("green", ME, ""), Stage("green", bento(3), ME, 1), Switch(THREE, 1, keep=ME)],
        ),
        (seen(ONE), Live(release("green", 1), ME), []),
        (seen(ONE, "", ""), Live(release("green", 1), ME), [Start("blue", bento(1))]),
        (seen(TWO), back(), [Switch(release("blue", 1), 2, back=True)]),
        (seen(TWO, "green", "green"), back(), [Start("blue", bento(1)), Switch(release("blue", 1), 2, back=True)]),
        (seen(TWO, "", ""), back(2), [Start("blue", bento(1)), Switch(release("blue", 1), 2, back=True)]),
        (seen(TWO), back(1), []),
        (
            seen(staged(TWO, 3).unclaimed(ME)),
            back(),
            [Claim("blue", ME, ""), Stage("blue", bento(1), ME, 2), Switch(release("blue", 1), 2, back=True)],
        ),
        (seen(TWO), Retired(ME), [Claim("blue", ME, ""), Stop("blue", ME, 2), Unclaim(ME)]),
        (seen(TWO, "green", "green"), Retired(ME), []),
        (seen(CANDIDATE, "blue", "blue"), Retired(ME), [Unclaim(ME)]),
        (seen(CANDIDATE, held="green"), Retired(YOU), []),
        (seen(EMPTY, "", ""), Retired(ME), []),
        (seen(EMPTY, "", ""), Serving(), []),
        (seen(ONE), Serving(), []),
        (seen(ONE, "", ""), Serving(), [Start("blue", bento(1))]),
    ],
)  # fmt: skip
def test_plan(observed: Observed, wanted: Wanted, actions: list[Action]) -> None:
    assert plan(observed, wanted) == actions


@pytest.mark.parametrize("wanted", [Staged(bento(3), YOU), Live(THREE, YOU), RolledBack(None, "anna", NOW, YOU)])
def test_a_slot_that_somebody_alive_holds_is_left_alone(wanted: Wanted) -> None:
    with pytest.raises(ConflictError, match="run-1"):
        plan(seen(staged(TWO, 9), held="blue"), wanted)


def test_a_rollback_does_not_ask_who_keeps_the_old_slot() -> None:
    state = staged(ONE, 2)
    kept = state.switched(release("green", 2), 1, keep=YOU)
    assert kept.slots["blue"].claim == YOU
    assert plan(seen(kept, held="blue"), back()) == [Switch(release("blue", 1), 2, back=True)]


@pytest.mark.parametrize("state", [EMPTY, ONE, TWO.switched(release("blue", 1), 2, back=True)])
def test_there_may_be_nothing_to_go_back_to(state: ServiceState) -> None:
    with pytest.raises(NotFoundError, match="no release before"):
        plan(seen(state), back())


def test_actions_read_as_sentences() -> None:
    planned = plan(seen(staged(TWO, 3, YOU)), Live(release("blue", 4), ME))
    assert [str(action) for action in planned] == [
        f"claim blue for {ME}, after {YOU}",
        "put digits:b4 into blue and wait until it is ready, if the epoch is still 2",
        "switch to blue (digits:b4), if the epoch is still 2",
    ]
    assert [str(action) for action in plan(seen(TWO, "green", "green"), back())] == [
        "start blue again with the digits:b1 that it holds and wait until it is ready",
        "switch back to blue (digits:b1), if the epoch is still 2",
    ]
    assert [str(action) for action in plan(seen(TWO), Retired(ME))][1:] == [
        "let blue finish and stop it, if the epoch is still 2",
        f"give up the claim of {ME}",
    ]


def test_a_rollback_walks_down_the_stack_and_never_up() -> None:
    state = deployed(1, 2, 3)
    state = state.switched(release("green", 2), state.epoch, back=True)
    assert [r.bento.version for r in state.live] == ["b1", "b2"]
    assert state.previous is not None
    assert state.previous.bento == bento(1), "not b3, which was rolled back from"
    assert [r.bento.version for r in state.history] == ["b1", "b2", "b3", "b2"]


def test_what_is_kept_is_bounded() -> None:
    state = deployed(*range(1, KEPT_RELEASES + 20))
    assert len(state.live) == len(state.history) == KEPT_RELEASES
    assert state.epoch == KEPT_RELEASES + 19


def test_the_state_travels_as_json() -> None:
    state = staged(TWO, 3)
    assert ServiceState.model_validate_json(state.model_dump_json()) == state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.switched(release("green", 2), 0), "epoch 1"),
        (lambda s: s.switched(release("green", 3), 1), "holds digits:b2"),
        (lambda s: s.switched(release("blue", 1), 1), "blue of digits is live"),
        (lambda s: s.stopping("green", ME, 1).switched(release("green", 2), 1), "stopped"),
        (lambda s: s.staging("green", ME, 1).switched(release("green", 2), 1), "nothing complete"),
        (lambda s: s.staging("green", YOU, 1), "held by run-1"),
        (lambda s: s.staging("green", ME, 0), "epoch 1"),
        (lambda s: s.staging("blue", ME, 1), "must not be overwritten"),
        (lambda s: s.staged("green", YOU, bento(2), "x"), "held by run-1"),
        (lambda s: s.stopping("blue", ME, 1), "must not be stopped"),
        (lambda s: s.stopping("green", ME, 0), "epoch 1"),
        (lambda s: s.stopping("green", YOU, 1), "held by run-1"),
        (lambda s: s.claimed("blue", ME, ""), "must not be claimed"),
        (lambda s: s.claimed("green", YOU, ""), "held by run-1"),
        (lambda s: s.started("green", bento(3), "x"), "holds digits:b2"),
    ],
)  # fmt: skip
def test_what_would_break_an_invariant_is_refused(change: object, said: str) -> None:
    with pytest.raises(ConflictError, match=said):
        change(CANDIDATE)  # type: ignore[operator]


# ---- a canary: b2 in green has a share, b1 in blue is live; epoch 2

TRIED = CANDIDATE.widened(Canary(slot="green", percent=10, by=ME, token="t"), bento(2), 1)
ENDED = TRIED.narrowed("t", 2)
NARROW = Narrow("blue", "t", 2)


@pytest.mark.parametrize(
    ("observed", "wanted", "actions"),
    [
        (seen(CANDIDATE), Widened(release("green", 2), 10, ME, "t"), [Widen("green", bento(2), 10, "t", 1)]),
        (seen(TRIED), Widened(release("green", 2), 10, ME, "t"), []),
        (seen(TRIED), Promoted(release("green", 2), ME, "t"), [Switch(release("green", 2), 2, keep=ME)]),
        (
            seen(TRIED, "blue green", "blue"),
            Promoted(release("green", 2), ME, "t"),
            [Start("green", bento(2)), Switch(release("green", 2), 2, keep=ME)],
        ),
        (seen(TRIED), Narrowed("t", ME), [NARROW]),
        (seen(TRIED), Narrowed("another", ME), []),
        (seen(ENDED), Narrowed("t", ME), []),
        (seen(TRIED), Staged(bento(2), ME), [NARROW]),
        (seen(TRIED), Staged(bento(1), YOU), [NARROW]),
        (
            seen(TRIED),
            Live(THREE, YOU),
            [NARROW, Claim("green", YOU, ME), Stage("green", bento(3), YOU, 3), Switch(THREE, 3, keep=YOU)],
        ),
        (seen(TRIED, "blue", "blue"), Retired(ME), [NARROW, Unclaim(ME)]),
        (seen(TRIED), Retired(YOU), [NARROW, Claim("green", YOU, ME), Stop("green", YOU, 3), Unclaim(YOU)]),
        (seen(TRIED, held="green"), Retired(YOU), []),
        (seen(TRIED), Serving(), []),
    ],
)  # fmt: skip
def test_plan_of_a_canary(observed: Observed, wanted: Wanted, actions: list[Action]) -> None:
    assert plan(observed, wanted) == actions


@pytest.mark.parametrize(
    ("observed", "wanted", "said"),
    [
        (seen(TRIED, held="green"), Staged(bento(3), YOU), "green of digits is the canary of run-1"),
        (seen(TRIED, held="green"), Live(release("green", 2), YOU), "green of digits is the canary of run-1"),
        (seen(TRIED), Widened(release("green", 2), 10, ME, "mine"), "besides what is live"),
        (seen(CANDIDATE), Widened(release("green", 2), 10, YOU, "t"), "for run-1"),
        (seen(CANDIDATE), Widened(release("green", 3), 10, ME, "t"), "holds digits:b2"),
        (seen(staged(EMPTY, 1), "", ""), Widened(release("blue", 1), 10, ME, "t"), "besides what is live"),
        (seen(ENDED), Widened(release("green", 2), 10, ME, "t"), "somebody ended this canary"),
        (seen(ENDED), Promoted(release("green", 2), ME, "t"), "somebody ended this canary"),
        (seen(CANDIDATE), Promoted(release("green", 2), ME, "t"), "has no share"),
    ],
)
def test_a_canary_is_nobody_elses(observed: Observed, wanted: Wanted, said: str) -> None:
    with pytest.raises(ConflictError, match=said):
        plan(observed, wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.claimed("blue", YOU, ""),
        lambda s: s.claimed("green", YOU, ME),
        lambda s: s.stopping("green", ME, 2),
        lambda s: s.stopping("blue", ME, 2),
        lambda s: s.staging("green", ME, 2),
        lambda s: s.switched(release("green", 2), 1),
        lambda s: s.narrowed("another", 2),
        lambda s: s.narrowed("t", 1),
        lambda s: s.widened(s.canary, bento(2), 2),
        lambda s: s.narrowed("t", 2).widened(s.canary, bento(2), 1),
        lambda s: s.narrowed("t", 2).widened(s.canary, bento(3), 3),
        lambda s: s.narrowed("t", 2).stopping("green", ME, 3).widened(s.canary, bento(2), 3),
    ],
)
def test_while_it_has_its_share_both_slots_stay_as_they_are(change: object) -> None:
    with pytest.raises(ConflictError):
        change(TRIED)  # type: ignore[operator]


def test_a_canary_that_passed_is_live_and_none_any_more() -> None:
    state = TRIED.switched(release("green", 2), 2, keep=ME)
    assert (state.canary, state.selector, state.epoch, state.slots["blue"].claim) == (None, "green", 3, ME)
    assert ServiceState.model_validate_json(TRIED.model_dump_json()) == TRIED
    assert str(plan(seen(TRIED), Narrowed("t", ME))[0]) == "end the canary: all to blue, if the epoch is still 2"
