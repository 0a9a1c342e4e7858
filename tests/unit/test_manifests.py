"""Manifests: whatever settings are allowed, what comes out is valid, and keeps what the switch relies on."""

import copy
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import ValidationError as SchemaError
from pydantic import ValidationError

from ekiben.environments import Environment, EnvironmentTable
from ekiben.errors import UsageError
from ekiben.platforms.manifests import access, groups, names, shared, text, workload
from ekiben.platforms.manifests.names import Delivery, Target
from ekiben.types import SLOTS, BentoRef, ImageRef, ModelVersion, Release, Slot
from tests.manifest_checks import LABEL_VALUE, check

MODEL = ModelVersion.parse("acme/vision/digits:v3", "0123456789abcdef0123456789abcdef")
BENTO = BentoRef(name="digits", version="v3-1a2b3c4d", digest="1a" * 32, model=MODEL)
IMAGE = ImageRef(repository="registry.example/team/digits", digest=f"sha256:{'5e' * 32}", bento=BENTO)
BUNDLES = Environment(runtime_image="registry.example/runtime:1", service_monitor=True)
KEDA = {"autoscaling": {"kind": "keda"}, "prometheus": "http://prometheus:9090"}


def one(manifests: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    found = [m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"])]
    assert len(found) == 1
    return found[0]


# ---- whatever is allowed is valid

WORDS = st.text("abcXYZ019.-_/ :{}\"'$\n", max_size=12)
KEYS = st.one_of(WORDS, st.sampled_from(["kubernetes.io/arch", "a" * 63, "spot", "x.y/z", "y", "a" * 64]))
VALUES = st.one_of(WORDS, st.sampled_from(["amd64", "", "true", "1e3", "y", "z" * 63]))
LABELS = st.dictionaries(KEYS, VALUES, max_size=2)
NUMBERS = st.one_of(st.integers(-1, 70), st.sampled_from([300, 3600, 5000, 10**6]))
QUANTITIES = st.one_of(WORDS, st.sampled_from(["100m", "0.5", "2", "1.25", "0", "1Gi", "512Mi", "4G", "1e3", "007"]))
IMAGES = st.one_of(WORDS, st.sampled_from(["", "python", "r.example:5000/a/b_c:1.0", f"r.example/a@sha256:{'0' * 64}"]))
URLS = st.one_of(WORDS, st.sampled_from(["", "http://prometheus:9090", "https://p.example/prefix", "ftp://x"]))
NAMES = st.one_of(WORDS, st.sampled_from(["default", "models", "a" * 63, "9lives", "y"]))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "context": WORDS,
    "namespace": NAMES,
    "image_repository": IMAGES,
    "runtime_image": IMAGES,
    "fetch_image": IMAGES,
    "image_pull_secrets": st.lists(NAMES, max_size=2),
    "image_pull_policy": st.sampled_from(["", "Always", "IfNotPresent", "Never", "never"]),
    "image_by": st.sampled_from(["digest", "tag", ""]),
    "wandb_secret": NAMES,
    "wandb_base_url": URLS,
    "replicas": st.fixed_dictionaries({}, optional={"min": NUMBERS, "max": NUMBERS}),
    "resources": st.fixed_dictionaries(
        {},
        optional={
            "cpu": QUANTITIES, "cpu_limit": QUANTITIES, "memory": QUANTITIES, "scratch": QUANTITIES,
            "gpu": NUMBERS, "gpu_resource": KEYS,
        },
    ),
    "autoscaling": st.fixed_dictionaries(
        {"kind": st.sampled_from(["none", "cpu", "in-progress", "keda"])}, optional={"target": NUMBERS}
    ),
    "prometheus": URLS,
    "service_monitor": st.booleans(),
    "monitor_labels": LABELS,
    "http_route": NAMES,
    "watch": st.fixed_dictionaries({}, optional={"error_percent": st.floats(0, 101), "p99_ms": st.floats(-1, 10**6)}),
    "network": st.fixed_dictionaries(
        {},
        optional={
            "policy": st.booleans(), "egress": st.booleans(), "from_namespaces": st.lists(NAMES, max_size=2),
            "from_addresses": st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8", "10.0.0.1/8", "no"]), max_size=2),
        },
    ),
    "node_selector": LABELS,
    "tolerations": st.lists(
        st.fixed_dictionaries(
            {"key": KEYS},
            optional={
                "operator": st.sampled_from(["Exists", "Equal"]), "value": VALUES,
                "effect": st.sampled_from(["", "NoSchedule", "NoExecute"]),
            },
        ),
        max_size=2,
    ),
    "env": st.dictionaries(st.one_of(WORDS, st.sampled_from(["A", "HOME", "WANDB_API_KEY"])), VALUES, max_size=2),
    "start_seconds": NUMBERS,
    "longest_request_seconds": NUMBERS,
}  # fmt: skip
BASES: tuple[dict[str, Any], ...] = (
    {}, {"runtime_image": "r.example/x:1"}, KEDA, {**KEDA, "runtime_image": "r.example/x:1", "service_monitor": True}
)  # fmt: skip
SERVICES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@st.composite
def environments(draw: st.DrawFn) -> Environment:
    """A few fields at a time, allowed or not; those that are refused are left out, so that something remains."""
    kept = dict(draw(st.sampled_from(BASES)))
    for field in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=8, unique=True)):
        tried = {**kept, field: draw(FIELDS[field])}
        try:
            Environment.model_validate(tried)
        except ValidationError:
            continue
        kept = tried
    return Environment.model_validate(kept)


