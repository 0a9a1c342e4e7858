"""What the runner tells the Locust process: a JSON file, named by an environment variable."""

from pathlib import Path

from ekiben.loadtest.slo import Slo
from ekiben.types import BentoRef, ImageRef, LoadPlan, Value

JOB = "EKIBEN_LOADTEST"
"""Path of the job's file."""

GOLDEN = "EKIBEN_GOLDEN"
"""Path of the golden answers, for a bare `locust -f loadtests/locustfile.py`."""

PARENT = "EKIBEN_LOADTEST_PARENT"
"""Process without which a worker ends: who started it."""

PROGRESS = "ekiben: "
"""What a line of progress on standard output begins with."""

ERROR = PROGRESS + "error: "
"""What the line begins with that says why there is no report."""


class Against(Value):
    """Another target, A, that is asked in turn with the run's own, B, and compared with it. `golden` holds the same
    requests as the job's, with A's answers; `a` and `b` are what the two are called; `settings_hash` as in compare."""

    a: str
    b: str
    url: str
    golden: Path
    settings_hash: str


class Job(Value):
    plan: LoadPlan
    golden: Path
    result: Path
    subject: BentoRef | ImageRef | None = None
    slo: Slo | None = None
    """Objectives by which the run is ended early or extended; None: it lasts as long as planned."""
    against: Against | None = None
    limit_ms: float | None = None
    """The report tells which share of the requests was slower than this; None: it does not."""
    parent: int | None = None
    """Locust ends when this process is no longer its parent; None: it belongs to nobody."""
