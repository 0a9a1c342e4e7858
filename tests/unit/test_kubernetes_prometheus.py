"""The watch with Prometheus as its source, over real HTTP: what it asks, and what it makes of every kind of answer.

It stands on Prometheus' documented API: an instant query gives the newest sample that is at most 5 minutes old; a pod
whose scrape failed, or that has gone, is marked stale and missing at once; errors are 4xx or 503 with JSON, while a
proxy in front of it answers whatever it likes. Where the program `prometheus` is installed, the same is asked of it.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ekiben.errors import UnavailableError
from ekiben.platforms.kubernetes import prometheus as source
from ekiben.platforms.kubernetes.deliver import deliver
from ekiben.platforms.kubernetes.look import look_at_live
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.kubernetes.watch import POLL_SECONDS, watch
from ekiben.platforms.manifests import promql
from ekiben.types import Outcome, Verdict
from tests.fakes.kubernetes.access import service_account
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes_platform import bento, platform, release, set_up, target
from tests.fakes.pod_metrics import Clients, Counters
from tests.fakes.prometheus import Prometheus, refusal, served
from tests.unit.test_kubernetes_deploy import GOLDEN, live

WATCH = {"seconds": 120, "min_requests": 100, "error_percent": 1.0, "p99_ms": 500}
SCRAPE_SECONDS = 5.0


class World:
    """A service whose first release is live, and clients; Prometheus scrapes its ready pods every 5 s."""

    def __init__(self, prometheus: Prometheus, url: str, rate: float, **more: Any) -> None:
        self.cluster, self.wanted = Cluster(), target(watch={**WATCH, **more}, prometheus=url)
        set_up(self.cluster, self.wanted)
        self.cluster.tokens["t"] = service_account("default", self.wanted.deployer)
        self.clients, self.lines = Clients(self.cluster, rate or 100), list[str]()
        self.prometheus, self._due = prometheus, 0.0
        prometheus.now = lambda: self.cluster.clock.seconds
        assert self.deploy(1).passed, self.lines
        self.sleep(60)
        self.clients.rate = rate
        self.cluster.log.clear()

    def sleep(self, seconds: float) -> None:
        until = self.cluster.clock.seconds + seconds
        while (left := until - self.cluster.clock.seconds) > 1e-6:
            self.clients.sleep(min(1.0, left))
            self.scrape()

    def scrape(self) -> None:
        self.clients.settle()
        if self.cluster.clock.seconds < self._due:
            return
        self._due = self.cluster.clock.seconds + SCRAPE_SECONDS
        ready = [
            pod["metadata"]["name"]
            for pod in self.cluster.objects("pods")
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        ]
        counters = {pod: self.clients.pods.setdefault(pod, Counters()) for pod in ready}
        for each in counters.values():
            each.answered("/readyz", 200, 0.001)
        self.prometheus.scrape({pod: None if self.clients.mute(pod) else each.text() for pod, each in counters.items()})

    def deploy(self, number: int) -> Verdict:
        place = platform(self.cluster, self.wanted, sleep=self.sleep, before=lambda *_: self.scrape(), token="t")
        made, since = release(place, number), look_at_live(place)
        return deliver(
            place,
            bento(number),
            made,
            lambda slot: smoke(place, slot, GOLDEN),
            lambda: watch(place, place.hold.live_slot(), self.lines.append, since=since, golden=GOLDEN),
        )

    def scraped_through_the_api_server(self) -> bool:
        return any(call.resource == "pods/proxy" for call in self.cluster.log)


@pytest.fixture
def prometheus() -> Prometheus:
    return Prometheus(lambda: 0.0)


@pytest.fixture
def url(prometheus: Prometheus) -> Iterator[str]:
    with served(prometheus) as url:
        yield url


def test_what_is_good_is_kept_and_the_api_server_is_not_asked_for_metrics(prometheus: Prometheus, url: str) -> None:
    world = World(prometheus, url, 40)
    assert world.deploy(2).passed, world.lines
    assert live(world.cluster) == "b2"
    assert not world.scraped_through_the_api_server(), "the shipped Role has no pods/proxy then"
    assert any("blue: " in line and "requests before, p99 25 ms" in line for line in world.lines), world.lines


def test_errors_take_it_back_within_a_scrape_and_a_poll(prometheus: Prometheus, url: str) -> None:
    world = World(prometheus, url, 40)
    begin = world.cluster.clock.seconds + 45
    world.clients.code = lambda number, at, pod: 500 if "-green-" in pod and at > begin else 200
    verdict = world.deploy(2)
    assert verdict.outcome is Outcome.FAIL, world.lines
    back, slot = world.clients.moved[-1]
    assert (slot, live(world.cluster)) == ("blue", "b1")
    assert begin < back <= begin + 2 + SCRAPE_SECONDS + 1 + POLL_SECONDS, "2 s until it crosses, at 40/s of 4,000"


def test_it_is_held_against_what_was_before(prometheus: Prometheus, url: str) -> None:
    world = World(prometheus, url, 40)
    world.clients.seconds = lambda pod: 0.4 if "-green-" in pod else 0.02
    verdict = world.deploy(2)
    assert verdict.outcome is Outcome.FAIL
    assert "took longer than 100 ms, wanted ≤ 1 %: p99 was 25 ms" in str(verdict)
    assert any(f"offset {WATCH['seconds']}s" in query for query in prometheus.queries)


def test_a_quiet_service_gets_its_verdict_by_golden_requests(prometheus: Prometheus, url: str) -> None:
    world = World(prometheus, url, 0.0)
    assert world.deploy(2).passed, world.lines


def test_pods_that_are_not_scraped_are_not_taken_for_good(prometheus: Prometheus, url: str) -> None:
    world = World(prometheus, url, 40)
    world.clients.mute = lambda pod: "-green-" in pod
    verdict = world.deploy(2)
    assert (verdict.outcome, live(world.cluster)) == (Outcome.INCONCLUSIVE, "b1")
    assert "no metrics from digits-green-" in str(verdict)
    assert "(Prometheus has none)" in str(verdict)


HTML = (502, "text/html", b"<html>Bad Gateway</html>")
ANSWERS = [
    (HTML, "answers 502: <html>Bad Gateway</html>"),
    ((404, "text/plain", b"404 page not found\n"), "answers 404: 404 page not found"),
    ((200, "text/html", b"<html>Please log in</html>"), "answers 200: <html>Please log in"),
    ((302, "text/html", b""), "answers 302"),
    (refusal(400, "bad_data", "parse error"), "answers 400: bad_data: parse error"),
    (refusal(422, "execution", "many-to-many matching"), "answers 422: execution: many-to-many"),
    (refusal(503, "timeout", "query timed out in expression evaluation"), "answers 503: timeout: query timed out"),
    ((200, "application/json", b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}'), "200: "),
    ((200, "application/json", b"[]"), "answers 200"),
    (
        (200, "application/json", b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}'),
        "answers 200",
    ),
]


@pytest.mark.parametrize(("said", "told"), ANSWERS)
def test_what_is_no_answer_is_missing_data(
    prometheus: Prometheus, url: str, said: tuple[int, str, bytes], told: str
) -> None:
    wanted = target(watch=WATCH, prometheus=url)
    prometheus.said = said
    with pytest.raises(UnavailableError) as raised:
        source.counted(wanted, "green")
    assert told in raised.value.seen


def test_a_prometheus_that_is_down_before_anything_is_done_stops_the_release(prometheus: Prometheus, url: str) -> None:
    world = World(prometheus, url, 40)
    prometheus.said = HTML
    with pytest.raises(UnavailableError, match="answers 502"):
        world.deploy(2)
    assert not [call for call in world.cluster.log if call.verb in ("patch", "create")]


def test_a_prometheus_that_fails_during_the_watch_leaves_it_open(prometheus: Prometheus, url: str) -> None:
    world = World(prometheus, url, 40)
    begin = world.cluster.clock.seconds + 60

    def code(number: int, at: float, pod: str) -> int:
        prometheus.said = HTML if at > begin else None
        return 200

    world.clients.code = code
    verdict = world.deploy(2)
    assert (verdict.outcome, live(world.cluster)) == (Outcome.INCONCLUSIVE, "b1")
    assert "answers 502" in str(verdict)


def test_one_that_hangs_is_given_up_in_time(prometheus: Prometheus, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TIMEOUT", 0.2)
    prometheus.hang = threading.Event()
    try:
        with pytest.raises(UnavailableError, match="does not answer: timed out"):
            source.counted(target(prometheus=url), "green")
    finally:
        prometheus.hang.set()
    with pytest.raises(UnavailableError, match=r"does not answer: .*refused"):
        source.counted(target(prometheus="http://127.0.0.1:9"), "green")


def test_no_data_is_no_pod_and_what_is_no_number_is_said(prometheus: Prometheus, url: str) -> None:
    wanted = target(prometheus=url)
    assert source.counted(wanted, "green") == ({}, {})
    counters = Counters()
    counters.answered("/predict", 200, 0.1)
    prometheus.scrape({"digits-green-5d9-abcde": counters.text(), "digits-green-5d9-fghij": counters.text()})
    name = next(labels for labels in prometheus.series if ("__name__", "bentoml_service_request_total") in labels)
    prometheus.series[name] = [(0.0, float("nan"))]
    pod = dict(name)["pod"]
    counts, silent = source.counted(wanted, "green")
    assert silent == {pod: "bentoml_service_request_total is nan"}
    assert len(counts) == 1


def test_pods_of_others_and_what_two_jobs_scrape_are_not_counted_twice(prometheus: Prometheus, url: str) -> None:
    counters = Counters()
    for _ in range(7):
        counters.answered("/predict", 200, 0.1)
    pod = "digits-green-5d9-abcde"
    prometheus.scrape({pod: counters.text()})
    prometheus.scrape({pod: counters.text(), "digits-cnn-green-5d9-abcde": counters.text()}, job="annotations")
    prometheus.scrape({"digits-blue-5d9-abcde": counters.text()}, job="third")
    counts, _ = source.counted(target(prometheus=url), "green")
    assert {name: (each.requests, each.within[float("inf")]) for name, each in counts.items()} == {pod: (7, 7)}


# ---- a real one


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[str, Counters]]:
    """A Prometheus that scrapes one pod of each colour every 0.2 s; and the counters of both."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("the program `prometheus` is not installed")
    counters = Counters()

    class Pod(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(counters.text().encode())

        def log_message(self, *args: Any) -> None:
            pass

    pods = ThreadingHTTPServer(("127.0.0.1", 0), Pod)
    threading.Thread(target=pods.serve_forever, daemon=True).start()
    at = f"127.0.0.1:{pods.server_address[1]}"
    jobs = [
        {
            "job_name": f"job-{number}-{colour}",
            "static_configs": [
                {"targets": [at], "labels": {"namespace": "default", "pod": f"digits-{colour}-5d9f-abcde"}}
            ],
        }
        for number in (1, 2)
        for colour in ("blue", "green")
    ]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        json.dumps({"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": jobs})
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Pod) as free:
        port = free.server_address[1]
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", counters
    finally:
        process.terminate()
        process.wait(10)
        pods.shutdown()
        pods.server_close()


