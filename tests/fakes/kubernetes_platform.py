"""A KubernetesPlatform against the fake API server in this process, on its virtual clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from lightkube import KubeConfig
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster as KubeServer
from lightkube.config.models import User

from ekiben.environments import Environment
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.manifests import groups
from ekiben.platforms.manifests.names import Target
from ekiben.types import BentoRef, ModelVersion, Release
from tests.fakes.kubernetes.clock import EPOCH
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import transport

SETTINGS: dict[str, Any] = {"runtime_image": "registry.example/runtime:1", "replicas": {"min": 2, "max": 10}}


def target(**settings: Any) -> Target:
    return Target("digits", "test", Environment.model_validate({**SETTINGS, **settings}))


def bento(number: int) -> BentoRef:
    model = ModelVersion.parse(f"acme/vision/digits:v{number}", f"{number:032x}")
    return BentoRef(name="digits", version=f"b{number}", digest=f"{number:064x}", model=model)


def set_up(cluster: Cluster, wanted: Target) -> None:
    """What an administrator applies once."""
    for manifest in groups.setup(wanted):
        cluster.create(manifest, wanted.settings.namespace)


def platform(
    cluster: Cluster,
    wanted: Target,
    *,
    before: Callable[[str, str], None] | None = None,
    sleep: Callable[[float], None] | None = None,
    token: str = "",
    **more: Any,
) -> KubernetesPlatform:
    def now() -> datetime:
        return EPOCH + timedelta(seconds=cluster.clock.seconds)

    sleep = sleep or cluster.advance
    api = Api(config(token), transport(cluster, before), sleep, more.get("say", lambda line: None))
    return KubernetesPlatform(api, wanted, now=now, sleep=sleep, **more)


def config(token: str = "") -> SingleConfig:
    """Of a server without TLS: reading the authorities' certificates would take a third of a test's time."""
    server = KubeServer(server="http://cluster.invalid", insecure=True)
    found = KubeConfig.from_one(cluster=server, user=User(token=token or None)).get()
    assert found
    return found


def release(place: KubernetesPlatform, number: int, by: str = "anna") -> Release:
    now = datetime.now(UTC)
    return Release(service="digits", slot=place.observe().idle, bento=bento(number), time=now, by=by)


def deploy(place: KubernetesPlatform, number: int) -> None:
    place.stage(bento(number), "test")
    place.switch(release(place, number))
    place.retire()
