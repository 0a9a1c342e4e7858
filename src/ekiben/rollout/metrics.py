"""What BentoML's metrics say of a pod: counters, and what was added to them. Pure."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

_LINE = re.compile(
    r"^(bentoml_service_request_(?:total|in_progress|duration_seconds_(?:bucket|sum)))\{([^}]*)\}\s+(\S+)", re.MULTILINE
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_PROBES = ("/livez", "/readyz", "/healthz", "/metrics")  # which BentoML counts like any request

Sample = tuple[str, Mapping[str, str], float]
"""A metric's name, its labels and its value."""


@dataclass(frozen=True)
class Counted:
    """Requests, how many of them ended in a 5xx, how many took at most so many seconds, and how many seconds all took
    together. `in_progress` is no counter: requests in progress at that moment, nan where that is not known."""

    requests: float = 0
    failed: float = 0
    within: Mapping[float, float] = field(default_factory=dict)
    busy_s: float = 0
    in_progress: float = math.nan

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of the text that a pod's /metrics answers. ValueError if it has what is no number."""
        return cls.of(
            (name, dict(_LABEL.findall(labels)), float(number)) for name, labels, number in _LINE.findall(text)
        )

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Self:
        """Of one pod's samples; probes are left out. ValueError for a value, or a bucket's bound, that is no number."""
        requests = failed = busy = 0.0
        progress = math.nan
        within: dict[float, float] = {}
        for name, labels, value in samples:
            own = labels.get("endpoint") not in _PROBES
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
            if name.endswith("_in_progress"):  # of probes too: then the pod counts, and nothing was asked of it yet
                progress = (0.0 if math.isnan(progress) else progress) + own * value
            elif not own:
                continue
            elif name.endswith("_total"):
                requests += value
                failed += value * labels.get("http_response_code", "").startswith("5")
            elif name.endswith("_sum"):
                busy += value
            elif name.endswith("_bucket"):
                bound = float(labels.get("le", ""))
                within[bound] = within.get(bound, 0.0) + value
        return cls(requests, failed, within, busy, progress)

    def since(self, before: Self) -> Self:
        """What was added. Counters that went down began anew: a process was restarted."""
        if self.requests < before.requests:
            return self
        within = {bound: value - before.within.get(bound, 0.0) for bound, value in self.within.items()}
        return type(self)(
            self.requests - before.requests,
            self.failed - before.failed,
            within,
            self.busy_s - before.busy_s,
            self.in_progress,
        )

    def percentile_ms(self, level: float) -> float:
        """As Prometheus' histogram_quantile gives it, in ms: straight lines within a bucket; nan without requests."""
        bounds = sorted(self.within)
        total = self.within[bounds[-1]] if bounds else 0.0
        if not total:
            return math.nan
        rank, low, before = level / 100 * total, 0.0, 0.0
        for bound in bounds:
            if self.within[bound] >= rank:
                if math.isinf(bound):
                    return low * 1000
                share = (rank - before) / ((self.within[bound] - before) or 1.0)
                return (low + (bound - low) * share) * 1000
            low, before = bound, self.within[bound]
        return low * 1000

    def slower(self, seconds: float) -> tuple[float, float, float]:
        """How many took longer than the first bucket's bound that is not below `seconds`, of how many, and that
        bound in s."""
        bounds = sorted(self.within)
        if not bounds:
            return 0.0, 0.0, math.inf
        bound = next((each for each in bounds if each >= seconds), bounds[-1])
        every = self.within[bounds[-1]]
        return every - self.within[bound], every, bound


def total(counts: Iterable[Counted]) -> Counted:
    """Of all pods together; what is in progress is known only if it is known of each."""
    requests = failed = busy = progress = 0.0
    within: dict[float, float] = {}
    empty = True
    for each in counts:
        empty = False
        requests, failed, busy = requests + each.requests, failed + each.failed, busy + each.busy_s
        progress += each.in_progress
        for bound, value in each.within.items():
            within[bound] = within.get(bound, 0.0) + value
    return Counted(requests, failed, within, busy, math.nan if empty else progress)
