"""Load reports of every shape, made of simulated recordings or built by hand."""

from datetime import UTC, datetime

import numpy as np

from ekiben.loadtest.arrivals import schedule
from ekiben.loadtest.summary import summarise
from ekiben.types import (
    BentoRef,
    Comparison,
    Difference,
    EndpointReport,
    ErrorKind,
    ImageRef,
    LoadPlan,
    LoadReport,
    Machine,
    ModelVersion,
    RatePoint,
    Resources,
    Search,
    Second,
)
from tests.fakes.recording import Recorder

MODEL = ModelVersion.parse("acme/vision/digits:v3", "0123456789abcdef" * 2)
BENTO = BentoRef(name="digits", version="abc123", digest="f" * 64, model=MODEL)
IMAGE = ImageRef(repository="registry.example/team/digits", digest=f"sha256:{'e' * 64}", bento=BENTO)
HOSTILE = "<script>alert(1)</script> | `code` [x](http://evil) @somebody \x1b[31m\n# heading \u202egpj.exe"
STARTED = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
MACHINE = Machine(
    cpu="Example CPU 3.0 GHz",
    cores=8,
    memory_gb=33.6,
    system="Linux 6.1, x86_64",
    python="3.12.4",
    ekiben="0.1.0",
    locust="2.47.0",
)


def measured(
    slow_ms: float = 5.0, failures: int = 0, example: str = "as seen", plan: LoadPlan | None = None
) -> LoadReport:
    """A run of 20 s at 100/s; its last `failures` requests were answered with 503."""
    plan = plan or LoadPlan(warm_up_s=2, measure_s=20)
    due = schedule(plan)
    recorder, rng = Recorder(due), np.random.default_rng(1)
    for number, latency in enumerate(rng.gamma(4, slow_ms / 4, len(due))):
        failed = number >= len(due) - failures
        kind = "status 503" if failed else ""
        recorder.record(number, lag_ms=0.4, latency_ms=float(latency), kind=kind, example=example if failed else "")
    return summarise(
        recorder.recording(),
        plan,
        url="http://127.0.0.1:3001",
        endpoint="POST /predict",
        started=STARTED,
        subject=BENTO,
    )


def crashed() -> LoadReport:
    return LoadReport(
        validity="INVALID",
        reason="Locust ended with exit code 1 and without a report: ValueError: no",
        url="http://127.0.0.1:3001",
        started=STARTED,
        settings=LoadPlan(),
    )


def resources(seconds: int) -> tuple[Resources, ...]:
    rng = np.random.default_rng(3)
    cpu, memory = 60 + rng.normal(0, 6, seconds), 412 + np.cumsum(rng.random(seconds))
    return tuple(
        Resources(at_s=t, cpu_percent=round(float(c), 1), memory_mb=round(float(m), 1), in_progress=int(c) % 4)
        for t, (c, m) in enumerate(zip(cpu, memory, strict=True))
    )


def search() -> Search:
    """On a server whose p99 is 12 / (1 − rate / 500) ms."""
    rates = [50, 100, 200, 400, 300, 350, 330, 345, 360, 375, 390, 340, 355, 370, 365]
    points = []
    for number, rate in enumerate(rates):
        ms = 12 / (1 - rate / 500)
        spread = 1.08 if number < 5 else 1.12
        points.append(
            RatePoint(
                rate=rate,
                seconds=10,
                requests=rate * 10,
                ms=round(ms, 2),
                lower_ms=round(ms / spread, 2),
                upper_ms=round(ms * spread, 2),
                slower=0.01 if ms > 44 else 0.008,
                achieved_rate=rate * 0.999,
                error_rate=0.0,
                held=ms <= 44,
                stage="bracket" if number < 5 else "confirm" if number == len(rates) - 1 else "fit",
            )
        )
    infinite = {"slower": 0.4, "ms": None, "lower_ms": None, "upper_ms": None, "held": False}
    beyond = points[3].model_copy(update={"rate": 800.0, **infinite})
    return Search(
        objective="p99 ≤ 44 ms",
        limit_ms=44,
        rate=358,
        knee=363.6,
        lower=352,
        upper=374,
        highest_pass=365,
        lowest_fail=370,
        limited_by="service",
        sure="358 requests/s held p99 ≤ 44 ms for 60 s with 95 % confidence; the knee is between 352 and 374.",
        seconds=412,
        points=(*points[:4], beyond, *points[4:]),
    )


def comparison() -> Comparison:
    def difference(name: str, a: float, change: float, half: float, significant: bool) -> Difference:
        return Difference(
            name=name,
            a_ms=a,
            b_ms=a * (1 + change),
            ratio=1 + change,
            ratio_lower=1 + change - half,
            ratio_upper=1 + change + half,
            ms=a * change,
            ms_lower=a * (change - half),
            ms_upper=a * (change + half),
            significant=significant,
        )

    return Comparison(
        a="digits:aaa111",
        b="digits:abc123",
        settings_hash="0123456789abcdef",
        block_s=2.5,
        head_s=0.5,
        pairs=24,
        requests_a=4_801,
        requests_b=4_777,
        failed_a=0,
        failed_b=3,
        differences=(
            difference("mean", 5.1, 0.062, 0.031, True),
            difference("p50", 4.7, -0.051, 0.02, True),
            difference("p95", 9.6, 0.118, 0.062, True),
            difference("p99", 13.4, 0.071, 0.194, False),
        ),
        outcome="mixed",
        seen="B is slower in the mean by 6.2 % (3.1 to 9.3 %) and in p95 by 11.8 %, and faster in p50 by 5.1 %.",
    )


def everything() -> LoadReport:
    """A report with every part that one can have."""
    whole = measured(slow_ms=60, failures=12, example=HOSTILE)
    by_endpoint = tuple(
        EndpointReport(
            endpoint=name,
            requests=whole.requests // 2,
            failed=failed,
            achieved_rate=whole.achieved_rate / 2,
            achieved=whole.achieved,
            error_rate=whole.error_rate,
            percentiles=whole.percentiles,
        )
        for name, failed in (("POST /predict", 12), ("POST /predict_proba", 0))
    )
    return whole.model_copy(
        update={
            "subject": IMAGE,
            "endpoints": by_endpoint,
            "resources": resources(22),
            "machine": MACHINE,
            "search": search(),
            "comparison": comparison(),
        }
    )


def long(seconds: int = 86_400, rate: int = 116) -> LoadReport:
    """A run of a day, of about ten million requests, with one slow second in it."""
    rng = np.random.default_rng(5)
    p99 = 20 + 5 * np.sin(np.arange(seconds) / 7_000) + rng.random(seconds)
    p99[seconds // 2] = 1_800.0
    series = tuple(
        Second(
            at_s=t,
            warm_up=t < 60,
            offered=rate,
            completed=rate,
            errors=int(t % 997 == 0),
            in_flight=int(v) // 10,
            p50_ms=round(float(v) / 3, 3),
            p99_ms=round(float(v), 3),
        )
        for t, v in enumerate(p99)
    )
    plan = LoadPlan(rate=rate, warm_up_s=60, measure_s=seconds - 60)
    return measured(slow_ms=20).model_copy(
        update={
            "settings": plan,
            "measured_s": plan.measure_s,
            "requests": rate * (seconds - 60),
            "failed": 86,
            "series": series,
            "errors": (ErrorKind(kind="time-out", count=86, example="no answer within 5 s"),),
            "resources": resources(min(seconds, 20_000)),
        }
    )
