"""Faults: what goes wrong between a client and the API server."""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.kubernetes.statuses import ApiFailure, internal


@dataclass
class Answer:
    """What the API server answers: `body` is an object, a text, bytes, or the events of a watch."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass
class Call:
    """One request, as the log keeps it. `verb` is Kubernetes' (get, list, watch, create, update, patch, delete …)."""

    method: str
    path: str
    params: dict[str, str]
    verb: str = ""
    resource: str = ""  # plural, with its subresource: deployments/scale
    name: str = ""
    namespace: str = ""
    user: str = ""
    status: int = 0  # 0: no answer was sent
    at: float = 0.0  # virtual seconds


class ConnectionLost(Exception):
    """The connection ends without an answer; `committed` says whether the request had been carried out."""

    def __init__(self, committed: bool) -> None:
        super().__init__("committed" if committed else "not committed")
        self.committed = committed


@dataclass
class Fault:
    """Meets the calls whose verb and resource or path fit, `times` of them, after the first `skip`.

    `match` is a regular expression searched in "verb resource path": "patch services", "get pods/proxy", "/version".
    Of the effects one is given: `delay` (seconds), `status` (an error; `retry_after` in seconds), `reset` (the
    connection ends before anything is done), `lost` (… after it was done), `drop_after` (a watch ends without a word
    after so many events), `gone` (a watch is answered with 410).
    """

    match: str
    times: int = 1
    skip: int = 0
    delay: float = 0.0
    status: int = 0
    retry_after: int | None = None
    reset: bool = False
    lost: bool = False
    drop_after: int | None = None
    gone: bool = False
    met: int = 0

    def meets(self, call: Call) -> bool:
        """Counts the call; true where the fault strikes."""
        if not re.search(self.match, f"{call.verb} {call.resource} {call.path}"):
            return False
        self.met += 1
        return self.skip < self.met <= self.skip + self.times

    def answer(self) -> Answer:
        """The error as the API server words it; its flow control answers 429 in plain text and not with a Status."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 429:
            text = "Too many requests, please try again later.\n"
            return Answer(429, text, {"Content-Type": "text/plain; charset=utf-8", **headers})
        if self.status == 503:
            failure = ApiFailure(503, "ServiceUnavailable", "apiserver is shutting down", {})
        elif self.status == 504:
            failure = ApiFailure(504, "Timeout", "request did not complete within the allowed duration", {})
        else:
            failure = internal("etcdserver: request timed out")
            failure.code = self.status
        return Answer(failure.code, failure.body(), {"Content-Type": "application/json", **headers})
