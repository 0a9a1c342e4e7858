import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from ekiben.errors import NotFoundError, UnavailableError
from ekiben.loadtest.prober import Prober
from ekiben.types import Probe
from tests.fakes.http_target import serving


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    examples = [{"request": {"rows": [[x]]}, "response": {"classes": [x % 10]}} for x in range(20)]
    path.write_text(json.dumps({"version": 1, "route": "/predict", "examples": examples}))
    return path


def probe(url: str, golden: Path, requests: int = 300) -> Probe:
    with Prober(url, golden, rate=150.0, timeout_s=1.5) as prober:
        prober.wait_for(requests, timeout=20)
        return prober.stop()


def test_each_way_to_fail_is_counted_with_an_example(golden: Path) -> None:
    cases: dict[str, dict[str, float]] = {
        "": {"delay_ms": 5},
        "status 503": {"error_every": 50},
        "wrong answer": {"wrong_every": 50},
        "no complete answer within 1.5 s": {"hang_every": 50},
    }

    def run(settings: dict[str, float]) -> tuple[Probe, int]:
        with serving(**settings) as url:
            seen = probe(url, golden)
            counted = seen.requests if "hang_every" in settings else _served(url)
            return seen, counted

    with ThreadPoolExecutor(4) as pool:
        for expected, (seen, served) in zip(cases, pool.map(run, cases.values()), strict=True):
            assert seen.requests == served >= 300, expected
            assert seen.failed == (seen.requests // 50 if expected else 0)
            assert expected in seen.first_failure
            assert seen.reconnects == 0
            assert seen.worst_ms >= (1500 if "hang" in str(cases[expected]) else 1)


def _served(url: str) -> int:
    return int(httpx.post(f"{url}/predict", json={"rows": [[0]]}).json()["requests"]) - 1


def test_half_of_the_requests_come_on_new_connections(golden: Path) -> None:
    with serving(delay_ms=1) as url:
        seen = probe(url, golden)
        answer = httpx.post(f"{url}/predict", json={"rows": [[0]]}).json()
    assert seen.requests / 2 <= answer["connections"] <= seen.requests / 2 + 30


def test_a_close_without_an_answer_fails_on_a_new_connection_and_is_asked_again_on_a_reused_one(golden: Path) -> None:
    with serving(close_every=31) as url:  # an odd number meets both kinds in turn
        seen = probe(url, golden)
        served = _served(url)
    assert seen.failed > 0 and seen.reconnects > 0 and seen.requests + seen.reconnects == served
    assert "on a new connection" in seen.first_failure and "closed after 0 bytes" in seen.first_failure
    assert abs(seen.failed + seen.reconnects - served // 31) <= 1


def test_a_kept_connection_that_was_closed_while_idle_is_no_failure(golden: Path) -> None:
    with serving(close_idle_ms=4) as url:
        seen = probe(url, golden)
    assert seen.failed == 0 and seen.requests >= 300


def test_a_dead_server_fails_every_request(golden: Path) -> None:
    with serving() as url:
        pass
    seen = probe(url, golden, requests=100)
    assert seen.failed == seen.requests and "refused" in seen.first_failure.lower()


def test_a_server_that_ends_half_way_is_seen(golden: Path) -> None:
    with contextlib.ExitStack() as target:
        url = target.enter_context(serving())
        with Prober(url, golden, rate=150.0) as prober:
            assert prober.wait_for(100, timeout=20).failed == 0
            target.close()
            prober.wait_for(prober.so_far().requests + 100, timeout=20)
            seen = prober.stop()
    assert 50 < seen.failed < seen.requests - 50


def test_a_prober_that_dies_is_never_a_success(golden: Path) -> None:
    with serving() as url, Prober(url, golden) as prober:
        prober.wait_for(20, timeout=20)
        assert prober._process is not None
        prober._process.kill()
        with pytest.raises(UnavailableError):
            prober.wait_for(10**6, timeout=20)
        with pytest.raises(UnavailableError):
            prober.so_far()
        with pytest.raises(UnavailableError):
            prober.stop()


def test_a_golden_file_that_is_missing_is_an_error_at_the_start(tmp_path: Path) -> None:
    prober = Prober("http://127.0.0.1:9", tmp_path / "nowhere.json")
    with pytest.raises(NotFoundError, match=r"nowhere\.json"), prober:
        pass


def test_waiting_has_an_end(golden: Path) -> None:
    with serving() as url, Prober(url, golden, rate=50) as prober, pytest.raises(UnavailableError, match="not within"):
        prober.wait_for(10**6, timeout=0.3)


def test_it_ends_when_its_parent_is_killed(golden: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ekiben.loadtest.prober import Prober\n"
        "prober = Prober(sys.argv[1], Path(sys.argv[2])).__enter__()\n"
        "print(prober._process.pid, flush=True); time.sleep(60)"
    )
    with serving() as url:
        command = [sys.executable, "-c", code, url, str(golden)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the prober outlived its parent"
            time.sleep(0.05)
