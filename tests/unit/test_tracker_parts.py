"""The tracker's small pure parts: signed addresses, curves, streams."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.tracker.curves import HEIGHT, MAX_POINTS, WIDTH, curves
from ekiben.tracker.graph.runs import _sample
from ekiben.tracker.manifest import digest
from ekiben.tracker.urls import Urls

URLS = Urls("http://host:1", b"secret")


def parts(url: str) -> tuple[str, str]:
    found = re.search(r"until=(\d+)&signature=([0-9a-f]+)$", url)
    assert found
    return found[1], found[2]


def test_an_address_allows_what_it_was_made_for() -> None:
    url = URLS.put("/upload/run/1/a b/ü?.txt")
    assert url.startswith("http://host:1/upload/run/1/a%20b/%C3%BC%3F.txt?until=")
    until, signature = parts(url)
    path = "/upload/run/1/a b/ü?.txt"
    assert URLS.allows("PUT", path, until, signature)
    assert not URLS.allows("GET", path, until, signature)
    assert not URLS.allows("PUT", path + "x", until, signature)
    assert not URLS.allows("PUT", path, str(int(until) + 1), signature)
    assert not Urls("http://host:1", b"other").allows("PUT", path, until, signature)


def test_an_address_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    until, signature = parts(URLS.get("/download/x"))
    monkeypatch.setattr("time.time", lambda: int(until) + 1)
    assert not URLS.allows("GET", "/download/x", until, signature)


@given(st.text(), st.text())
def test_no_text_is_a_signature(until: str, signature: str) -> None:
    assert not URLS.allows("GET", "/download/x", until, signature)


def test_the_digest_is_the_clients() -> None:
    wandb = pytest.importorskip("wandb")
    artifact = wandb.Artifact("m", "model")
    for name in ("b.txt", "a/ü.txt", "a.txt"):
        with artifact.new_file(name) as file:
            file.write(name)
    assert digest(artifact.manifest.to_manifest_json()) == artifact.digest


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(allow_nan=True, allow_infinity=True)), max_size=700))
def test_every_curve_fits_its_drawing(points: list[tuple[int, float]]) -> None:
    drawn = curves((step, json.dumps({"m": value, "_own": 1, "text": "x", "flag": True})) for step, value in points)
    finite = [value for _, value in points if math.isfinite(value)]
    assert [curve.name for curve in drawn] == (["m"] if finite else [])
    for curve in drawn:
        numbers = [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", curve.path.partition("h")[0])]
        assert all(0 <= x <= WIDTH for x in numbers[::2])
        assert all(0 <= y <= HEIGHT for y in numbers[1::2])
        assert len(numbers) <= 4 * MAX_POINTS + 2


@given(st.lists(st.integers(), max_size=50), st.integers(-1, 60))
def test_a_sample_keeps_order_and_both_ends(rows: list[int], wanted: int) -> None:
    rows = list(range(len(rows)))
    found = _sample(rows, wanted)
    assert len(found) == min(len(rows), max(1, wanted))
    assert found == sorted(set(found))
    if len(found) > 1:
        assert (found[0], found[-1]) == (rows[0], rows[-1])
