"""What happened to each arrival, kept exactly: float32 milliseconds, about 20 bytes a request. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

OK = ""
DROPPED = "dropped"
UNFINISHED = "unfinished"
MAX_EXAMPLE = 300


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

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """One recording of what several generators did; which of them did what makes no difference."""
        kinds = (OK, *sorted({k for part in parts for k in part.kinds} - {OK}))
        examples = {k: e for part in reversed(parts) for k, e in zip(part.kinds, part.examples, strict=True)}
        endpoints = tuple(sorted({name for part in parts for name in part.endpoints}))
        scheduled = np.concatenate([part.scheduled_s for part in parts])
        order = np.argsort(scheduled, kind="stable")
        kind = np.concatenate([np.array([kinds.index(k) for k in p.kinds], np.uint16)[p.kind] for p in parts])
        endpoint = np.concatenate(
            [np.array([endpoints.index(e) for e in p.endpoints], np.uint16)[p.endpoint] for p in parts]
        )
        return cls(
            scheduled_s=scheduled[order],
            lag_ms=np.concatenate([part.lag_ms for part in parts])[order],
            latency_ms=np.concatenate([part.latency_ms for part in parts])[order],
            kind=kind[order],
            kinds=kinds,
            examples=tuple(examples[k] for k in kinds),
            endpoint=endpoint[order],
            endpoints=endpoints,
        )


class Recorder:
    """Takes what one generator saw, by arrival number. An arrival that nobody records stays UNFINISHED."""

    def __init__(self, scheduled_s: NDArray[np.float64], endpoints: tuple[str, ...] = ("",)) -> None:
        n = len(scheduled_s)
        self._endpoint = np.zeros(n, np.uint16)
        self._endpoints = endpoints
        self._scheduled = scheduled_s
        self._lag = np.zeros(n, np.float32)
        self._latency = np.zeros(n, np.float32)
        self._kind = np.ones(n, np.uint16)
        self._kinds = {OK: 0, UNFINISHED: 1}
        self._examples = ["", "the run ended before this request did"]

    def record(
        self, number: int, *, lag_ms: float, latency_ms: float, kind: str = OK, example: str = "", endpoint: int = 0
    ) -> None:
        index = self._kinds.get(kind)
        if index is None:
            index = self._kinds[kind] = len(self._kinds)
            self._examples.append(example[:MAX_EXAMPLE])
        self._lag[number] = lag_ms
        self._latency[number] = latency_ms
        self._kind[number] = index
        self._endpoint[number] = endpoint

    def recording(self) -> Recording:
        return Recording(
            self._scheduled,
            self._lag,
            self._latency,
            self._kind,
            tuple(self._kinds),
            tuple(self._examples),
            self._endpoint,
            self._endpoints,
        )
