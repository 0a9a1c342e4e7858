"""From a recording to the report: over time, by endpoint, extended and aborted, and ten million requests."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.loadtest.arrivals import schedule
from ekiben.loadtest.recorder import Recording
from ekiben.loadtest.summary import summarise
from ekiben.types import LoadPlan, LoadReport

PLAN = LoadPlan(rate=200, warm_up_s=1, measure_s=10, extend_to_s=20, seed=5)


def recording(plan: LoadPlan, endpoints: int = 1, slow_from_s: float = 1e9, failed: float = 0.0) -> Recording:
    due, random = schedule(plan, plan.longest_s), np.random.default_rng(1)
    n = len(due)
    latency = random.exponential(5.0, n) + np.where(due >= slow_from_s, 500.0, 0.0)
    return Recording(
        scheduled_s=due,
        lag_ms=np.full(n, 0.2, np.float32),
        latency_ms=latency.astype(np.float32),
        kind=(random.random(n) < failed).astype(np.uint16),
        kinds=("", "status 503"),
        examples=("", "overloaded"),
        endpoint=(np.arange(n) % endpoints).astype(np.uint16),
        endpoints=tuple(f"POST /{number}" for number in range(endpoints)),
    )


def report(of: Recording, plan: LoadPlan = PLAN, measured_s: float | None = None, stopped: str = "") -> LoadReport:
    started = datetime(2026, 1, 2, tzinfo=UTC)
    return summarise(
        of, plan, url="http://x", endpoint="", started=started, subject=None, measured_s=measured_s, stopped=stopped
    )


def test_what_was_due_after_the_measured_time_is_left_out() -> None:
    due = schedule(PLAN, 20)
    planned, extended = report(recording(PLAN)), report(recording(PLAN), measured_s=20)
    aborted = report(recording(PLAN), measured_s=2.5, stopped="FAIL is certain")
    assert planned.measured_s == 10 and planned.requests == ((due >= 1) & (due < 11)).sum()
    assert extended.measured_s == 20 and extended.requests == (due >= 1).sum()
    assert aborted.valid and aborted.requests == ((due >= 1) & (due < 3.5)).sum() and aborted.stopped
    assert (len(planned.series), len(extended.series), len(aborted.series)) == (11, 21, 4)
    assert aborted.offered_rate == aborted.requests / 2.5


def test_a_change_in_the_middle_shows_in_the_stretches() -> None:
    found = report(recording(PLAN, slow_from_s=6.0)).windows
    assert [window.at_s for window in found] == [1, 3, 5, 7, 9] or len(found) == 4
    first, last = found[0], found[-1]
    assert [p.level for p in first.percentiles] == [50, 95, 99]
    assert first.percentiles[0].upper_ms < 20 and last.percentiles[0].lower_ms > 400  # type: ignore[operator]
    assert first.achieved and last.achieved and last.achieved.upper < first.achieved.lower


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 400), st.floats(0.3, 30), st.floats(0, 3), st.floats(0, 0.5))
def test_stretches_and_seconds_share_out_all_requests(
    rate: float, measure_s: float, warm_up_s: float, failed: float
) -> None:
    plan = LoadPlan(rate=rate, measure_s=measure_s, warm_up_s=warm_up_s, extend_to_s=40)
    of = recording(plan, endpoints=3, failed=failed)
    found = report(of, plan)
    if not found.requests:
        assert not found.valid
        return
    assert 1 <= len(found.windows) <= 60
    assert sum(window.requests for window in found.windows) == found.requests
    assert sum(endpoint.requests for endpoint in found.endpoints) == found.requests
    assert sum(endpoint.failed for endpoint in found.endpoints) == found.failed
    assert sum(endpoint.achieved_rate for endpoint in found.endpoints) == pytest.approx(found.achieved_rate)
    assert abs(sum(window.seconds for window in found.windows) - measure_s) < 0.1
    of = of.until(warm_up_s + measure_s)
    due_s = of.scheduled_s
    assert sum(second.offered for second in found.series) == len(due_s)
    for second in found.series:
        end = second.at_s + 1
        ended = due_s + of.latency_ms / 1000
        assert second.in_flight == ((due_s < end) & (ended >= end)).sum()
    assert LoadReport.model_validate_json(found.model_dump_json()) == found


def test_each_endpoint_has_its_figures() -> None:
    of = recording(PLAN, endpoints=2)
    slow = Recording(**{**vars(of), "latency_ms": of.latency_ms + of.endpoint * np.float32(100)})
    zero, one = report(slow).endpoints
    assert (zero.endpoint, one.endpoint) == ("POST /0", "POST /1")
    fast_p99, slow_p99 = zero.percentile(99.0), one.percentile(99.0)
    assert fast_p99 and slow_p99 and fast_p99.upper_ms and slow_p99.lower_ms
    assert fast_p99.upper_ms < 100 < slow_p99.lower_ms
    assert report(recording(PLAN)).endpoints == ()


BIG = """
import json, time
import numpy as np
from tests.unit.test_loadtest_summary import recording, report
from ekiben.types import LoadPlan
plan = LoadPlan(rate=3000, warm_up_s=3, measure_s=3334)
n = int(plan.rate * 3337)
random, block = np.random.default_rng(0), 1_000_000
due, latency = np.empty(n), np.empty(n, np.float32)
for at in range(0, n, block):
    stop = min(at + block, n)
    due[at:stop] = (at + np.arange(stop - at)) / plan.rate
    latency[at:stop] = random.exponential(5, stop - at)
from ekiben.loadtest.recorder import Recording
of = Recording(due, np.zeros(n, np.float32), latency, np.zeros(n, np.uint16), ("",), ("",), np.zeros(n, np.uint16),
               ("POST /predict",))
started = time.process_time()
found = report(of, plan)
text = found.model_dump_json()
# Not ru_maxrss: that begins with the size of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({"seconds": time.process_time() - started, "requests": found.requests, "bytes": len(text),
                  "mb": int(peak.split()[1]) / 1024}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_million_requests_are_a_report_in_seconds_and_500_mb() -> None:
    done = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert seen["requests"] >= 10_000_000
    assert seen["seconds"] <= 10 and seen["mb"] <= 500, seen
