"""One world, made in two ways: a cluster that somebody names, and the fake API server, so that the suite is tested."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.kubernetes import fake
from tests.e2e.kubernetes.settings import Settings, missing
from tests.e2e.kubernetes.world import Service, World, opened


@pytest.fixture(scope="session", params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with ExitStack() as stack:
        if request.param == "fake":
            given, launcher = stack.enter_context(fake.cluster(folder)), fake.LAUNCHER
        else:
            given, launcher = dict(os.environ), ()
            if why := missing(given):
                pytest.skip(why)
        yield stack.enter_context(opened(Settings.read(given), folder, launcher))


@pytest.fixture
def digits(world: World) -> Service:
    """A service with something live, which nobody deploys."""
    service = world.service("digits")
    if not service.live().versions:
        service.deploy()
    return service
