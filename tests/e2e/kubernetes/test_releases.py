"""Releases that go well: nobody who asks the service notices a switch, a canary or a rollback."""

import pytest

from tests.e2e.kubernetes.load import loaded
from tests.e2e.kubernetes.world import ENV, Service, World

pytestmark = pytest.mark.timeout(1800)


def test_the_first_release(world: World) -> None:
    service = world.service("first")
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


def test_a_second_release_and_back_and_forth_under_load(digits: Service) -> None:
    before = digits.live()
    with loaded(digits):
        number = digits.release()
        digits.deploy(number)
        there = digits.live()
        assert (there.slot, there.version, there.epoch) == (before.idle, f"v{number}", before.epoch + 1)
        digits.sizes_are_restored()
        digits.ekiben("rollback", digits.name, "--env", ENV)
        back = digits.live()
        assert (back.slot, back.version, back.epoch) == (before.slot, before.version, before.epoch + 2)