def delivered(service: str, version: str, env: Environment, *, image: bool) -> Delivery:
    bento = BENTO.model_copy(update={"name": service, "version": version})
    return bento if env.runtime_image and not image else IMAGE.model_copy(update={"bento": bento})


@settings(max_examples=150, deadline=None)
@given(env=environments(), service=SERVICES, version=SERVICES, image=st.booleans(), named=WORDS)
def test_allowed_settings_render_valid_manifests(
    env: Environment, service: str, version: str, image: bool, named: str
) -> None:
    target = Target(service, named, env)
    delivery = delivered(service, version, env, image=image)
    manifests = groups.everything(target, delivery)
    check(manifests)
    check(shared.first_services(target))
    rendered = text.to_yaml(manifests)
    assert list(yaml.safe_load_all(rendered)) == manifests
    assert json.loads(json.dumps(manifests)) == manifests
    assert rendered == text.to_yaml(groups.everything(target, delivery))
    for manifest in manifests:
        pod_name = f"{manifest['metadata']['name']}-{'f' * 10}-"
        assert manifest["kind"] != "Deployment" or len(pod_name) <= 58, "pod names would be cut, and queries miss them"


NOT_TEXT = re.compile(r"[-+]?[\d.].*|0[xob].*|y|n|yes|no|on|off|true|false|null|~|", re.IGNORECASE)


@given(st.recursive(st.text(max_size=8) | st.from_regex(NOT_TEXT, fullmatch=True), lambda inner: st.lists(inner)))
def test_text_stays_text_for_every_yaml_parser(value: Any) -> None:
    """Go's parser takes `y` for true and `12e45` for a number: what it might is quoted."""
    rendered = text.to_yaml([{"value": value}])
    for event in yaml.parse(rendered):
        if isinstance(event, yaml.ScalarEvent) and event.style is None:
            assert not NOT_TEXT.fullmatch(event.value), event.value


@given(st.text(max_size=100))
def test_any_text_becomes_a_label(told: str) -> None:
    value = names.label_value(told)
    assert LABEL_VALUE.fullmatch(value)
    if LABEL_VALUE.fullmatch(told):
        assert value == told


@given(SERVICES, SERVICES)
def test_long_names_stay_apart(one: str, other: str) -> None:
    long, longer = one + "x" * 60, other + "x" * 60
    assert (names.object_name(long) == names.object_name(longer)) == (long == longer)


# ---- the check itself sees what is wrong


def breakages() -> dict[str, Any]:
    def pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
        return one(manifests, "Deployment", "digits-blue")["spec"]["template"]["spec"]

    return {
        "unknown key": lambda m: pod(m).update(restart="Always"),
        "wrong type": lambda m: pod(m)["containers"][0]["ports"][0].update(containerPort="3000"),
        "enumeration": lambda m: pod(m)["topologySpreadConstraints"][0].update(whenUnsatisfiable="Anyhow"),
        "quantity": lambda m: pod(m)["containers"][0]["resources"]["requests"].update(cpu="much"),
        "label": lambda m: one(m, "Deployment", "digits-blue")["metadata"]["labels"].update(x="a b"),
        "selector": lambda m: one(m, "Deployment", "digits-blue")["spec"]["selector"]["matchLabels"].update(x="y"),
        "root": lambda m: pod(m)["securityContext"].update(runAsUser=0),
        "capabilities": lambda m: pod(m)["initContainers"][0].update(securityContext={}),
        "grace": lambda m: pod(m).update(terminationGracePeriodSeconds=5),
        "volume": lambda m: pod(m)["volumes"].pop(),
        "probe": lambda m: pod(m)["containers"][0]["readinessProbe"]["httpGet"].update(port="web"),
        "to zero": lambda m: one(m, "HorizontalPodAutoscaler", "digits-blue")["spec"].update(minReplicas=0),
        "replicas": lambda m: one(m, "Deployment", "digits-blue")["spec"].update(replicas=1),
        "scaler": lambda m: one(m, "HorizontalPodAutoscaler", "digits-blue")["spec"]["scaleTargetRef"].update(name="x"),
        "secrets": lambda m: one(m, "Role")["rules"][0]["resources"].append("secrets"),
        "all deployments": lambda m: one(m, "Role")["rules"][4].update(verbs=["patch"], resourceNames=[]),
        "monitor": lambda m: one(m, "ServiceMonitor")["spec"].update(interval="15s"),
        "twice": lambda m: m.append(m[0]),
    }


