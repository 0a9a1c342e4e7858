"""What goes wrong: it is said what and what to do, the exit code tells its kind, and what is live stays as it was."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.kubernetes.admin import until
from tests.e2e.kubernetes.load import loaded
from tests.e2e.kubernetes.service import ENV, Service
from tests.e2e.kubernetes.settings import Image
from tests.e2e.kubernetes.world import World

pytestmark = pytest.mark.timeout(1800)

NOWHERE = Image("127.0.0.1:1/nobody/has-it", "", f"sha256:{'0' * 64}")
"""Asked for by a node, its registry refuses the connection at once; nothing leaves the node."""


FORGET = {"metadata": {"managedFields": [{}]}}
"""Merged into an object: nobody has applied it."""


@contextmanager
def stays(service: Service) -> Iterator[None]:
    """What is live stays, answers all the time, and nothing is left running beside it."""
    before, pods = service.live(), service.ready()
    with loaded(service):
        yield
    assert (service.live(), service.ready()) == (before, pods)
    service.sizes_are_restored()


@pytest.mark.parametrize(
    ("pull", "said", "mend"),
    [
        ("Never", "not present with pull policy of Never", "load it into every node"),
        ("IfNotPresent", "127.0.0.1:1", "is the image pushed, and its registry's Secret in image_pull_secrets?"),
    ],
    ids=["never", "refused"],
)
def test_an_image_that_cannot_be_pulled(digits: Service, pull: str, said: str, mend: str) -> None:
    number = digits.release(image=NOWHERE)
    with stays(digits):
        root = digits.other_settings(image_pull_policy=pull, image_by="digest")
        done = digits.deploy(number, code=4, root=root)
    assert "cannot pull 127.0.0.1:1/nobody/has-it@sha256:000" in done.err
    assert said in done.err
    assert mend in done.err


def test_a_container_that_crashes(digits: Service) -> None:
    with stays(digits):
        root = digits.other_settings(env={"PYTHONHOME": "/nonexistent"})
        done = digits.deploy(code=4, root=root)
    assert "crashed" in done.err
    assert "exit code 1" in done.err
    assert "Fatal Python error" in done.err, "the last lines of its log"


def test_a_quota_that_is_exceeded(digits: Service) -> None:
    admin = digits.world.admin
    until(
        "what ends has ended", lambda: not any("deletionTimestamp" in p["metadata"] for p in admin.items("pods")), 180
    )
    hard = {"pods": str(len(admin.items("pods")))}
    admin.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}})
    until("the quota is heeded", lambda: admin.get("resourcequotas", "small").get("status", {}).get("hard") == hard)
    try:
        with stays(digits):
            done = digits.deploy(code=4)
    finally:
        admin.delete("resourcequotas", "small")
    assert "exceeded quota: small" in done.err
    assert "raise the ResourceQuota" in done.err


def test_no_permission(digits: Service) -> None:
    """Who may do nothing any more is told which verb on what he lacks, and the rule that would grant it."""
    admin, name = digits.world.admin, "digits-deployer"
    api = "rbac.authorization.k8s.io/v1"
    binding = admin.get("rolebindings", name, api)
    admin.delete("rolebindings", name, api)
    try:
        digits.wait_allowed(False)
        done = digits.deploy(code=2)
        status = digits.ekiben("status", "digits", "--env", ENV, code=2)
    finally:
        kept = {key: binding["metadata"][key] for key in ("name", "labels")}
        admin.apply({**{key: binding[key] for key in ("apiVersion", "kind", "roleRef", "subjects")}, "metadata": kept})
        digits.wait_allowed(True)
    for each in (done, status):
        assert "not allowed to get " in each.err
        assert f"in {digits.world.namespace}: " in each.err
        assert "a Role with this rule: {apiGroups: [" in each.err
        assert "ekiben render" in each.err
    digits.sizes_are_restored()


def test_one_verb_that_is_missing(digits: Service) -> None:
    """The candidate cannot be asked; what was begun is ended again."""
    admin, path = (
        digits.world.admin,
        digits.world.admin.path("rbac.authorization.k8s.io/v1", "roles", "digits-deployer"),
    )
    rules = admin.request("GET", path)["rules"]
    admin.merge(path, {"rules": [rule for rule in rules if rule["resources"] != ["services/proxy"]]})
    try:
        digits.wait_allowed(False, "create", "services", "digits-preview:http", "proxy")
        with stays(digits):
            done = digits.deploy(code=2)
    finally:
        admin.merge(path, {"rules": rules})
        digits.wait_allowed(True, "create", "services", "digits-preview:http", "proxy")
    assert "not allowed to create services/proxy in " in done.err
    assert "resources: [services/proxy], verbs: [create], resourceNames: ['digits-preview:http']" in done.err


def test_a_wrong_answer(digits: Service) -> None:
    root = digits.other_settings()
    digits.wrong_golden(root / "golden.json")
    with stays(digits):
        done = digits.ekiben(*digits.deploying(digits.release(), golden=root / "golden.json"), code=10)
    assert "no-such-key is missing" in done.out


def test_a_service_of_somebody_else(world: World) -> None:
    """It has the name that ours would have; not a byte of it is changed."""
    service = world.service("taken", made=False)
    port = {"name": "web", "port": 80, "protocol": "TCP", "targetPort": 8080}
    theirs: Any = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken", "labels": {"app.kubernetes.io/managed-by": "Helm"}},
        "spec": {"selector": {"app": "theirs"}, "ports": [port]},
    }
    before = world.admin.create(theirs)
    for command in (service.deploying(service.release()), ("status", "taken", "--env", ENV)):
        done = service.ekiben(*command, code=2)
        assert f"the Service taken in {world.namespace} is not ekiben's: it was left alone" in done.err
    assert world.admin.get("services", "taken") == before
    assert not world.admin.items("deployments", "ekiben.dev/service=taken", "apps/v1")
    service.remove()


def test_a_selector_that_somebody_applies(digits: Service) -> None:
    """As Argo CD would, whose next apply would undo a switch. What is said of it mends it."""
    admin, before = digits.world.admin, digits.live()
    selector = {"ekiben.dev/service": "digits", "ekiben.dev/slot": before.slot}
    thing = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits"}, "spec": {"selector": selector}}
    admin.apply(thing, manager="argocd-controller")
    try:
        said = digits.deploy(code=2).err
    finally:
        admin.merge(admin.path("v1", "services", "digits"), FORGET)
    assert "is applied by argocd-controller too: it was left alone" in said
    assert f"kubectl patch service digits --type merge -p '{json.dumps(FORGET, separators=(',', ':'))}'" in said
    assert digits.live() == before
    digits.deploy()
    digits.sizes_are_restored()


def test_who_is_not_known(digits: Service) -> None:
    good = digits.kubeconfig.read_text()
    digits.kubeconfig.write_text(good.replace("token: ", "token: not-"))
    try:
        done = digits.ekiben("status", "digits", "--env", ENV, code=2)
    finally:
        digits.kubeconfig.write_text(good)
    assert "does not accept the credentials" in done.err
