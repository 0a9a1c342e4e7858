"""What each step of the release pipeline does. A stage takes and returns values of `ekiben.types`; where it runs, and
how its values travel, is the workflow's business.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ekiben.config import Project
from ekiben.errors import EkibenError
from ekiben.packaging import store
from ekiben.pipeline import measuring, sources
from ekiben.recipe import GOLDEN, Example
from ekiben.types import BentoRef, Check, ModelVersion, Outcome, Probe, Release, Verdict

if TYPE_CHECKING:
    from ekiben.platforms.kubernetes.platform import KubernetesPlatform
    from ekiben.platforms.local import LocalPlatform

RUN_FOLDER = "EKIBEN_RUN_FOLDER"
"""Where a run on this machine keeps its files; a report goes there."""

PROBED = 1_000
"""Requests that must be answered while traffic is switched, before the switch is called clean."""


def platform(project: Project, service: str) -> "LocalPlatform":
    from ekiben.platforms.local import LocalPlatform

    return LocalPlatform(project.state, service, project.settings.port)


def train(name: str, params: Mapping[str, str]) -> ModelVersion:
    """Train the recipe's model, evaluate it on its hold-out data and log it with its metrics as a new version."""
    from ekiben.packaging import lineage, pickles
    from ekiben.pipeline import fingerprint

    project = Project.here()
    made = sources.recipe(project, name)
    values = made.with_params(params)
    split = made.data(values)
    model = made.train(split, values)
    evaluation = made.evaluate(model, split)
    with tempfile.TemporaryDirectory() as folder:
        made.save(model, split, Path(folder))
        _write_golden(Path(folder) / GOLDEN, made.route, made.examples(model, split))
        pickles.refuse(Path(folder), made.pickles)
        commit, dirty = lineage.git(project.root)
        metadata = {"git": f"{commit}-dirty" if dirty else commit, "data": fingerprint.of(split)}
        return sources.registry(project).log(made.name, values, evaluation, Path(folder), metadata)


def _write_golden(path: Path, route: str, examples: list[Example]) -> None:
    answers = [{"request": example.request, "response": example.response} for example in examples]
    path.write_text(json.dumps({"version": 1, "route": route, "examples": answers}))


def gate(name: str, model: str) -> Verdict:
    """Judge the model's own metrics, as W&B has them, by the recipe's thresholds and against production's."""
    from ekiben import gate
    from ekiben.registry import PRODUCTION

    project = Project.here()
    tracked = sources.registry(project)
    candidate = ModelVersion.model_validate_json(model)
    production = tracked.find(candidate.name, PRODUCTION)
    live = tracked.metrics(production) if production else None
    return gate.judge(tracked.metrics(candidate), sources.recipe(project, name).thresholds, live, str(candidate))


def package(name: str, model: str) -> BentoRef:
    """Bring the model, verified, into the BentoML store and build the Bento that pins it."""
    from ekiben.pipeline import packages

    return packages.build(Project.here(), name, ModelVersion.model_validate_json(model))


def load_test(bento: str, slo: list[str], run: str) -> tuple[Verdict, str]:
    """Place the Bento in the idle slot, load it there and judge. Returns the verdict and the report's folder."""
    project = Project.here()
    candidate = BentoRef.model_validate_json(bento)
    measuring.objectives(project, slo, candidate.name)  # refused before anything is started
    place = platform(project, candidate.name)
    slot = place.stage(candidate, run)
    seen = place.observe()
    live = None
    if seen.active is not None:
        url = f"http://{seen.slots[seen.active.slot].address}" if seen.active.slot in seen.ready else ""
        live = measuring.Beside(seen.active.bento, url)
    out = Path(os.environ.get(RUN_FOLDER) or tempfile.mkdtemp()) / "report"
    return measuring.measure(project, candidate, slot.url, live, slo, out, run), str(out)


