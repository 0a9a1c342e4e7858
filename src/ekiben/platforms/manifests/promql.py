"""Queries over BentoML's own metrics. Pods are known by their names, which every scrape configuration gives."""

from ekiben.platforms.manifests.names import Target
from ekiben.types import Slot

IN_PROGRESS = "bentoml_service_request_in_progress"
NOT_PROBES = 'endpoint!~"/(livez|readyz|healthz|metrics)"'
"""BentoML counts probes as requests."""


def pods(target: Target, slot: Slot | None = None) -> str:
    """The matcher of a colour's pods, or of both colours'. Pod names end in two hashes."""
    colour = slot or "(blue|green)"
    return f'namespace="{target.settings.namespace}",pod=~"{target.name}-{colour}-[a-z0-9]+-[a-z0-9]+"'


def in_progress(target: Target, slot: Slot) -> str:
    """Requests in progress: 0 before the first one, when only probes were counted; nothing where nothing is scraped."""
    of = pods(target, slot)
    return f"sum({IN_PROGRESS}{{{of},{NOT_PROBES}}}) or 0 * sum({IN_PROGRESS}{{{of}}})"


def counters(target: Target, slot: Slot, ago_s: int = 0) -> str:
    """All that is counted of each pod of a colour, probes too, now or so many seconds ago. One series of those that
    two jobs have scraped alike."""
    names = "total|in_progress|duration_seconds_bucket|duration_seconds_sum"
    by = "__name__,pod,service_name,service_version,endpoint,http_response_code,le"
    past = f" offset {ago_s}s" if ago_s else ""
    return f'max by ({by}) ({{__name__=~"bentoml_service_request_({names})",{pods(target, slot)}}}{past})'


def error_share(target: Target) -> str:
    """The share of requests, between 0 and 1, that ended in a 5xx in the last 5 minutes, per version of the Bento."""
    of, by = f"{pods(target)},{NOT_PROBES}", "sum by (service_version)"
    failed = f'{by} (rate(bentoml_service_request_total{{{of},http_response_code=~"5.."}}[5m]))'
    return f"{failed} / {by} (rate(bentoml_service_request_total{{{of}}}[5m]))"


def p99(target: Target) -> str:
    """The 99th percentile of the last 5 minutes, in s, per version of the Bento."""
    buckets = f"bentoml_service_request_duration_seconds_bucket{{{pods(target)},{NOT_PROBES}}}"
    return f"histogram_quantile(0.99, sum by (service_version, le) (rate({buckets}[5m])))"


def scraped(target: Target) -> str:
    """True only while nothing at all is scraped of the service."""
    return f"absent({IN_PROGRESS}{{{pods(target)}}})"
