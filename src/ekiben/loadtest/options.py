"""What a bare `locust -f loadtests/locustfile.py` can be told: every field of the load plan as an option."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ekiben.errors import UsageError
from ekiben.loadtest.job import GOLDEN, JOB, Job
from ekiben.loadtest.slo import Slo, parse
from ekiben.types import LoadPlan

FIELDS = {
    "rate": "rate",
    "arrivals": "arrivals",
    "trace": "trace",
    "warm_up": "warm_up_s",
    "duration": "measure_s",
    "extend_to": "extend_to_s",
    "request_timeout": "timeout_s",
    "seed": "seed",
    "max_in_flight": "max_in_flight",
}
"""Option -> field of the plan. `users` is Locust's own -u, `processes` the number of its processes."""


def add_options(parser: ArgumentParser, **_: Any) -> None:
    group: Any = parser.add_argument_group("open-loop load")
    for option, name in FIELDS.items():
        field = LoadPlan.model_fields[name]
        kind = str if name == "arrivals" else field.annotation
        choices = ["poisson", "constant", "closed"] if name == "arrivals" else None
        help_ = (field.description or "").replace("%", "%%")
        flag = "--" + option.replace("_", "-")
        group.add_argument(flag, type=kind, default=field.default, choices=choices, help=help_)
    group.add_argument("--rate-profile", default="", help="rate over time instead of --rate: 0:50,60:200 is a ramp")
    group.add_argument("--slo", default="", help="judge by these, end early or extend: p99=300ms,error_rate=1%%")
    group.add_argument("--golden", default="", env_var=GOLDEN, help="golden answers of the model under test")
    group.add_argument("--result", default=".ekiben/load-report.json", help="where the report is written")


def job_of(environment: Any) -> Job:
    """The runner's job, or one made of Locust's own options when there is no runner."""
    if path := os.environ.get(JOB):
        return Job.model_validate_json(Path(path).read_bytes())
    given = environment.parsed_options
    if not given.golden:
        raise UsageError(f"no golden answers: set {GOLDEN} or --golden to the golden.json of the model under test")
    fields = {name: getattr(given, option) for option, name in FIELDS.items()}
    try:
        plan = LoadPlan(**fields, profile=profile(given.rate_profile), users=given.num_users or 1)
    except ValidationError as error:
        first = error.errors()[0]
        option = next((option for option, name in FIELDS.items() if name in first["loc"]), "rate-profile")
        raise UsageError(f"--{option.replace('_', '-')}: {first['msg']}") from None
    objectives = dict(parse(part, origin="--slo ") for part in given.slo.split(",") if part.strip())
    slo = Slo(objectives=objectives) if objectives else None
    return Job(plan=plan, golden=Path(given.golden), result=Path(given.result), slo=slo)


def profile(text: str) -> tuple[tuple[float, float], ...]:
    """`0:50,60:200` -> ((0, 50), (60, 200)): s since the warm-up's end, requests/s."""
    try:
        pairs = [part.split(":") for part in text.split(",") if part.strip()]
        return tuple((float(at), float(rate)) for at, rate in pairs)
    except ValueError:
        raise UsageError(
            f"not a profile: {text!r}", wanted="seconds:rate, comma-separated, such as 0:50,60:200"
        ) from None
