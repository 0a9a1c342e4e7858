"""One world, made in two ways: a cluster that somebody names, and the fake API server, so that the suite is tested."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.kubernetes import fake
from tests.e2e.kubernetes.service import Service
from tests.e2e.kubernetes.settings import Settings, missing
from tests.e2e.kubernetes.world import World, opened

REAL = [] if missing(os.environ) else [pytest.param("real", marks=pytest.mark.cluster)]
"""Where it lacks, test_cluster.py says so, once."""


@pytest.fixture(scope="session", params=["fake", *REAL])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with ExitStack() as stack:
        if request.param == "fake":
            settings = Settings.read(stack.enter_context(fake.cluster(folder)))
            yield stack.enter_context(opened(settings, folder, fake.LAUNCHER))
        else:
            yield stack.enter_context(opened(Settings.read(os.environ), folder))


@pytest.fixture
def digits(world: World) -> Service:
    """A service with something live, which nobody deploys."""
    service = world.service("digits")
    if not service.live().versions:
        service.deploy()
    return service
