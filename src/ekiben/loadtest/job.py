"""What the runner tells the Locust process: a JSON file, named by an environment variable."""

from pathlib import Path

from ekiben.loadtest.slo import Slo
from ekiben.types import BentoRef, LoadPlan, Value

JOB = "EKIBEN_LOADTEST"
"""Path of the job's file."""

GOLDEN = "EKIBEN_GOLDEN"
"""Path of the golden answers, for a bare `locust -f loadtests/locustfile.py`."""

PROGRESS = "ekiben: "
"""What a line of progress on standard output begins with."""

ERROR = PROGRESS + "error: "
"""What the line begins with that says why there is no report."""


class Job(Value):
    plan: LoadPlan
    golden: Path
    result: Path
    subject: BentoRef | None = None
    slo: Slo | None = None
    """Objectives by which the run is ended early or extended; None: it lasts as long as planned."""
    parent: int | None = None
    """Locust ends when this process is no longer its parent; None: it belongs to nobody."""
