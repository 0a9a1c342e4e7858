"""The load test of a candidate: what is offered and wanted, the measurement, and what is live beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ekiben.config import Project
from ekiben.files import write_atomically
from ekiben.packaging import store
from ekiben.pipeline import sources
from ekiben.types import BentoRef, Verdict

if TYPE_CHECKING:
    from ekiben.loadtest.slo import Slo
    from ekiben.pipeline.targets import Payload
    from ekiben.types import LoadPlan, LoadReport

MOST_LIVE_FAILURES = 0.01
"""Share of requests. A live release that fails more often is so slow by its time-outs that all pass beside it."""


def objectives(project: Project, overrides: list[str], service: str) -> "tuple[Slo, LoadPlan]":
    """What load is offered and what counts as good; refused if the run could not prove it."""
    from ekiben.loadtest import compare, slo

    wanted, plan = slo.read(project.root / "loadtests" / "slo.toml", overrides, service)
    wanted.require(plan)
    if wanted.relative:
        compare.in_turn(plan)
    return wanted, plan


@dataclass(frozen=True)
class Beside:
    """What is live beside the candidate; `url` is empty where it does not answer."""

    bento: BentoRef
    url: str


def measure(
    project: Project, candidate: BentoRef, url: str, live: Beside | None, slo: list[str], out: Path, run: str
) -> Verdict:
    """Load the candidate, which answers at `url`, and judge; the report is written to `out` and logged to W&B."""
    from ekiben.loadtest import runner
    from ekiben.loadtest.judging import judge
    from ekiben.loadtest.resources import Sampler
    from ekiben.pipeline import loading
    from ekiben.report.write import write

    wanted, plan = objectives(project, slo, candidate.name)
    for _ in range(2):
        with Sampler(url) as sampler:
            report = runner.run(
                locustfile=project.root / "loadtests" / "locustfile.py",
                url=url,
                golden=store.golden(candidate),
                plan=plan,
                subject=candidate,
                out=out,
                slo=wanted,
                on_progress=_tell,
            )
        report = loading.described(sampler.attach(report), _payload(candidate))
        if report.valid or report.target_lost:
            break
        # The generator was at fault, not the service: that says nothing about the release, so it is measured again.
        _tell(f"INVALID: {report.reason}")
    if wanted.relative and live is None:
        _tell("there is no live release: objectives against it are passed over")
    if wanted.relative and live is not None and report.valid:
        report = _against_live(live, url, candidate, plan, report, out)
    verdict = judge(report, wanted, live=live is not None)
    write(report, verdict, out)
    _log_report(project, candidate, report, verdict, out, run)
    return verdict


def _against_live(
    live: Beside, url: str, candidate: BentoRef, plan: "LoadPlan", report: "LoadReport", out: Path
) -> "LoadReport":
    """The report with the comparison: what is live and the candidate are asked the same in turn."""
    from ekiben.loadtest import compare, payloads
    from ekiben.loadtest.golden import Golden
    from ekiben.pipeline import loading
    from ekiben.pipeline.targets import Payload

    if not live.url:
        _tell(f"{live.bento}, which is live, does not answer: there is nothing to compare with")
        return report
    mine, path = _payload(candidate), out / "payload-live.json"
    known = payloads.for_other(mine.golden, Golden.read(store.golden(live.bento)))
    write_atomically(path, known.model_dump_json())
    a = loading.Side(live.bento.tag, live.url, Payload(known, path, mine.source))
    b = loading.Side(candidate.tag, url, mine)
    _tell(f"comparing {candidate} with {live.bento}, which is live")
    both = loading.against(a, b, compare.in_turn(plan), candidate, out / "against-live", _tell)
    found = both.comparison
    if not both.valid or found is None:
        _tell(f"INVALID: {both.reason}")
        return report
    if found.failed_a > MOST_LIVE_FAILURES * found.requests_a:
        _tell(
            f"{live.bento}, which is live, failed {found.failed_a:,} of {found.requests_a:,} requests: "
            "no measure for others"
        )
        return report
    return report.model_copy(update={"comparison": found})


def _payload(bento: BentoRef) -> "Payload":
    from ekiben.loadtest.golden import Golden
    from ekiben.pipeline.targets import Payload

    path = store.golden(bento)
    return Payload(Golden.read(path), path, "golden examples")


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _log_report(
    project: Project, candidate: BentoRef, report: "LoadReport", verdict: Verdict, out: Path, run: str
) -> None:
    """To W&B; where that fails the verdict stands all the same, for it does not depend on who keeps the report."""
    from ekiben.report.headline import summary

    try:
        config = {"bento": candidate.tag, "run": run}
        logged = sources.registry(project).log_load_report(candidate.model, out, config, summary(report, verdict))
    except Exception as error:  # the client has many kinds
        _tell(f"the report is in {out}, but W&B did not take it: {error}")
    else:
        _tell(f"the report is {logged} in W&B")
