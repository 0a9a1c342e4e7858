"""Pods that answer golden requests and tell BentoML's metrics of themselves, and clients on the virtual clock.

Metric names, labels and their meaning are those of BentoML's HTTPTrafficMetricsMiddleware: a request is counted when it
has been answered, and is in progress until then; probes of readiness count like any request. The text is written by
prometheus_client, as in a pod.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tests.fakes.kubernetes.cluster import Cluster

OWN = ("endpoint", "service_name", "service_version")


class Counters:
    """What one pod's process has counted."""

    def __init__(self) -> None:
        self.registry, name = CollectorRegistry(), "bentoml_service_request"
        labels = (*OWN, "http_response_code")
        self.total = Counter(f"{name}_total", "Total number of HTTP requests", labels, registry=self.registry)
        self.took = Histogram(f"{name}_duration_seconds", "API HTTP request duration", labels, registry=self.registry)
        self.running = Gauge(f"{name}_in_progress", "HTTP requests in progress now", OWN, registry=self.registry)

    def answered(self, endpoint: str, code: int, seconds: float) -> None:
        labels = (endpoint, "digits", "b1", str(code))
        self.running.labels(*labels[:3]).inc(0)
        self.total.labels(*labels).inc()
        self.took.labels(*labels).observe(seconds)

    def stuck(self, endpoint: str) -> None:
        self.running.labels(endpoint, "digits", "b1").inc()

    def text(self) -> str:
        return generate_latest(self.registry).decode()


@dataclass(frozen=True)
class Request:
    at: float
    pod: str
    code: int


class Clients:
    """`rate` requests/s to the ready pods of the colour that is live, in turn. `code` and `seconds` say how one is
    answered, by its number (0: golden), its time and the pod's name; code 0: never. Pass `sleep` to the platform, and
    `settle` as what is done before each of its calls."""

    def __init__(self, cluster: Cluster, rate: float) -> None:
        self.cluster, self.rate = cluster, rate
        self.code: Callable[[int, float, str], int] = lambda number, at, pod: 200
        self.seconds: Callable[[str], float] = lambda pod: 0.02
        self.wrong: Callable[[str], bool] = lambda pod: False
        self.mute: Callable[[str], bool] = lambda pod: False
        self.pods: dict[str, Counters] = {}
        self.sent: list[Request] = []
        self.asked: list[Request] = []  # through a proxy
        self.moved: list[tuple[float, str]] = []  # when clients met which colour first
        self._until = cluster.clock.seconds
        cluster.kubelet.behave("", backend=self.backend, start_s=15)

    def sleep(self, seconds: float) -> None:
        self.settle()
        self.cluster.advance(seconds)
        self.settle()

    def backend(self, pod: Any) -> Any:
        name = pod["metadata"]["name"]
        counters = self.pods.setdefault(name, Counters())

        def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
            if path == "/metrics":
                if self.mute(name):
                    return 500, {}, b"Internal Server Error"
                counters.answered("/readyz", 200, 0.001)
                return 200, {"Content-Type": "text/plain; version=0.0.4"}, counters.text().encode()
            now = self.cluster.clock.seconds
            code = self.code(0, now, name)
            self.asked.append(Request(now, name, code))
            counters.answered(path, code, self.seconds(name))
            return code, {}, json.dumps({"y": json.loads(body)["x"] + self.wrong(name)}).encode()

        return answer

    def settle(self) -> None:
        """Sends what was due since the last time, to what is live now."""
        now, since = self.cluster.clock.seconds, self._until
        self._until = now
        services = [each for each in self.cluster.objects("services") if each["metadata"]["name"] == "digits"]
        if not services:
            return
        selector = services[0]["spec"].get("selector") or {}
        if (slot := selector.get("ekiben.dev/slot", "")) != (self.moved[-1][1] if self.moved else ""):
            self.moved.append((now, slot))
        if not self.rate:
            return
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        ready = [
            pod["metadata"]["name"]
            for pod in self.cluster.objects("pods", labels=labels)
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        ]
        first = int(since * self.rate) + 1
        for number in range(first, int(now * self.rate) + 1) if ready else ():
            at, pod = number / self.rate, ready[number % len(ready)]
            code = self.code(number, at, pod)
            counters = self.pods.setdefault(pod, Counters())
            if code:
                counters.answered("/predict", code, self.seconds(pod))
            else:
                counters.stuck("/predict")
            self.sent.append(Request(at, pod, code))
