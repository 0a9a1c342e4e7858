"""What a running receiver tells Prometheus: events by outcome, and how long they took."""

from bisect import bisect_left
from collections import Counter

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)  # s


class Counts:
    """Of one event loop; nothing here is locked."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def add(self, outcome: str, seconds: float) -> None:
        self.outcomes[outcome] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def render(self) -> str:
        """The text format, version 0.0.4."""
        lines = ["# TYPE ekiben_webhook_events_total counter"]
        lines += [f'ekiben_webhook_events_total{{outcome="{each}"}} {n}' for each, n in sorted(self.outcomes.items())]
        lines.append("# TYPE ekiben_webhook_event_seconds histogram")
        seen = 0
        for limit, count in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            seen += count
            lines.append(f'ekiben_webhook_event_seconds_bucket{{le="{limit}"}} {seen}')
        lines += [f"ekiben_webhook_event_seconds_sum {self._seconds:.6f}", f"ekiben_webhook_event_seconds_count {seen}"]
        return "\n".join(lines) + "\n"
