"""What BentoML's /metrics says of a pod: counters, and what was added to them. Pure."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

_LINE = re.compile(r"(bentoml_service_request_(?:total|duration_seconds_bucket))\{([^}]*)\}\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_PROBES = ("/livez", "/readyz", "/healthz", "/metrics")  # which BentoML counts like any request


@dataclass(frozen=True)
class Counted:
    """Requests, how many of them ended in a 5xx, and how many took at most so many seconds."""

    requests: float = 0
    failed: float = 0
    within: Mapping[float, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of the text that a pod's /metrics answers; probes are left out."""
        requests = failed = 0.0
        within: dict[float, float] = {}
        for name, inner, number in _LINE.findall(text):
            labels = dict(_LABEL.findall(inner))
            if labels.get("endpoint") in _PROBES:
                continue
            value = float(number)
            if name.endswith("_total"):
                requests += value
                failed += value * labels.get("http_response_code", "").startswith("5")
            else:
                bound = float(labels["le"])
                within[bound] = within.get(bound, 0.0) + value
        return cls(requests, failed, within)

    def since(self, before: Self) -> Self:
        """What was added. Counters that went down began anew: a process was restarted."""
        if self.requests < before.requests:
            return self
        within = {bound: value - before.within.get(bound, 0.0) for bound, value in self.within.items()}
        return type(self)(self.requests - before.requests, self.failed - before.failed, within)

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


def total(counts: Iterable[Counted]) -> Counted:
    """Of all pods together."""
    requests = failed = 0.0
    within: dict[float, float] = {}
    for each in counts:
        requests, failed = requests + each.requests, failed + each.failed
        for bound, value in each.within.items():
            within[bound] = within.get(bound, 0.0) + value
    return Counted(requests, failed, within)