def deploy(bento: str, report: str, run: str, by: str) -> tuple[Release, Probe]:
    """Switch traffic to the candidate in the idle slot while a prober asks the service without pause.

    What is live already stays as it is: its own release comes back.
    """
    from ekiben.loadtest.prober import Prober
    from ekiben.registry import PRODUCTION

    project = Project.here()
    candidate = BentoRef.model_validate_json(bento)
    place = platform(project, candidate.name)
    before = place.observe()
    live = before.active
    release = Release(
        service=candidate.name,
        slot=before.idle,
        bento=candidate,
        load_report=str(Path(report) / "report.json"),
        time=datetime.now(UTC),
        by=by or run,
        run=run,
    )
    tracked = sources.registry(project)
    production = tracked.find(candidate.model.name, PRODUCTION)
    if live is not None and live.bento == candidate:
        release = live  # the same training gave the same model: it stays the release that it is
    if live is None:  # nothing answers yet, so there is nothing to ask before the switch
        place.switch(release)
    with Prober(place.url, [store.golden(b) for b in (live and live.bento, candidate) if b]) as prober:
        if live is not None:
            prober.wait_for(PROBED // 4)
            place.switch(release)
        prober.wait_for(PROBED)
        probe = prober.stop()
    tracked.promote(candidate.model, instead_of=production)
    if release.run == run:  # not what was live already
        made = {"bento": candidate.tag, "release": f"{release.service} in {release.slot}", "run": run, "by": release.by}
        tracked.record(candidate.model, "deploy", made)
    return release, probe


def watch(release: str, seconds: float) -> tuple[Verdict, Probe]:
    """Ask the new release for `seconds`. Keep it and end the old slot, or put the old release back."""
    from ekiben.loadtest.prober import Prober

    project = Project.here()
    new = Release.model_validate_json(release)
    place = platform(project, new.service)
    previous = place.observe().previous
    with Prober(place.url, [store.golden(b) for b in (new.bento, previous and previous.bento) if b]) as prober:
        time.sleep(seconds)
        verdict = _judge_probe(prober.so_far(), str(new.bento))
        if verdict.passed:
            place.retire()
        else:
            roll_back(project, place, by=f"watch of {new.bento}")
        probe = prober.stop()
    return verdict, probe


def _judge_probe(probe: Probe, subject: str) -> Verdict:
    seen = f"{probe.failed:,} of {probe.requests:,} requests failed"
    if probe.failed:
        seen += f" ({probe.first_failure})"
    outcome = Outcome.INCONCLUSIVE if probe.requests < 100 else Outcome.FAIL if probe.failed else Outcome.PASS
    return Verdict.of([Check(name="live requests", outcome=outcome, seen=seen, wanted="none of at least 100")], subject)


def roll_back(project: Project, place: "LocalPlatform | KubernetesPlatform", by: str) -> Release:
    """Put the previous release back, then move W&B's alias with it. Traffic first: it does not wait for the tracker."""
    restored = place.rollback(by)
    follow_back(project, restored)
    return restored


def follow_back(project: Project, release: Release, refused: ModelVersion | None = None) -> None:
    """As `promote`, after a rollback, which stands whatever becomes of W&B: what fails there is said on standard error
    only. With `refused`, the alias moves only from that model: it was given to it before its release was judged."""
    from ekiben.registry import PRODUCTION

    try:
        if refused in (None, sources.registry(project).find(release.bento.model.name, PRODUCTION)):
            promote(project, release)
    except EkibenError as error:
        sys.stderr.write(f"warning: {error}\nmove the alias {PRODUCTION} to {release.bento.model} by hand\n")


def promote(project: Project, release: Release) -> None:
    """Move W&B's alias to what is live already, from wherever it is: traffic has been switched, and W&B follows."""
    from ekiben.registry import PRODUCTION

    model = release.bento.model
    try:
        tracked = sources.registry(project)
        tracked.promote(model, instead_of=tracked.find(model.name, PRODUCTION))
    except EkibenError as error:
        error.seen = f"traffic goes to {release.bento} in {release.slot}, but W&B's alias did not follow: {error.seen}"
        raise


def switch_over(place: "LocalPlatform | KubernetesPlatform", release: Release) -> None:
    """Make live what the idle slot holds (`rollout.plan.held_again`), started where it was stopped."""
    from ekiben.platforms.local import LocalPlatform

    if isinstance(place, LocalPlatform):
        place.stage(release.bento, release.by)
    else:
        place.stage(place.delivery(release.bento), release.by)
    place.switch(release)


def conclude(name: str, run: str, status: str) -> None:
    """Exit handler. After a run that did not succeed nothing of it stays: its release is taken back, its candidate
    ended."""
    project = Project.here()
    if status == "Succeeded":
        return
    place = platform(project, name)
    seen = place.observe()
    if seen.active and seen.active.run == run and seen.previous:
        roll_back(project, place, by=f"exit of {run}")
    place.retire()


def example(place: "LocalPlatform") -> dict[str, Any]:
    """A request to try and its answer, from the live model's golden ones; empty while nothing is live."""
    active = place.observe().active
    if active is None:
        return {}
    answers = json.loads(store.golden(active.bento).read_text())
    return {"route": answers["route"], **answers["examples"][0]}
