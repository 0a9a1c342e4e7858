"""What the exit handler of a release on a cluster undoes: its own unfinished work. Against the fake API server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from ekiben.pipeline import cluster as stages
from ekiben.platforms.manifests.names import Target
from tests.fakes import kubernetes_platform as fake
from tests.fakes.kubernetes.cluster import Cluster


def _first(settings: dict[str, object] | None = None) -> tuple[Cluster, Target]:
    cluster, wanted = Cluster(), fake.target(**(settings or {}))
    fake.set_up(cluster, wanted)
    fake.deploy(fake.platform(cluster, wanted), 1)
    return cluster, wanted


def _switched(cluster: Cluster, wanted: Target, run: str) -> None:
    place = fake.platform(cluster, wanted, holder=run)
    place.stage(fake.bento(2), run)
    place.switch(fake.release(place, 2).model_copy(update={"run": run}))


def test_a_release_that_was_cut_off_before_its_verdict_is_taken_back() -> None:
    cluster, wanted = _first()
    _switched(cluster, wanted, "run-2")
    place = fake.platform(cluster, wanted, holder="run-2")
    assert stages.settle(place, "run-2") is not None
    cluster.advance(60)  # pods end in their own time
    seen = place.observe()
    assert seen.active and seen.active.bento == fake.bento(1)
    assert seen.running == {seen.selector}


def test_a_release_that_was_judged_stays() -> None:
    cluster, wanted = _first()
    _switched(cluster, wanted, "run-2")
    fake.platform(cluster, wanted, holder="run-2").retire()
    place = fake.platform(cluster, wanted, holder="run-2")
    assert stages.settle(place, "run-2") is None
    seen = place.observe()
    assert seen.active and seen.active.bento == fake.bento(2)


def test_another_runs_candidate_is_left_alone_even_when_nobody_renewed_its_claim() -> None:
    cluster, wanted = _first()
    fake.platform(cluster, wanted, holder="run-3").stage(fake.bento(3), "run-3")
    cluster.advance(600)
    place = fake.platform(cluster, wanted, holder="run-2")
    assert stages.settle(place, "run-2") is None
    assert len(place.observe().running) == 2


def test_its_own_candidate_ends() -> None:
    cluster, wanted = _first()
    fake.platform(cluster, wanted, holder="run-3").stage(fake.bento(3), "run-3")
    place = fake.platform(cluster, wanted, holder="run-3")
    assert stages.settle(place, "run-3") is None
    cluster.advance(60)
    assert place.observe().running == {place.observe().selector}


def test_what_is_held_for_a_person_stays() -> None:
    cluster, wanted = _first({"watch": {"inconclusive": "hold"}})
    _switched(cluster, wanted, "run-2")
    place = fake.platform(cluster, wanted, holder="run-2")
    assert stages.settle(place, "run-2") is None
    seen = place.observe()
    assert seen.active and seen.active.bento == fake.bento(2)


NODES = [{"displayName": "gate", "message": "main: Error (exit code 10)", "phase": "Failed"}]


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (json.dumps(json.dumps(NODES)), [{"step": "gate", "message": "main: Error (exit code 10)"}]),  # as Argo does
        (json.dumps(NODES), [{"step": "gate", "message": "main: Error (exit code 10)"}]),  # as the engine here does
        ('"null"', []),
        ("{{workflow.failures}}", []),
    ],
)
def test_who_is_notified_hears_which_steps_failed(
    failures: str, told: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as (url, bodies):
        monkeypatch.setenv("EKIBEN_NOTIFY_URL", url)
        stages.conclude("digits", "staging", "run-1", "Succeeded", failures)
    assert bodies == [
        {"service": "digits", "environment": "staging", "run": "run-1", "status": "Succeeded", "failed": told}
    ]


@contextmanager
def receiving() -> Iterator[tuple[str, list[Any]]]:
    """An address that takes notifications, and what it was told."""
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", bodies
    finally:
        server.shutdown()
        server.server_close()
