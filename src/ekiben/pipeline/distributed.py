"""A load test from several pods: what its steps do. One leads and judges, the others send the requests.

The leader listens at its pod's address, where its workers come; only it needs the order, the examples and W&B.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekiben.config import Project
from ekiben.errors import UnavailableError, UsageError
from ekiben.loadtest import runner
from ekiben.loadtest.payloads import Mix
from ekiben.packaging import store
from ekiben.pipeline import document, loading, outline, packages, sources, stages
from ekiben.pipeline.loading import Done, Order
from ekiben.pipeline.targets import Target
from ekiben.types import BentoRef

PORT = 5557
POD_IP = "EKIBEN_POD_IP"
"""Where a pod finds its own address; without it leader and workers are on one machine."""
MOST_WORKERS = 64
TRIES = 3  # as many as a leader has


@dataclass(frozen=True)
class Asked:
    """What a person asked for, as the workflow's parameters have it. `bento` is the published Bento that answers at
    `address`, and has the examples; `examples` is a file of the project that has them instead; without either they are
    made up from what the service says of itself. `load` has keys of slo.toml's [load] table."""

    address: str
    bento: str
    examples: str
    rows: str
    slo: list[str]
    load: Mapping[str, Any]
    workers: int

    @property
    def service(self) -> str:
        return self.bento.partition(":")[0]

    def order(self, out: Path, golden: Path | None) -> Order:
        return Order(out, golden, self.rows, tuple(self.slo), load=self.load)

    def target(self) -> Target:
        if "://" not in self.address:
            raise UsageError(f"not an address: {self.address!r}", wanted="http://SERVICE.NAMESPACE.svc")
        return Target.parse(self.address)

    def own_examples(self) -> Path | None:
        return Project.here().root / self.examples if self.examples else None


def prepare(asked: Asked, limit: str) -> str:
    """Refuse what cannot be, before any worker is started. Returns in a line what will be done. `limit` is how long a
    pod may take."""
    target, examples = asked.target(), asked.own_examples()
    if not 1 <= asked.workers <= MOST_WORKERS:
        raise UsageError(f"{asked.workers} workers", wanted=f"1 to {MOST_WORKERS}")
    if asked.rows:
        Mix.parse(asked.rows)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        wanted, plan = loading.objectives(asked.order(out, examples), asked.service)
        loading.require_any(wanted)
        wanted.require(plan)
        if document.seconds(limit) <= plan.warm_up_s + plan.longest_s:
            raise UsageError(
                f"the load takes {plan.warm_up_s + plan.longest_s:g} s, and a pod may take {limit}",
                wanted="more time than that: workers must come, and answers be counted",
                next_step="raise the parameter `limit`",
            )
        if asked.bento:
            packages.published(Project.here(), asked.bento)
        if examples or not asked.bento:
            target.payload(target.name, examples, asked.rows, plan.seed, out / "payload.json")
    told = outline.of_run(wanted, plan)
    return f"{asked.workers} workers on {target.name}: {told['load']}, {told['time']}"


def lead(asked: Asked, run: str) -> tuple[Done, str]:
    """Wait for the workers, load the service and judge. Returns what came of it, and the report's exact path in W&B;
    '' where W&B did not take it, for the verdict does not depend on who keeps the report."""
    project, examples = Project.here(), asked.own_examples()
    bento = packages.pull_bento(project, asked.bento) if asked.bento else None
    if bento and not examples:
        examples = store.golden(bento)
    out = Path(os.environ.get(stages.RUN_FOLDER) or tempfile.mkdtemp()) / "report"
    crew = runner.Crew(asked.workers, os.environ.get(POD_IP) or "127.0.0.1", PORT)
    done = loading.run(asked.target(), asked.order(out, examples), _tell, of=bento, crew=crew)
    return done, _keep(project, bento, done, {"address": asked.address, "run": run, "workers": str(asked.workers)})


def work(leader: str) -> None:
    """Send requests for the leader, which is at the name `leader` in the cluster, until it says that all is over. One
    that is lost comes again at that name, and begins anew: so do its workers."""
    host = leader if os.environ.get(POD_IP) else "127.0.0.1"
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(TRIES):
            why = runner.work(loading.locustfile(), host, PORT, Path(folder) / "locust.log", _tell)
            _tell(why or "the test is over")
            if not why:
                return
    raise UnavailableError(why, wanted=f"the end of the test, from the master at {host}:{PORT}")


def _keep(project: Project, bento: BentoRef | None, done: Done, config: Mapping[str, str]) -> str:
    from ekiben.report.headline import summary

    model, named = (bento.model, {"bento": bento.tag}) if bento else (None, {})
    folder, figures = done.path.parent, summary(done.report, done.verdict)
    try:
        logged = sources.registry(project).log_load_report(model, folder, {**named, **config}, figures)
    except Exception as error:  # the client has many kinds
        _tell(f"W&B did not take the report: {error}")
        return ""
    _tell(f"the report is {logged} in W&B")
    return logged


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201
