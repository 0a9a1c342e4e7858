"""The release on a cluster, from data to switched traffic and back, as a team does it: an administrator installs by the
README, a user with no more rights than `ekiben doctor` asks for submits, watches, approves and stops.

Twice, by the same steps. `fake`: on fakes of the API server and of Argo's controller; tracker, steps and model servers
are real (fake.py). `real`: on a real cluster with a real Argo, only where KUBECONFIG and EKIBEN_E2E_PIPELINE_IMAGE are
set; settings.py says what they and others mean.

What it shows: the documented rights are enough, and each step needs only its own; no step needs what another left on a
disk; nobody notices a switch; a release that nobody could judge is taken back and its candidate ends; a refused model,
a rejected or stopped run changes nothing; a rollback goes back; unchanged data are not trained again; what is over is
cleared away, its pods and in the end itself.
"""

import os
import time
from collections.abc import Iterator

import pytest

from tests.e2e.argo import fake, real, settings
from tests.e2e.argo.world import SLO, STRICT, TTL_S, WORKFLOWS, World
from tests.e2e.kubernetes.admin import until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(7200)]
GIVEN = dict(os.environ)  # as it was before any test changed it


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("argo")
    if request.param == "fake":
        with fake.world(folder) as made:
            yield made
        return
    if why := settings.missing(GIVEN):
        pytest.skip(why)
    with real.world(folder, settings.Settings.read(GIVEN)) as made:
        yield made


def test_it_is_installed_and_the_doctor_finds_nothing(world: World) -> None:
    said = world.install_workflows()
    assert said.count(": created") == len(WORKFLOWS), said
    assert world.install_workflows(again=True).count(": unchanged") == len(WORKFLOWS)
    world.hire("user")
    # A registry is asked only where images are pulled; without memoize everything but retraining works.
    passed_over = ("registry", "memoized steps")
    bad = [each for each in world.doctor().values() if each["outcome"] == "fail"]
    assert [each for each in bad if not each["name"].startswith(passed_over)] == []


def test_a_release_a_second_one_the_way_back_and_one_that_nobody_could_judge(world: World) -> None:
    with world.asking() as seen:
        first = world.release(by="ada")
        following = world.start("workflow", "logs", first, "--env", "e2e", "--step", "train", "--follow", who="user")
        world.ends(first)
        begun = len(seen)
        log, _ = following.communicate(timeout=60)
        assert "digits:v0" in log, log
        second = world.release(params='{"C": "0.5"}', approval="yes")
        world.reaches(second, "ask")
        world.cli("approve", second, "--env", "e2e", "--by", "eve", "--why", "looks fine", who="user")
        world.ends(second)
        live = world.live()
        assert [each["by"] for each in live] == ["ada", second]
        assert live[0]["bento"]["model"]["version"] != live[1]["bento"]["model"]["version"]
        assert world.replicas() == [0, 1]
        back = world.submit("rollback-on-cluster", environment="e2e", by="bob")
        world.ends(back)
        over = time.monotonic()
        assert world.live()[-1]["bento"] == live[0]["bento"]
        assert set(seen[begun:]) == {200}, "nobody notices a switch"
    before = world.live()[-1]["bento"]
    unseen = world.release(params='{"C": "0.7"}', environment=STRICT)
    ended = world.ends(unseen, code=11)
    assert "go-live" in ended.stderr
    assert world.live()[-1]["bento"] == before, world.told()
    assert world.phases(unseen)["conclude"] == "Succeeded"
    assert world.replicas() == [0, 1]
    gone = lambda: world.is_gone("workflows", back, "argoproj.io/v1alpha1")  # noqa: E731
    until(f"{back} is deleted", gone, max(0.0, over + TTL_S - time.monotonic()) + 120)
    assert "no Workflow" in world.cli("workflow", "watch", back, "--env", "e2e", who="user", code=3).stderr


def test_pods_that_did_well_are_cleared_away_and_their_logs_with_them(world: World) -> None:
    run = world.release(params='{"label_noise": "0.9"}')
    ended = world.ends(run, code=10)
    assert "gate" in ended.stderr
    phases = world.phases(run)
    assert (phases["train"], phases["gate"], phases["package"]) == ("Succeeded", "Failed", "Omitted")
    node = world.look(run)
    train = next(step for step in node.steps if step.called("train"))
    until("the pod of train is gone", lambda: not [
        each for each in world.at_pipelines.items("pods", f"workflows.argoproj.io/workflow={run}")
        if each["metadata"]["annotations"]["workflows.argoproj.io/node-id"] in train.attempts
    ], 120)  # fmt: skip
    told = world.cli("workflow", "logs", run, "--env", "e2e", "--step", "train", who="user", code=3).stderr
    assert "podGC" in told
    assert "FAIL" in world.cli("workflow", "logs", run, "--env", "e2e", "--step", "gate", who="user").stdout


def test_a_rejected_release_and_one_that_is_stopped_change_nothing(world: World) -> None:
    before = world.live()
    rejected = world.release(approval="yes")
    stopped = world.release(approval="yes")
    world.reaches(stopped, "ask")
    world.cli("workflow", "stop", stopped, "--env", "e2e", who="user")
    world.reaches(rejected, "ask")
    world.cli("reject", rejected, "--env", "e2e", "--by", "eve", "--why", "wrong data", who="user")
    assert "not approved" in world.ends(rejected, code=8).stderr
    assert "stop" in world.ends(stopped, code=8).stderr.lower()
    for run in (rejected, stopped):
        assert world.phases(run)["conclude"] == "Succeeded", world.told()
        assert world.phases(run).get("package") in (None, "Omitted")
    assert world.live() == before


def test_unchanged_data_cost_one_look(world: World) -> None:
    may = world.doctor()["memoized steps"]
    if may["outcome"] != "ok":
        pytest.skip(f"{may['seen']}; {may['next_step']}")
    given = {"environment": "e2e", "delivery": "bundle", "slo": SLO, "params": '{"C": "0.3"}'}
    with world.asking():
        first = world.submit("workflows/retrain.yaml", **given)
        world.ends(first)
        released = world.live()[-1]
        again = world.submit("workflows/retrain.yaml", **given)
        world.ends(again)
    phases = world.phases(again)
    assert (phases["look"], phases["train"], phases["ship"]) == ("Succeeded", "Succeeded", "Skipped")
    (train,) = [step for step in world.look(again).steps if step.called("train")]
    assert "known already" in train.why
    assert train.attempts == ()
    assert world.live()[-1] == released
