"""What happened to each arrival, kept exactly: 20 bytes a request, and no object for any of them. Pure.

A process that offers load writes `Chunk`s of records; whoever collects them puts each record in its arrival's place.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

OK = ""
DROPPED = "dropped"
UNFINISHED = "unfinished"
TIME_OUT = "time-out"
OTHER = "other"
MAX_EXAMPLE = 300
MAX_KINDS = 1_000  # of errors, of each process; what comes later is OTHER

RECORD = np.dtype(
    [
        ("number", "<u4"),  # of the arrival in its process
        ("kind", "<u2"),
        ("endpoint", "<u2"),
        ("at_s", "<f8"),  # scheduled, from the start of the run
        ("lag_ms", "<f4"),
        ("latency_ms", "<f4"),
    ]
)
_pack = struct.Struct("<IHHdff").pack
assert struct.calcsize("<IHHdff") == RECORD.itemsize


@dataclass(frozen=True)
class Recording:
    """All arrivals in the order of their scheduled time. The arrays are (n,).

    `scheduled_s` from the start of the run; `lag_ms` how late the generator started it; `latency_ms` from the
    scheduled time to the end of the answer, or of the attempt; `kind` an index into `kinds`, where `kinds[0]` is OK;
    `endpoint` an index into `endpoints`, such as "POST /predict".
    """

    scheduled_s: NDArray[np.float64]
    lag_ms: NDArray[np.float32]
    latency_ms: NDArray[np.float32]
    kind: NDArray[np.uint16]
    kinds: tuple[str, ...]
    examples: tuple[str, ...]  # one for each kind
    endpoint: NDArray[np.uint16]
    endpoints: tuple[str, ...]

    @property
    def ok(self) -> NDArray[np.bool_]:
        return np.equal(self.kind, 0)

    def is_kind(self, name: str) -> NDArray[np.bool_]:
        index = self.kinds.index(name) if name in self.kinds else len(self.kinds)
        return np.equal(self.kind, index)

    def until(self, end_s: float) -> Self:
        """What was due before `end_s`, as views."""
        n = int(np.searchsorted(self.scheduled_s, end_s))
        return type(self)(
            self.scheduled_s[:n],
            self.lag_ms[:n],
            self.latency_ms[:n],
            self.kind[:n],
            self.kinds,
            self.examples,
            self.endpoint[:n],
            self.endpoints,
        )


@dataclass(frozen=True)
class Chunk:
    """Records of one process, RECORD after RECORD, and what is new in its lists since its chunk before."""

    records: bytes
    kinds: Sequence[tuple[str, str]] = ()  # (kind, example)
    endpoints: Sequence[str] = ()


class Writer:
    """Takes what one process saw, and hands it on in chunks."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._kinds = {OK: 0}
        self._new_kinds: list[tuple[str, str]] = []
        self._endpoints: dict[str, int] = {}
        self._new_endpoints: list[str] = []

    def record(
        self, number: int, at_s: float, *, lag_ms: float, latency_ms: float, kind: str, example: str, endpoint: str
    ) -> None:
        index = self._kinds.get(kind)
        if index is None:
            if len(self._kinds) >= MAX_KINDS:
                kind = OTHER
            index = self._kinds.setdefault(kind, len(self._kinds))
            if index == len(self._kinds) - 1:
                self._new_kinds.append((kind, example[:MAX_EXAMPLE]))
        place = self._endpoints.get(endpoint)
        if place is None:
            place = self._endpoints[endpoint] = len(self._endpoints)
            self._new_endpoints.append(endpoint)
        self._records += _pack(number, index, place, at_s, lag_ms, latency_ms)

    def chunk(self) -> Chunk:
        """What has come since the last call."""
        taken = Chunk(bytes(self._records), tuple(self._new_kinds), tuple(self._new_endpoints))
        self._records.clear()
        self._new_kinds, self._new_endpoints = [], []
        return taken


