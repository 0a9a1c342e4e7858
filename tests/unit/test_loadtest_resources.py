import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ekiben.loadtest.resources import Sampler, in_progress, machine
from ekiben.processes import free_port
from ekiben.types import LoadPlan, LoadReport

METRICS = b"""# HELP bentoml_service_request_in_progress Multiprocess metric
# TYPE bentoml_service_request_in_progress gauge
bentoml_service_request_in_progress{endpoint="/predict",runner_name="",service_name="digits"} 3.0
bentoml_service_request_in_progress{endpoint="/other",runner_name="",service_name="digits"} 1.0
bentoml_service_request_total{endpoint="/predict"} 900.0
"""


@pytest.fixture
def service() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(METRICS)))
            self.end_headers()
            self.wfile.write(METRICS)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def report(started: datetime, measured_s: float) -> LoadReport:
    plan = LoadPlan(warm_up_s=0, measure_s=measured_s)
    return LoadReport(validity="VALID", url="http://127.0.0.1:9", started=started, settings=plan, measured_s=measured_s)


def test_requests_in_progress_are_summed_over_the_endpoints() -> None:
    assert in_progress(METRICS) == 4.0
    assert in_progress(b"something_else 1\n") is None
    assert in_progress(b"bentoml_service_request_in_progress{} +-\n") is None


def test_the_service_and_the_process_that_listens_are_sampled(service: str) -> None:
    started = datetime.now(UTC)
    with Sampler(service) as sampler:  # the process that listens is this one
        deadline = time.monotonic() + 4.2
        while time.monotonic() < deadline:  # so it uses its CPU
            pass
    found = sampler.attach(report(started, 60)).resources
    assert 2 <= len(found) <= 6 and all(sample.in_progress == 4.0 for sample in found)
    assert [s.at_s for s in found] == sorted(s.at_s for s in found)
    assert any((sample.cpu_percent or 0) > 10 for sample in found)
    assert all((sample.memory_mb or 0) > 10 for sample in found)


def test_only_what_was_sampled_during_the_run_is_told(service: str) -> None:
    with Sampler(service) as sampler:
        time.sleep(1.3)
    later = datetime.fromtimestamp(time.time() + 60, UTC)
    assert sampler.attach(report(later, 5)).resources == ()


def test_children_count(service: str) -> None:
    code = "import time; block = bytearray(200_000_000); time.sleep(60)"
    started = datetime.now(UTC)
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        with Sampler(service, pid=os.getpid()) as sampler:
            time.sleep(1.5)
        assert max(sample.memory_mb or 0 for sample in sampler.attach(report(started, 60)).resources) > 200
    finally:
        child.kill()
        child.wait()


def test_nothing_there_is_no_failure() -> None:
    started = datetime.now(UTC)
    with Sampler(f"http://127.0.0.1:{free_port()}") as sampler:
        time.sleep(0.2)
    found = sampler.attach(report(started, 60)).resources
    assert found and all((s.cpu_percent, s.memory_mb, s.in_progress) == (None, None, None) for s in found)


def test_the_machine_is_described() -> None:
    here = machine()
    assert here.cores >= 1 and here.memory_gb > 0 and here.cpu and here.ekiben and here.locust
