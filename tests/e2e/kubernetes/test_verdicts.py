"""Releases that are taken back by their watch: nobody who asks the service notices that either."""

import json

import pytest

from tests.e2e.kubernetes.load import loaded
from tests.e2e.kubernetes.service import Service

pytestmark = pytest.mark.timeout(1800)

STRICT = {"seconds": 4, "min_requests": 5, "p99_ms": 0.001}
"""No answer is so fast."""
HUNGRY = {"seconds": 1, "min_requests": 1_000_000}


@pytest.mark.parametrize(
    ("watch", "canary", "code", "said"),
    [(STRICT, "0%", 10, "FAIL"), (HUNGRY, "0%", 11, "INCONCLUSIVE"), (STRICT, "10%", 10, "FAIL")],
    ids=["too slow", "too few requests", "too slow a canary"],
)
def test_what_the_watch_refuses_is_taken_back(
    digits: Service, watch: dict[str, float], canary: str, code: int, said: str
) -> None:
    before, number = digits.live(), digits.release()
    with loaded(digits):
        root = digits.other_settings(watch=watch)
        done = digits.deploy(number, "--canary", canary, "--json", code=code, root=root)
    told = json.loads(done.out)
    assert told["verdict"]["outcome"] == said
    assert told["live"]["bento"]["model"]["version"] == before.version
    after = digits.live()
    assert (after.slot, after.version, after.epoch) == (before.slot, before.version, before.epoch + 2)
    assert f"v{number}" not in after.versions, "no rollback leads to it"
    digits.sizes_are_restored()
