"""What Prometheus has scraped of a colour's pods, by its HTTP API: the same counters as the pods tell themselves."""

import json
from collections import defaultdict
from typing import Any

import httpx

from ekiben.errors import UnavailableError
from ekiben.platforms.manifests import promql
from ekiben.platforms.manifests.names import Target
from ekiben.rollout.metrics import Counted, Sample
from ekiben.types import Slot

TIMEOUT = 5.0  # s
TRIES = 2
MOST_BYTES = 32 * 2**20


def counted(target: Target, slot: Slot, ago_s: int = 0) -> tuple[dict[str, Counted], dict[str, str]]:
    """Of the newest sample of each pod that is at most 5 minutes old, or was so many seconds ago; and the pods whose
    samples are no numbers, with the reason. UnavailableError if Prometheus does not answer, or not as it should."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for labels, value in _instant(target.settings.prometheus, promql.counters(target, slot, ago_s)):
        samples[labels.get("pod", "")].append((labels.get("__name__", ""), labels, value))
    counts, silent = {}, {}
    for pod, each in samples.items():
        try:
            counts[pod] = Counted.of(each)
        except ValueError as error:
            silent[pod] = str(error)
    return counts, silent


def _instant(url: str, query: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series of an instant query's vector."""
    wanted, where = "the answer of Prometheus' API to a query", f"{url.rstrip('/')}/api/v1/query"
    next_step = "look at `prometheus` in the environment's table in pyproject.toml, and at Prometheus itself"
    status, body = _asked(where, {"query": query, "timeout": f"{TIMEOUT:g}s"}, next_step)
    try:
        answer = json.loads(body)
        if answer["status"] == "success" and status == 200:
            if answer["data"]["resultType"] != "vector":
                raise ValueError(answer["data"]["resultType"])
            return [(dict(each["metric"]), float(each["value"][1])) for each in answer["data"]["result"]]
        said = f"{answer['errorType']}: {answer['error']}"
    except (ValueError, KeyError, TypeError, IndexError):  # a proxy's page, or no Prometheus at all
        said = body[:100].decode(errors="replace").strip()
    raise UnavailableError(f"{url} answers {status}: {said}", wanted=wanted, next_step=next_step)


def _asked(where: str, params: dict[str, Any], next_step: str) -> tuple[int, bytes]:
    for attempt in range(TRIES):
        try:
            with httpx.stream("GET", where, params=params, timeout=TIMEOUT) as answer:
                body = b""
                for part in answer.iter_bytes():
                    if len(body := body + part) > MOST_BYTES:
                        break
            if answer.status_code < 500 or attempt + 1 == TRIES:
                return answer.status_code, body
        except httpx.HTTPError as error:
            if attempt + 1 == TRIES:
                raise UnavailableError(
                    f"{where} does not answer: {str(error) or type(error).__name__}",
                    wanted="Prometheus",
                    next_step=next_step,
                ) from None
    raise AssertionError("the last try returns or raises")