@pytest.mark.parametrize("what", breakages())
def test_the_check_sees(what: str) -> None:
    manifests = copy.deepcopy(groups.everything(Target("digits", "test", BUNDLES), BENTO))
    check(manifests)
    breakages()[what](manifests)
    with pytest.raises((AssertionError, SchemaError)):
        check(manifests)


# ---- what the switch relies on


@pytest.mark.parametrize("live", SLOTS)
def test_only_the_creation_of_a_service_has_a_selector_and_an_epoch(live: Slot) -> None:
    target = Target("digits", "test", Environment())
    applied = [m for m in groups.everything(target, IMAGE) if m["kind"] == "Service"]
    assert [m["metadata"]["name"] for m in applied] == ["digits", "digits-preview"]
    assert all("selector" not in m["spec"] and "annotations" not in m["metadata"] for m in applied)
    active, preview = shared.first_services(target, live)
    assert active["spec"].pop("selector")[names.SLOT] == live
    assert preview["spec"].pop("selector")[names.SLOT] != live
    assert active["metadata"].pop("annotations") == {names.EPOCH: "0"}
    assert [active, preview] == applied, "in all else they are the same"


def test_a_selector_without_slot_selects_both_colours_and_no_other_service() -> None:
    target, other = Target("digits", "test", Environment()), Target("digits2", "test", Environment())
    wide = target.selector().items()
    assert wide <= target.selector("blue").items()
    assert wide <= target.selector("green").items()
    assert not wide <= other.selector("blue").items()


@pytest.mark.parametrize(("kind", "given"), [("none", True), ("cpu", False), ("in-progress", False), ("keda", False)])
def test_a_deployment_has_replicas_only_where_nothing_else_sizes_it(kind: str, given: bool) -> None:
    env = Environment.model_validate({**KEDA, "autoscaling": {"kind": kind}})
    deployment = workload.deployment(Target("digits", "test", env), "blue", IMAGE)
    assert ("replicas" in deployment["spec"]) == given


@pytest.mark.parametrize(
    ("scaling", "least", "most"),
    [({}, "minReplicas", "maxReplicas"), (KEDA, "minReplicaCount", "maxReplicaCount")],
)
def test_the_idle_colour_can_be_held_at_the_size_of_the_live_one(scaling: Any, least: str, most: str) -> None:
    target = Target("digits", "test", Environment.model_validate({**scaling, "replicas": {"min": 2, "max": 5}}))
    for floor, bounds in {0: (2, 5), 1: (2, 5), 4: (4, 5), 9: (9, 9)}.items():
        scaler = workload.autoscaler(target, "green", floor)
        assert scaler is not None
        assert (scaler["spec"][least], scaler["spec"][most]) == bounds


def test_another_run_of_the_same_release_restarts_no_pod() -> None:
    target = Target("digits", "test", Environment())
    made = {"service": "digits", "slot": "blue", "bento": BENTO, "load_report": "s3://reports/1/report.json"}
    first = Release.model_validate({**made, "time": datetime(2026, 1, 1, tzinfo=UTC), "by": "ann", "run": "r-1"})
    again = Release.model_validate({**made, "time": datetime(2026, 1, 2, tzinfo=UTC), "by": "bob", "run": "r-2"})
    one, two = (workload.deployment(target, "blue", IMAGE, release) for release in (first, again))
    assert one["spec"] == two["spec"]
    told = two["metadata"]["annotations"]
    assert told == {
        "ekiben.dev/model": "acme/vision/digits:v3",
        "ekiben.dev/model-digest": MODEL.digest,
        "ekiben.dev/bento": "digits:v3-1a2b3c4d",
        "ekiben.dev/bento-digest": BENTO.digest,
        "ekiben.dev/image": str(IMAGE),
        "ekiben.dev/load-report": "s3://reports/1/report.json",
        "ekiben.dev/run": "r-2",
        "ekiben.dev/by": "bob",
        "ekiben.dev/time": "2026-01-02T00:00:00+00:00",
    }


def test_a_request_in_flight_fits_into_the_grace_period() -> None:
    target = Target("digits", "test", Environment(longest_request_seconds=300))
    spec = workload.deployment(target, "blue", IMAGE)["spec"]["template"]["spec"]
    assert (
        spec["terminationGracePeriodSeconds"] >= 300 + spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    )


