"""What the normal user is told of the cluster, and of his own rights there."""

import re

import pytest

from tests.e2e.kubernetes.service import ENV, Service

pytestmark = pytest.mark.timeout(600)


def test_nothing_lacks_that_a_deploy_needs(digits: Service) -> None:
    """Argo, which is not looked at here, may; so may W&B, which is nowhere, and what only administrators see."""
    told = digits.start("doctor", "digits", "--env", ENV).ended().out
    for name in ("API server", "login", "may deploy digits"):
        assert re.search(rf"^ok +{name} ", told, re.MULTILINE), told
    assert f"system:serviceaccount:{digits.world.namespace}:digits-deployer" in told
