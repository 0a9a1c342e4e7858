"""What the steps of a release do in a cluster, where each pod has only its values, W&B and the API server."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ekiben.config import Project
from ekiben.errors import EkibenError, IntegrityError
from ekiben.loadtest.golden import Golden
from ekiben.packaging import store
from ekiben.pipeline import measuring, packages, placement, sources, stages
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.deliver import Trial, deliver
from ekiben.platforms.kubernetes.kubeconfig import configured
from ekiben.platforms.kubernetes.look import look_at_live
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.smoke import smoke
from ekiben.platforms.kubernetes.watch import watch
from ekiben.platforms.manifests.names import Delivery, Target, bento_of
from ekiben.types import BentoRef, ImageRef, ModelVersion, Outcome, Release, Verdict

if TYPE_CHECKING:
    from ekiben.packaging import image as images


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Errors that a person can meet as the command line shows them, with an exit code by kind: a workflow asks again
    where the code says that something did not answer, or was changed meanwhile."""
    try:
        yield
    except EkibenError as error:
        print(f"ekiben: {error}", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(error.exit_code) from None


def platform(project: Project, service: str, env: str, run: str) -> KubernetesPlatform:
    """The service in that environment; steps of one run share what they claim there."""
    target = Target(service, env, project.environment(env, service))
    return KubernetesPlatform(Api(configured(target.settings.context), say=_say), target, holder=run, say=_say)


def plan(recipe: str, params: Mapping[str, str], slo: list[str], env: str) -> placement.Placement:
    """Where the heavy steps run. What cannot work is refused here, before a node is started for it."""
    project = Project.here()
    sources.recipe(project, recipe).with_params(params)
    measuring.objectives(project, slo, recipe)
    return placement.of(project.environment(env, recipe))


def package(recipe: str, model: str) -> BentoRef:
    """Build the Bento and publish it to W&B, from where the other pods fetch it."""
    project = Project.here()
    bento = packages.build(project, recipe, ModelVersion.model_validate_json(model))
    packages.publish(project, bento)
    return bento


def image(bento: str, env: str, repository: str) -> ImageRef:
    """Append the published Bento to its runtime image and push it; its digest is the registry's."""
    from ekiben.packaging import engines
    from ekiben.packaging import image as images

    project, ref = Project.here(), BentoRef.model_validate_json(bento)
    _fetch(project, ref)
    place = _place(project, ref.name, env, repository, project.environment(env, ref.name).runtime_image)
    with tempfile.TemporaryDirectory() as folder:  # what the SBOM lists stands in the Bento's lock
        return images.build(store.existing_bento(ref.tag), place, engines.APPEND, Path(folder) / "sbom").image


def runtime(recipe: str, env: str, repository: str) -> "images.Runtime":
    """Build and push the image that the recipe's Bentos are appended to. This alone runs commands in an image."""
    project = Project.here()
    place = _place(project, recipe, env, repository, project.settings.base_image)
    with tempfile.TemporaryDirectory() as folder:  # the image holds its own SBOM
        return packages.build_runtime(project, recipe, place, "", Path(folder) / "sbom")


def _place(project: Project, name: str, env: str, repository: str, base: str) -> "images.Place":
    from ekiben.packaging import image as images

    registry = project.environment(env, name).image_repository or project.settings.image_registry
    return images.Place(base, repository or f"{registry}/{name}", True, project.settings.insecure_registries)


def stage(delivery: str, env: str, run: str) -> tuple[Verdict, str, str]:
    """Make it ready in the idle colour and smoke-test it there. Returns the verdict, the candidate's address, which is
    empty where it is live already, and, as JSON, what is live beside it; '' where nothing is."""
    project, delivered = Project.here(), parsed(delivery)
    bento = bento_of(delivered)
    place = platform(project, bento.name, env, run)
    place.brings(delivered)
    try:
        endpoint = place.stage(delivered, run)
        seen = place.last_seen()
        if endpoint.slot == seen.selector:
            return Verdict(outcome=Outcome.PASS, subject=f"{bento}, live already"), "", ""
        verdict = smoke(place, endpoint.slot, _golden(project, bento))
    except EkibenError:
        with contextlib.suppress(EkibenError):  # the first one says what is wrong
            place.retire()
        raise
    return verdict, endpoint.url, seen.active.bento.model_dump_json() if seen.active else ""


def load_test(delivery: str, address: str, live: str, env: str, slo: list[str], run: str) -> tuple[Verdict, str]:
    """Load the candidate at its own address, and judge. Returns the verdict and the report's folder in this pod; W&B
    has the report."""
    project, bento = Project.here(), bento_of(parsed(delivery))
    if not address:
        return Verdict(outcome=Outcome.PASS, subject=f"{bento}, live already"), ""
    _fetch(project, bento)
    beside = None
    if live:
        old = BentoRef.model_validate_json(live)
        _fetch(project, old)
        target = Target(bento.name, env, project.environment(env, bento.name))
        beside = measuring.Beside(old, f"http://{target.name}.{target.settings.namespace}.svc")
    out = Path(tempfile.mkdtemp()) / "report"
    return measuring.measure(project, bento, address, beside, slo, out, run), str(out)


def go_live(delivery: str, env: str, run: str, by: str, report: str) -> Verdict:
    """Switch to the candidate, watch it, and keep it or take it back, just as `ekiben deploy`. W&B's alias follows what
    is kept. Run again after it was cut off, it goes on."""
    project, delivered = Project.here(), parsed(delivery)
    bento = bento_of(delivered)
    place = platform(project, bento.name, env, run)
    settings = place.target.settings
    place.brings(delivered)
    release = Release(
        service=bento.name,
        slot="blue",
        bento=bento,
        image=str(delivered) if isinstance(delivered, ImageRef) else "",
        load_report=report,
        time=datetime.now(UTC),
        by=by or run,
        run=run,
    )
    percent = settings.canary_percent
    since, answers = look_at_live(place), _golden(project, bento)
    verdict = deliver(
        place,
        delivered,
        release,
        lambda slot: smoke(place, slot, answers),
        lambda: watch(place, place.hold.live_slot(), _say, since=since, golden=answers),
        hold=settings.watch.inconclusive == "hold",
        trial=Trial(percent, lambda slot: watch(place, slot, _say, since=since, golden=answers)) if percent else None,
    )
    if verdict.passed and (active := place.last_seen().active):
        stages.promote(project, active)
        made = {"bento": bento.tag, "release": f"{active.service} in {active.slot}", "run": run, "by": active.by}
        sources.registry(project).record(bento.model, "deploy", made)
    elif (active := place.last_seen().active) and active.bento.model != bento.model:
        stages.follow_back(project, active, refused=bento.model)
    return verdict


def rollback(service: str, env: str, by: str) -> Release:
    """What was live before is live again, and W&B's alias follows."""
    project = Project.here()
    place = platform(project, service, env, "")
    restored = stages.roll_back(project, place, by=by)
    place.retire()
    return restored


def conclude(service: str, env: str, run: str, status: str, failures: str = "") -> None:
    """Exit handler: what a run left unfinished is taken back, and whoever wants to know is told, at the address in
    EKIBEN_NOTIFY_URL, where there is one. `failures` is Argo's list of the nodes that failed."""
    project = Project.here()
    try:
        if status != "Succeeded":
            place = platform(project, service, env, run)
            restored = settle(place, run)
            if restored is not None:
                stages.follow_back(project, restored)
    finally:
        told = {"service": service, "environment": env, "run": run, "status": status}
        _notify({**told, "failed": _failed(failures)})


def settle(place: KubernetesPlatform, run: str) -> Release | None:
    """After a run that was cut off: a release of it that was not watched to its end goes back, if there is one to go
    back to, and a candidate of it ends. Returns what is live again.

    A run that was judged has let go of its claims, and nothing is done; nor with another run's candidate; nor where
    the environment holds what nobody could judge, for a person to decide.
    """
    seen = place.observe()
    mine = any(slot.claim.endswith(f"({run})") for slot in seen.slots.values())
    kept = place.target.settings.watch.inconclusive == "hold" and seen.active is not None and seen.active.run == run
    if not mine or kept:
        return None
    restored = None
    if seen.canary:
        place.end_own_canary(f"exit of {run}")
    elif seen.active and seen.active.run == run and seen.previous:
        restored = place.take_back(seen.active.bento, f"exit of {run}")
    place.retire()
    return restored


def parsed(delivery: str) -> Delivery:
    """An image where the document has one, else the Bento, which pods fetch themselves."""
    return (ImageRef if '"repository"' in delivery else BentoRef).model_validate_json(delivery)


def _failed(failures: str) -> list[dict[str, str]]:
    """The steps that failed, each with its message. Argo quotes its list once more than it should: text of text."""
    found: Any = failures or "[]"
    with contextlib.suppress(ValueError):
        while isinstance(found, str):
            found = json.loads(found)
        return [{"step": each["displayName"], "message": each.get("message", "")} for each in found or []]
    return []


def _notify(what: dict[str, Any]) -> None:
    import httpx

    if not (url := os.environ.get("EKIBEN_NOTIFY_URL")):
        return
    try:
        httpx.post(url, json=what, timeout=10).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # the release stands all the same; its address is a secret
        _say(f"nobody was notified: {type(error).__name__}")


def _fetch(project: Project, bento: BentoRef) -> None:
    fetched = packages.pull_bento(project, f"{bento.name}:{bento.version}")
    if fetched.digest != bento.digest:
        raise IntegrityError(f"W&B holds {fetched.digest} as {bento}", wanted=bento.digest)


def _golden(project: Project, bento: BentoRef) -> Golden:
    _fetch(project, bento)
    return Golden.read(store.golden(bento))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