class Collector:
    """Puts the chunks of all processes together. What was scheduled and has not been recorded is UNFINISHED.

    `shards`: the arrival times of each process, in seconds from the start, ascending; None for a closed loop of
    `workers` processes, which has no schedule, and where each record brings its own time.
    """

    def __init__(self, shards: Sequence[NDArray[np.float64]] | None, workers: int = 1) -> None:
        self._closed = shards is None
        shards = shards if shards is not None else [np.empty(0)] * workers
        self._scheduled, self._places = _merge(shards)
        n = len(self._scheduled)
        self._count = 0 if self._closed else n  # of the places that hold an arrival
        self._lag = np.zeros(n, np.float32)
        self._latency = np.zeros(n, np.float32)
        self._kind = np.ones(n, np.uint16)
        self._endpoint = np.zeros(n, np.uint16)
        self._kinds = {OK: 0, UNFINISHED: 1}
        self._examples = ["", "the run ended before this request did"]
        self._endpoints: dict[str, int] = {}
        # What the indices of each process mean here.
        self._kind_of = [[0] for _ in shards]
        self._endpoint_of: list[list[int]] = [[] for _ in shards]

    def take(self, chunk: Chunk, worker: int = 0) -> NDArray[np.void]:
        """Add a chunk; returns its records, with `kind` and `endpoint` as the recording has them. (m,)"""
        for kind, example in chunk.kinds:
            if kind not in self._kinds:
                self._kinds[kind] = len(self._kinds)
                self._examples.append(example)
            self._kind_of[worker].append(self._kinds[kind])
        for endpoint in chunk.endpoints:
            self._endpoint_of[worker].append(self._endpoints.setdefault(endpoint, len(self._endpoints)))
        records = np.frombuffer(chunk.records, RECORD).copy()
        if not len(records):
            return records
        records["kind"] = np.array(self._kind_of[worker], np.uint16)[records["kind"]]
        records["endpoint"] = np.array(self._endpoint_of[worker], np.uint16)[records["endpoint"]]
        places = self._room(records["at_s"]) if self._closed else self._place(worker, records["number"])
        self._lag[places] = records["lag_ms"]
        self._latency[places] = records["latency_ms"]
        self._endpoint[places] = records["endpoint"]
        self._kind[places] = records["kind"]  # last: it says that the others are there
        return records

    def recording(self) -> Recording:
        """Everything so far. Of a schedule these are views, which follow what is still recorded."""
        n = self._count
        order = np.argsort(self._scheduled[:n], kind="stable") if self._closed else slice(None)
        return Recording(
            self._scheduled[:n][order],
            self._lag[:n][order],
            self._latency[:n][order],
            self._kind[:n][order],
            tuple(self._kinds),
            tuple(self._examples),
            self._endpoint[:n][order],
            tuple(self._endpoints) or ("",),
        )

    def _place(self, worker: int, numbers: NDArray[np.uint32]) -> "NDArray[np.uint32]":
        places = self._places[worker]
        return numbers if places is None else places[numbers]

    def _room(self, at_s: NDArray[np.float64]) -> slice:
        """Places at the end for so many arrivals without a schedule."""
        start, self._count = self._count, self._count + len(at_s)
        if self._count > len(self._scheduled):
            size = max(2 * len(self._scheduled), self._count, 1024)
            self._scheduled = np.resize(self._scheduled, size)
            self._lag, self._latency = np.resize(self._lag, size), np.resize(self._latency, size)
            self._kind, self._endpoint = np.resize(self._kind, size), np.resize(self._endpoint, size)
        self._scheduled[start : self._count] = at_s
        return slice(start, self._count)


def _merge(
    shards: Sequence[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], list[NDArray[np.uint32] | None]]:
    """The times of all shards in order, and for each shard the places of its own; None where they are all."""
    if len(shards) == 1:
        return shards[0], [None]
    times = np.concatenate(shards)
    order = np.argsort(times, kind="stable")
    places = np.empty(len(times), np.uint32)
    places[order] = np.arange(len(times), dtype=np.uint32)
    del order
    times.sort(kind="stable")
    return times, list(np.split(places, np.cumsum([len(shard) for shard in shards])[:-1]))
