"""Deploys that meet, and deploys that die: what is live always answers, and the next run ends what was begun."""

from datetime import UTC, datetime

import pytest

from tests.e2e.kubernetes.admin import until
from tests.e2e.kubernetes.load import loaded
from tests.e2e.kubernetes.service import Service

pytestmark = pytest.mark.timeout(1800)


def test_two_who_deploy_at_once(digits: Service) -> None:
    """One of them, or one after the other; never both at once, and never a mixture."""
    numbers, before = [digits.release(), digits.release()], digits.live()
    with loaded(digits):
        running = [digits.start(*digits.deploying(number)) for number in numbers]
        done = [each.ended() for each in running]
    codes = sorted(each.code for each in done)
    assert codes in ([0, 0], [0, 6]), "\n".join(map(str, done))
    after = digits.live()
    won = [f"v{number}" for number, each in zip(numbers, done, strict=True) if each.code == 0]
    assert after.version in won
    assert after.epoch == before.epoch + len(won)
    for each in done:
        assert each.code == 0 or "held by" in each.err or "somebody" in each.err, each.err
    digits.sizes_are_restored()


def test_one_that_is_killed_before_the_switch(digits: Service) -> None:
    """Nothing has moved; somebody else is told who holds the colour; the same run goes on where it was."""
    number, before = digits.release(), digits.live()
    with loaded(digits):
        first = digits.start(*digits.deploying(number, "--run", f"run-{number}"))
        first.says(f"{before.idle}: ")
        first.kill()
        assert digits.live().epoch == before.epoch
        refused = digits.deploy(code=6)
        assert f"is held by run-{number}" in refused.err
        digits.deploy(number, "--run", f"run-{number}")
        after = digits.live()
    assert (after.slot, after.version, after.epoch) == (before.idle, f"v{number}", before.epoch + 1)
    digits.sizes_are_restored()


def test_who_comes_after_one_that_was_killed(digits: Service) -> None:
    """Without its name, as soon as what it claimed has run out."""
    number, before = digits.release(), digits.live()
    first = digits.start(*digits.deploying(digits.release()))
    first.says(f"{before.idle}: ")
    first.kill()
    until("its claim has run out", lambda: digits.claimed(before.idle) < datetime.now(UTC), 240)
    digits.deploy(number)
    after = digits.live()
    assert (after.slot, after.version, after.epoch) == (before.idle, f"v{number}", before.epoch + 1)
    digits.sizes_are_restored()


def test_one_that_is_killed_while_it_watches(digits: Service) -> None:
    """The new release is live; the same command again watches it to the end, and tidies up."""
    number, before = digits.release(), digits.live()
    with loaded(digits):
        first = digits.start(*digits.deploying(number, "--run", f"run-{number}"))
        first.says("is live")
        first.kill()
        assert digits.live().version == f"v{number}"
        digits.deploy(number, "--run", f"run-{number}")
        after = digits.live()
    assert (after.slot, after.epoch) == (before.idle, before.epoch + 1)
    digits.sizes_are_restored()


def test_a_rollback_while_a_deploy_watches(digits: Service) -> None:
    """Whoever rolls back wins: the deploy notices, and moves nothing any more."""
    number, before = digits.release(), digits.live()
    with loaded(digits):
        root = digits.other_settings(watch={"seconds": 30, "min_requests": 5, "p99_ms": 5000})
        first = digits.start(*digits.deploying(number), root=root)
        first.says("is live")
        digits.ekiben("rollback", "digits", "--env", "e2e", "--no-alias")
        assert first.ended().code in (10, 12)
    after = digits.live()
    assert (after.slot, after.version) == (before.slot, before.version)
    assert all(pod.startswith(f"digits-{before.slot}-") for pod in digits.ready())
