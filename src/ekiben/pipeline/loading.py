"""`ekiben loadtest run`, `search` and `compare`: targets, load and objectives, measured and judged, as a report.

`tell` gets a line of progress about each second. Every function leaves its files in `order.out`.
"""

import contextlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ekiben.config import Project
from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest import compare as comparing
from ekiben.loadtest import compared, judging, payloads, runner, searching, slo
from ekiben.loadtest.job import Against
from ekiben.loadtest.plans import plan_of
from ekiben.loadtest.resources import Sampler, machine
from ekiben.loadtest.runner import Crew
from ekiben.loadtest.slo import Slo
from ekiben.pipeline.targets import Payload, Target
from ekiben.report.write import Document, write
from ekiben.types import BentoRef, LoadPlan, LoadReport, Verdict

APART = (
    "They were measured at different times: a difference may be the machine's doing. "
    "`ekiben loadtest compare A B` with addresses or Bentos measures both in turn."
)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What a person asked for. `load` has the keys of slo.toml's [load] table, and overrides it."""

    out: Path
    golden: Path | None = None
    rows: str = ""
    slo: tuple[str, ...] = ()
    slo_file: Path | None = None
    load: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One of the two in a comparison: what it is called, where it answers, and what it must answer."""

    name: str
    url: str
    payload: Payload


@dataclass(frozen=True)
class Done:
    path: Path  # of report.json
    report: LoadReport
    verdict: Verdict


def objectives(order: Order, service: str) -> tuple[Slo, LoadPlan]:
    """By slo.toml, where there is one, and by what was asked for beside it."""
    path = order.slo_file or _of_project("loadtests/slo.toml")
    wanted, plan = slo.read(path, order.slo, service) if path else (Slo.of(order.slo, "--slo "), LoadPlan())
    return wanted, with_load(plan, order.load)


def with_load(plan: LoadPlan, load: Mapping[str, Any]) -> LoadPlan:
    """The plan with what `load` names instead. A new way to offer load takes the place of another."""
    given = plan_of(dict(load), Path("command line")).model_dump(exclude_unset=True)
    base = plan.model_dump()
    if given.keys() & {"rate", "profile", "trace"} or given.get("arrivals") == "closed":
        base |= {"profile": (), "trace": ""}
    if given.keys() & {"rate", "profile", "trace"} and plan.arrivals == "closed" and "arrivals" not in given:
        base["arrivals"] = "poisson"
    return LoadPlan.model_validate(base | given)


def run(target: Target, order: Order, tell: Tell, *, of: BentoRef | None = None, crew: Crew | None = None) -> Done:
    """`of` is the Bento that is known to answer at the target's address; `crew` sends the requests, where there is
    one."""
    wanted, plan = objectives(order, of.name if of else target.service)
    require_any(wanted)
    with _scratch() as scratch, target.reached(scratch) as url:
        payload = target.payload(url, order.golden, order.rows, plan.seed, order.out / "payload.json")
        wanted.require(plan, payloads.shares(payload.golden))
        with Sampler(url) as sampler:
            report = runner.run(
                locustfile=locustfile(),
                url=url,
                golden=payload.path,
                plan=plan,
                subject=of or target.subject,
                out=order.out,
                slo=wanted,
                crew=crew,
                on_progress=tell,
            )
    report = described(sampler.attach(report), payload)
    return _done(report, judging.judge(report, wanted, live=False), order)


def compare(a: Target, b: Target, order: Order, tell: Tell) -> Done:
    """B against A under the same load in turn. UsageError when they cannot be asked the same."""
    wanted, plan = comparison_plan(order, b.service)
    with contextlib.ExitStack() as held:
        scratch = held.enter_context(_scratch())
        urls = [held.enter_context(each.reached(scratch / name)) for each, name in ((a, "a"), (b, "b"))]
        mine = b.payload(urls[1], order.golden, order.rows, plan.seed, order.out / "payload.json")
        theirs = a.payload(urls[0], order.golden, order.rows, plan.seed, order.out / "payload-a.json")
        if payloads.digest(mine.golden) != payloads.digest(theirs.golden):
            raise UsageError(
                f"{a.name} and {b.name} have different examples: they cannot be compared by them",
                wanted="the same requests to both",
                next_step="give one file of examples for both: --golden FILE",
            )
        pair = (Side(a.name, urls[0], theirs), Side(b.name, urls[1], mine))
        report = against(*pair, plan, b.subject, order.out, tell)
    return _done(report, compared.judge(report, wanted), order)


def against(a: Side, b: Side, plan: LoadPlan, subject: BentoRef | None, out: Path, tell: Tell) -> LoadReport:
    """The report of both in turn, with the comparison. Both payloads hold the same requests."""
    other = Against(
        a=a.name, b=b.name, url=a.url, golden=a.payload.path.absolute(), settings_hash=settings_hash(plan, b.payload)
    )
    with Sampler(b.url) as sampler:
        report = runner.run(
            locustfile=locustfile(),
            url=b.url,
            golden=b.payload.path,
            plan=plan,
            subject=subject,
            out=out,
            against=other,
            on_progress=tell,
        )
    return described(sampler.attach(report), b.payload)


def comparison_plan(order: Order, service: str) -> tuple[Slo, LoadPlan]:
    """The duration of slo.toml is for other runs."""
    wanted, plan = objectives(order, service)
    return wanted, comparing.in_turn(plan, plan.measure_s) if "duration" in order.load else comparing.in_turn(plan)


def search(target: Target, order: Order, budget_s: float, highest: float, tell: Tell) -> Done:
    """The highest rate that holds the objectives; the report is that of the probe which confirmed it."""
    wanted, plan = objectives(order, target.service)
    sought = searching.wanted(wanted, plan, budget_s, highest)
    with _scratch() as scratch, target.reached(scratch) as url:
        payload = target.payload(url, order.golden, order.rows, plan.seed, order.out / "payload.json")
        with Sampler(url) as sampler:

            def probe(number: int, probing: LoadPlan, limit_ms: float) -> LoadReport:
                return runner.run(
                    locustfile=locustfile(),
                    url=url,
                    golden=payload.path,
                    plan=probing,
                    subject=target.subject,
                    out=order.out / "probes" / f"{number:02d}",
                    limit_ms=limit_ms,
                )

            report = searching.conduct(sought, wanted, plan, probe, tell, time.monotonic)
    report = described(sampler.attach(report), payload)
    return _done(report, searching.judge(report), order)


def beside(a: Path, b: Path) -> list[tuple[str, str]]:
    """Percentiles of two saved reports; UsageError when they are not comparable."""
    return compared.beside(Document.read(a).report, Document.read(b).report)


def new_folder(kind: str) -> Path:
    """Where a report goes of which nobody said where."""
    try:
        parent = Project.here().state / "loadtests"
    except NotFoundError:
        parent = Path("ekiben-loadtests")
    return parent / f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def settings_hash(plan: LoadPlan, payload: Payload) -> str:
    here = machine()
    return comparing.settings_hash(plan, payloads.digest(payload.golden), f"{here.cpu}, {here.cores}, {here.memory_gb}")


def described(report: LoadReport, payload: Payload) -> LoadReport:
    """The report with what was sent, and the hash by which it is comparable with others."""
    update = {"settings_hash": settings_hash(report.settings, payload), "payload": payload.source}
    return report.model_copy(update=update)


def _done(report: LoadReport, verdict: Verdict, order: Order) -> Done:
    return Done(write(report, verdict, order.out), report, verdict)


def require_any(wanted: Slo) -> None:
    if not (wanted.objectives or wanted.endpoints):
        raise UsageError("there is no objective to judge by", wanted=slo.ALLOWED, next_step="--slo p99=300ms")


def locustfile() -> Path:
    return _of_project("loadtests/locustfile.py") or Path(runner.__file__).with_name("locustfile.py")


def _of_project(name: str) -> Path | None:
    """A file of the project that this folder belongs to; None where there is no project, or no such file."""
    try:
        path = Project.here().root / name
    except NotFoundError:
        return None
    return path if path.is_file() else None


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ekiben-") as folder:
        yield Path(folder)
