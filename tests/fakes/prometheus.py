"""A small Prometheus over real HTTP: it scrapes what it is given, and answers instant queries of one form.

Kept to what Prometheus documents: GET /api/v1/query answers {"status": "success", "data": {"resultType": "vector",
"result": [{"metric": …, "value": [time, "text"]}]}}, and errors {"status": "error", "errorType", "error"} with
400 for what it cannot parse, 422 for what it cannot evaluate and 503 for a time-out; an instant vector holds the newest
sample of each series that is at most 5 minutes old and not marked stale; `offset` looks back; regular expressions match
whole values; a matcher that wants no value also meets an absent label. Queries of any other form than
`max by (…) ({…} offset …)` are refused as it refuses what is no PromQL.
"""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client.parser import text_string_to_metric_families

LOOKBACK = 300.0  # s
_QUERY = re.compile(r"max by \((?P<by>[a-z_,]+)\) \(\{(?P<match>.*)\}(?: offset (?P<offset>\d+)s)?\)")
_MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"(?:,|$)')
Labels = frozenset[tuple[str, str]]


@dataclass
class Prometheus:
    """`now` gives the time in s. `said` is what it answers instead, if given: status, content type and body."""

    now: Callable[[], float]
    series: dict[Labels, list[tuple[float, float | None]]] = field(default_factory=dict)  # None: stale
    queries: list[str] = field(default_factory=list)
    said: tuple[int, str, bytes] | None = None
    hang: threading.Event | None = None

    def scrape(self, targets: Mapping[str, str | None], job: str = "pods", at: float | None = None) -> None:
        """The text of each pod's /metrics, None where the scrape failed; pods that are not named have gone."""
        at, seen = self.now() if at is None else at, set()
        for pod, text in targets.items():
            for family in text_string_to_metric_families(text or ""):
                for sample in family.samples:
                    own = {"job": job, "namespace": "default", "pod": pod, "__name__": sample.name}
                    labels = frozenset({**sample.labels, **own}.items())
                    self.series.setdefault(labels, []).append((at, sample.value))
                    seen.add(labels)
        for labels, samples in self.series.items():
            if labels not in seen and ("job", job) in labels and samples[-1][1] is not None:
                samples.append((at, None))

    def query(self, query: str) -> list[dict[str, Any]]:
        """ValueError where that is no query."""
        found = _QUERY.fullmatch(query)
        matchers = _MATCHER.findall(found["match"]) if found else []
        if not found or "".join(f'{k}{op}"{v}",' for k, op, v in matchers).rstrip(",") != found["match"]:
            raise ValueError(f'invalid parameter "query": 1:1: parse error: unexpected {query[:20]!r}')
        at, by = self.now() - int(found["offset"] or 0), found["by"].split(",")
        most: dict[Labels, float] = {}
        for labels, samples in self.series.items():
            before = [sample for sample in samples if at - LOOKBACK < sample[0] <= at]
            value = before[-1][1] if before else None
            if value is None or not all(_meets(dict(labels).get(key, ""), op, text) for key, op, text in matchers):
                continue
            group = frozenset((key, text) for key, text in labels if key in by)
            most[group] = max(value, most.get(group, value))
        return [{"metric": dict(group), "value": [self.now(), _text(value)]} for group, value in most.items()]


def _meets(value: str, operator: str, wanted: str) -> bool:
    same = bool(re.fullmatch(wanted, value)) if "~" in operator else value == wanted
    return same != operator.startswith("!")


def _text(value: float) -> str:
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(str(value), f"{value:g}" if value < 1e5 else str(value))


@contextlib.contextmanager
def served(prometheus: Prometheus) -> Iterator[str]:
    """Its address, as long as the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if prometheus.hang:
                prometheus.hang.wait(30)
            url = urlsplit(self.path)
            status, content, body = prometheus.said or self._answer(url.path, parse_qs(url.query))
            with contextlib.suppress(OSError):  # who asked has gone
                self.send_response(status)
                self.send_header("Content-Type", content)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def _answer(self, path: str, params: dict[str, list[str]]) -> tuple[int, str, bytes]:
            if path != "/api/v1/query":
                return 404, "text/plain", b"404 page not found\n"
            prometheus.queries.append(params.get("query", [""])[0])
            try:
                result = prometheus.query(prometheus.queries[-1])
            except ValueError as error:
                return refusal(400, "bad_data", str(error))
            answer = {"status": "success", "data": {"resultType": "vector", "result": result}}
            return 200, "application/json", json.dumps(answer).encode()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def refusal(status: int, kind: str, said: str) -> tuple[int, str, bytes]:
    """An error as Prometheus words it."""
    told = {"status": "error", "errorType": kind, "error": said}
    return status, "application/json", json.dumps(told).encode()