def test_the_key_of_wandb_is_only_a_reference_and_only_where_a_bundle_is_fetched() -> None:
    target = Target("digits", "test", BUNDLES)
    pod = workload.deployment(target, "blue", BENTO)["spec"]["template"]["spec"]
    fetch, server = pod["initContainers"][0], pod["containers"][0]
    assert fetch["command"] == [
        "ekiben",
        "pull",
        "--bento",
        f"acme/vision/digits:v3-1a2b3c4d@{BENTO.digest}",
        "--into",
        "/bundle/bento",
    ]
    assert {"secretKeyRef": {"name": "wandb", "key": "api-key"}} in [v.get("valueFrom") for v in fetch["env"]]
    assert "WANDB" not in json.dumps(server)
    by_image = workload.deployment(target, "blue", IMAGE)["spec"]["template"]["spec"]
    assert "initContainers" not in by_image
    assert "command" not in by_image["containers"][0], "the image knows how it is served"


def test_a_bundle_needs_an_image_to_run_in() -> None:
    with pytest.raises(UsageError, match="runtime image") as error:
        groups.everything(Target("digits", "test", Environment()), BENTO)
    assert "runtime_image" in error.value.next_step


def test_images_that_were_loaded_into_the_nodes_are_named_by_tag_and_never_pulled() -> None:
    loaded = Environment(image_pull_policy="Never", image_by="tag")
    made = workload.deployment(Target("digits", "kind", loaded), "blue", IMAGE)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == (f"{IMAGE.repository}:v3-1a2b3c4d", "Never")
    assert made["spec"]["template"]["metadata"]["annotations"][names.IMAGE] == str(IMAGE), "which one it was is told"
    bundle = Environment(image_pull_policy="Never", runtime_image="runtime:1")
    made = workload.deployment(Target("digits", "kind", bundle), "blue", BENTO)
    pod = made["spec"]["template"]["spec"]
    assert {each["imagePullPolicy"] for each in [*pod["containers"], *pod["initContainers"]]} == {"Never"}


def test_without_a_delivery_there_is_all_but_the_deployments() -> None:
    target = Target("digits", "test", BUNDLES)
    whole, without = groups.everything(target, BENTO), groups.everything(target, None)
    assert without == [m for m in whole if m["kind"] != "Deployment"]
    assert groups.colour(target, "blue", BENTO) + groups.colour(target, "green", BENTO) == whole[-6:]


def test_the_deployer_is_granted_what_its_objects_take_and_no_more() -> None:
    def may(env: Environment) -> set[str]:
        return {resource for rule in access.rules(Target("d", "t", env)) for resource in rule["resources"]}

    least = may(
        Environment.model_validate(
            {"autoscaling": {"kind": "none"}, "network": {"policy": False}, "prometheus": "http://p"}
        )
    )
    assert may(Environment(prometheus="http://p")) - least == {"horizontalpodautoscalers", "networkpolicies"}
    assert "pods/proxy" in may(Environment())
    assert "pods/proxy" not in least
    assert "scaledobjects" in may(Environment.model_validate(KEDA))
    assert "httproutes" in may(Environment(http_route="digits"))
    assert {"servicemonitors", "prometheusrules"} <= may(BUNDLES)


def test_two_hundred_services_are_rendered_in_two_seconds() -> None:
    env = EnvironmentTable.model_validate({**KEDA, "runtime_image": "r.example/x:1", "service_monitor": True})
    best = 60.0
    for _ in range(3):  # the machine may be busy with other tests
        begun = time.process_time()
        for number in range(200):
            text.to_yaml(groups.everything(Target(f"service-{number}", "test", env.of(f"service-{number}")), BENTO))
        best = min(best, time.process_time() - begun)
    assert best < 2.0


@pytest.mark.parametrize(
    ("url", "space"),
    [
        ("http://tracker.ml.svc:8080", "ml"),
        ("http://tracker.ml.svc.cluster.local", "ml"),
        ("http://tracker", "models"),
        ("https://api.wandb.ai", ""),
        ("https://wandb.svc.example", ""),
        ("http://192.0.2.7:8080", ""),
    ],
)
def test_pods_may_fetch_from_a_server_in_the_cluster_whatever_port_its_pods_have(url: str, space: str) -> None:
    """A NetworkPolicy is held against the pod's port, after the Service's was replaced."""
    settings = Environment(runtime_image="r.example/runtime:1", wandb_base_url=url, namespace="models")
    policy = shared.network_policy(Target("digits", "test", settings))
    spaces = [
        to["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in policy["spec"]["egress"]
        for to in rule.get("to", ())
    ]
    assert spaces == [space] * bool(space)
