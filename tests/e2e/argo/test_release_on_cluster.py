"""release-on-cluster and its fellows, from data to switched traffic and back: every step is really carried out.

Argo's controller and the API server are fakes here (tests/fakes/argo says what of Argo they do); steps run as Hera's
runner starts them in pods, each with a disk of its own, against a real tracker and real model servers.
The first release is delivered as an image, appended in a real registry where one is installed, the others as bundles.
What this shows: no step needs what another left on a disk; a release that nobody could judge is taken back and its
candidate ends; a rollback goes back; data that did not change are not trained again (Argo's memoize keeps outputs by
key) and nothing is released for them.
"""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ekiben.config import Project
from ekiben.errors import EkibenError, NotPassedError
from ekiben.packaging.distribution import Reference, Repository
from ekiben.pipeline import argo, definitions
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.cluster import Cluster
from ekiben.pipeline.argo.install import Place
from ekiben.platforms.kubernetes.api import Api, configured
from ekiben.platforms.manifests import groups
from ekiben.platforms.manifests.names import Target
from tests.contract.conftest import start_tracker
from tests.e2e import registries
from tests.e2e.argo.pods import MODELS, ROOT, Pods, asking
from tests.fakes.argo import controller as fake
from tests.fakes.argo.controller import Controller
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.fakes.kubernetes.traffic import ServiceProxy

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

NAMESPACE = "pipelines"
LONGEST = 600.0
ZERO = {"rows": [[0] * 64]}


class World:
    def __init__(self, pods: Pods, cluster: Any, client: Client, controller: Controller) -> None:
        self.pods, self.cluster, self.client, self.controller = pods, cluster, client, controller

    def run(self, name: str, **parameters: str) -> argo.Status:
        """The run's last state; the error of its step where it did not succeed."""
        run = argo.submit(name, parameters, client=self.client)
        try:
            return argo.wait(run, LONGEST)
        except EkibenError:
            self.last = argo.look(run)
            raise

    def live(self) -> list[dict[str, Any]]:
        """What was live, one after the other, as the active Service has it; the last one is live."""
        notes = self.cluster.get("services", "digits", MODELS)["metadata"]["annotations"]
        found: list[dict[str, Any]] = json.loads(notes["ekiben.dev/live"])
        return found

    def replicas(self) -> dict[str, int]:
        found = self.cluster.objects("deployments", MODELS)
        return {each["metadata"]["name"].rpartition("-")[2]: each["spec"]["replicas"] for each in found}

    def told(self) -> str:
        return "\n".join(f"--- {name}: {code}\n{text}" for name, code, text in self.pods.logs)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("argo")
    cluster = fake.cluster()
    for name in (NAMESPACE, MODELS):
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "")
    tracker, url = start_tracker(folder / "tracker")
    with ExitStack() as held, pytest.MonkeyPatch.context() as patch, served(cluster, speed=5) as server:
        kubeconfig = write_kubeconfig(folder / "kubeconfig", server, namespace=NAMESPACE)
        patch.setenv("KUBECONFIG", str(kubeconfig))
        pods = Pods(folder, url, kubeconfig)
        if registries.installed():
            pods.runtime = registries.push_base(held.enter_context(registries.registry(folder / "registry")))
        controller = Controller(cluster)
        controller.work = pods.work
        cluster.kubelet.behave("", backend=pods.backend)
        patch.chdir(pods.project("administrator"))
        target = Target("digits", "staging", Project.here().environment("staging", "digits"))
        for manifest in groups.setup(target):
            cluster.create(manifest, MODELS)
        api = Api(configured("fake"))
        templates = [definitions.load(Project(ROOT), n) for n in ("release_on_cluster", "rollback_on_cluster")]
        retrain = definitions.load(Project(ROOT), "retrain")
        by_hand = {**retrain, "kind": "WorkflowTemplate", "spec": retrain["spec"]["workflowSpec"]}
        Place(api, NAMESPACE).apply([*templates, by_hand])
        with ServiceProxy(cluster, "digits-preview", MODELS) as preview:
            pods.names[f"http://digits-preview.{MODELS}.svc"] = preview.url
            yield World(pods, cluster, Cluster(api, NAMESPACE), controller)
        pods.close()
    tracker.send_signal(signal.SIGTERM)
    tracker.wait(10)


def test_a_release_a_second_one_the_way_back_and_one_that_nobody_could_judge(world: World) -> None:
    with ServiceProxy(world.cluster, "digits", MODELS) as service:
        with asking(service.url, ZERO) as seen:
            try:
                delivery = "image" if registries.installed() else "bundle"
                repository = world.pods.runtime.replace("/runtime:1", "/digits")
                first = world.run("release-on-cluster", delivery=delivery, repository=repository, by="ada")
                assert first.phase == "Succeeded"
                (released,) = world.live()
                if delivery == "image":
                    with Repository(Reference.parse(repository)) as there:
                        digest = there.manifest(released["bento"]["version"]).digest
                    assert released["image"] == f"{repository}@{digest}"
                begun = len(seen) - 1
                second = world.run("release-on-cluster", delivery="bundle", params='{"C": "0.5"}')
            except EkibenError as error:
                pytest.fail(f"{error}\n{world.told()}", pytrace=False)
            assert [step.phase for step in second.steps if step.name.endswith("approve")] == ["Skipped"]
            live = world.live()
            assert [each["by"] for each in live] == ["ada", second.name]
            assert live[0]["bento"]["model"]["version"] != live[1]["bento"]["model"]["version"]
            assert sorted(world.replicas().values()) == [0, 1]
            world.run("rollback-on-cluster", by="bob")
            assert world.live()[-1]["bento"] == live[0]["bento"]
            assert set(seen[begun:]) == {200}, "nobody notices a switch"
        # Nobody asks any more: the watch sees nothing, and what nobody could judge does not stay.
        before = world.live()[-1]["bento"]
        with pytest.raises(NotPassedError, match=r"go-live"):
            world.run("release-on-cluster", delivery="bundle", params='{"C": "0.7"}')
        assert world.live()[-1]["bento"] == before, world.told()
        assert world.last.phase == "Failed"
        assert [step.exit_code for step in world.last.steps if step.name.endswith("go-live")] == [11]
        assert sorted(world.replicas().values()) == [0, 1]


def test_a_model_that_the_gate_refuses_goes_no_further(world: World) -> None:
    with pytest.raises(NotPassedError, match="gate"):
        world.run("release-on-cluster", delivery="bundle", params='{"label_noise": "0.9"}')
    phases = {step.name.rpartition(".")[2]: step.phase for step in world.last.steps}
    assert (phases["gate"], phases["package"]) == ("Failed", "Omitted")


def test_unchanged_data_cost_one_look(world: World, tmp_path: Path) -> None:
    with ServiceProxy(world.cluster, "digits", MODELS) as service, asking(service.url, ZERO):
        try:
            world.run("retrain", delivery="bundle", params='{"C": "0.3"}')
            released, done = world.live()[-1], len(world.pods.logs)
            again = world.run("retrain", delivery="bundle", params='{"C": "0.3"}')
        except EkibenError as error:
            pytest.fail(f"{error}\n{world.told()}", pytrace=False)
    assert [name for name, _, _ in world.pods.logs[done:]] == ["look", "conclude"]
    assert [step.phase for step in again.steps if step.name.endswith("ship")] == ["Skipped"]
    assert world.live()[-1] == released
