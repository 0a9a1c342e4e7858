"""Clients that ask the active Service without a pause, through the API server: whichever colour is live answers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx2
from lightkube.config.client_adapter import Client, ConnectionParams

from ekiben.loadtest.golden import Golden
from tests.e2e.kubernetes.admin import until
from tests.e2e.kubernetes.service import Service

CLIENTS, PAUSE_S = 3, 0.04


@dataclass
class Load:
    good: int = 0
    failed: list[str] = field(default_factory=list)

    def goes_on(self, requests: int = 20) -> None:
        """Until clients have seen so many more answers, or failures."""
        before = self.good + len(self.failed)
        until("clients get answers", lambda: self.good + len(self.failed) >= before + requests)


@contextmanager
def loaded(service: Service) -> Iterator[Load]:
    """As long as the block runs, every request must be answered, and rightly."""
    load, stop = Load(), threading.Event()
    clients = [threading.Thread(target=_ask, args=(service, load, stop), daemon=True) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    try:
        load.goes_on()
        yield load
        load.goes_on()
    finally:
        stop.set()
        for each in clients:
            each.join(30)
    assert load.failed == [], f"{len(load.failed)} of {load.good + len(load.failed)} requests failed"


def _ask(service: Service, load: Load, stop: threading.Event) -> None:
    golden = Golden.read(service.root / "golden.json")
    admin = service.world.admin
    client = Client(admin.config, ConnectionParams(httpx2.Timeout(20)))
    example = golden.examples[0]
    path = f"{admin.path('v1', 'services')}/{service.name}:http/proxy{quote(golden.route_of(example))}"
    while not stop.wait(PAUSE_S):
        at = time.strftime("%H:%M:%S")
        try:
            answer = client.post(path, content=example.body, headers={"Content-Type": "application/json"})
        except httpx2.HTTPError as error:
            load.failed.append(f"{at} {type(error).__name__} {error}")
            continue
        wrong = example.check(answer.content)[1] if answer.status_code == 200 else answer.text[:200]
        if answer.status_code != 200 or wrong:
            load.failed.append(f"{at} {answer.status_code} {wrong}")
        else:
            load.good += 1
