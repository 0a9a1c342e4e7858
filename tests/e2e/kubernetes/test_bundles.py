"""Bentos that come as bundles: an init container of the runtime image fetches what was published, and checks it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kubernetes.load import loaded
from tests.e2e.kubernetes.service import ENV, Service
from tests.e2e.kubernetes.settings import Bundle
from tests.e2e.kubernetes.world import World

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def bundle(world: World) -> Bundle:
    if world.settings.bundle is None:
        pytest.skip("no bundle: EKIBEN_E2E_RUNTIME_IMAGE not set (see tests/e2e/kubernetes/settings.py)")
    return world.settings.bundle


@pytest.fixture
def service(world: World, bundle: Bundle) -> Service:
    """The Bento's service, with the Secret that the README speaks of, and something live."""
    if not any(each["metadata"]["name"] == "wandb" for each in world.admin.items("secrets")):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wandb"}}
        world.admin.create({**secret, "stringData": {"api-key": bundle.key}})
    service = world.service(bundle.bento["name"])
    if not service.live().versions:
        service.deploy()
    return service


def deploying(service: Service, bento: dict[str, Any]) -> tuple[tuple[str, ...], Path]:
    """The command line, and the project with the settings that it needs."""
    bundle = service.world.settings.bundle
    assert bundle
    root = service.other_settings(runtime_image=bundle.runtime_image, wandb_base_url=bundle.url)
    (root / "bento.json").write_text(json.dumps(bento))
    given = ("--bento", str(root / "bento.json"), "--golden", str(root / "golden.json"))
    return ("deploy", service.name, "--env", ENV, *given, "--no-alias"), root


def test_a_bundle_takes_over_from_an_image_and_back(service: Service, bundle: Bundle) -> None:
    before = service.live()
    command, root = deploying(service, bundle.bento)
    with loaded(service):
        service.ekiben(*command, root=root)
        there = service.live()
        assert (there.slot, there.epoch) == (before.idle, before.epoch + 1)
        service.sizes_are_restored()
        service.ekiben("rollback", service.name, "--env", ENV, "--no-alias")
    assert service.live().version == before.version
    service.sizes_are_restored()


def test_a_bundle_that_is_not_what_its_digest_says(service: Service, bundle: Bundle) -> None:
    before = service.live()
    command, root = deploying(service, {**bundle.bento, "digest": "f" * 64})
    with loaded(service):
        done = service.ekiben(*command, code=4, root=root)
    assert "fetch in " in done.err
    assert "exit code 5" in done.err
    assert "digest" in done.err, "the last lines of the init container's log"
    assert service.live() == before
    service.sizes_are_restored()
