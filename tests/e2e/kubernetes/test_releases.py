"""Releases that go well: nobody who asks the service notices a switch, a canary or a rollback."""

import re

import pytest

from tests.e2e.kubernetes.load import loaded
from tests.e2e.kubernetes.service import ENV, Service
from tests.e2e.kubernetes.world import World

pytestmark = pytest.mark.timeout(1800)


def test_the_first_release(world: World) -> None:
    """Where Services were applied as they are rendered, and not created, they get their first selector."""
    service = world.service("first", created=False)
    number = service.release()
    planned = service.deploy(number, "--dry-run").out
    assert planned.splitlines()[-1].startswith("switch to blue (first:")
    assert service.ekiben("status", "first", "--env", ENV).out == "first: nothing is live\n"
    done = service.deploy(number, "--report", "reports/1.json")
    assert done.out.splitlines()[-1].endswith("is live in blue")
    status = service.asked("status")
    assert (status["selector"], status["epoch"], status["ready"]) == ("blue", 1, ["blue"])
    (release,) = service.asked("history")
    assert (release["load_report"], release["bento"]["model"]["version"]) == ("reports/1.json", "v1")
    assert "nothing to do" in service.deploy(number, "--dry-run").out
    service.sizes_are_restored()
    service.ekiben("rollback", "first", "--env", ENV, "--no-alias", code=3)
    service.apply()
    assert (service.live().slot, service.live().epoch) == ("blue", 1)
    service.remove()


def test_a_release_and_back_and_forth_under_load(digits: Service) -> None:
    """The next release, the one before again, and the next again, which was scaled down meanwhile."""
    before, number = digits.live(), digits.release()
    with loaded(digits):
        digits.deploy(number)
        there = digits.live()
        assert (there.slot, there.version, there.epoch) == (before.idle, f"v{number}", before.epoch + 1)
        digits.sizes_are_restored()
        digits.ekiben("rollback", "digits", "--env", ENV, "--no-alias")
        back = digits.live()
        assert (back.slot, back.version, back.epoch) == (before.slot, before.version, before.epoch + 2)
        digits.sizes_are_restored()
        said = digits.ekiben("switch", "digits", "--env", ENV, "--no-alias").out
        assert f"is live in {there.slot}" in said
        assert (digits.live().slot, digits.live().version) == (there.slot, there.version)
        digits.sizes_are_restored()
    told = [(each["slot"], each["bento"]["model"]["version"]) for each in digits.asked("history")[-3:]]
    assert told == [(there.slot, there.version), (before.slot, before.version), (there.slot, there.version)]


def test_a_canary_under_load(digits: Service) -> None:
    before, number = digits.live(), digits.release()
    with loaded(digits):
        done = digits.deploy(number, "--canary", "10%")
    assert re.search(r"canary: asked 10 %, 1 of 3 pods = 33 %", done.err), done.err
    after = digits.live()
    assert (after.slot, after.version, after.epoch) == (before.idle, f"v{number}", before.epoch + 2)
    digits.sizes_are_restored()


def test_a_release_is_as_big_as_what_is_live(digits: Service) -> None:
    """Pods that an autoscaler has added are there from the first moment, and may be taken away again afterwards."""
    digits.grow(3)
    try:
        with loaded(digits):
            assert ", 3 pods" in digits.deploy().err
            digits.sizes_are_restored(3)
    finally:
        digits.shrink(2)


def test_what_is_rendered_and_applied_again_moves_nothing(digits: Service) -> None:
    """Live is green here, where the first manifests said blue; and nothing that is applied conflicts."""
    if digits.live().slot == "blue":
        digits.deploy()
    before, pods = digits.live(), digits.ready()
    digits.apply()
    assert digits.live() == before
    assert digits.ready() == pods
    digits.sizes_are_restored()