def test_a_real_prometheus_understands_the_queries(real: tuple[str, Counters]) -> None:
    url, counters = real
    for code, seconds in ((200, 0.02), (200, 0.3), (500, 0.02)):
        counters.answered("/predict", code, seconds)
    counters.stuck("/predict")
    counters.answered("/readyz", 200, 0.001)
    wanted, deadline = target(prometheus=url), time.monotonic() + 60
    while True:
        try:
            counts, silent = source.counted(wanted, "green")
        except UnavailableError:
            counts, silent = {}, {}
        if counts or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert list(counts) == ["digits-green-5d9f-abcde"]
    assert silent == {}
    seen = counts["digits-green-5d9f-abcde"]
    assert (seen.requests, seen.failed, seen.in_progress) == (3, 1, 1)
    assert (seen.within[0.025], seen.within[float("inf")], round(seen.busy_s, 3)) == (2, 3, 0.34)
    assert source.counted(wanted, "green", 300) == ({}, {}), "there was nothing 5 minutes ago"
    for query in (promql.counters(wanted, "blue"), promql.error_share(wanted), promql.p99(wanted)):
        assert isinstance(source._instant(url, query), list)
    with pytest.raises(UnavailableError, match=r"answers 400: bad_data: .*parse error"):
        source._instant(url, "max by (")
