"""Whether there is a cluster at all, and what is told of it."""

import os
import tomllib

import pytest

from tests.e2e.kubernetes.settings import Image, Settings, missing, toml

GIVEN = {"KUBECONFIG": "/config", "EKIBEN_E2E_IMAGE": "localhost:5000/team/digits:v1"}
DIGEST = f"sha256:{'5e' * 32}"


@pytest.mark.cluster
def test_a_cluster_is_named() -> None:
    """Without one, all that is in this folder is done on the fake only."""
    if why := missing(os.environ):
        pytest.skip(why)
    assert Settings.read(os.environ).image.repository


def test_nothing_is_done_or_pulled_that_nobody_asked_for() -> None:
    assert missing({}) and missing({"KUBECONFIG": "/config"}) and missing({"EKIBEN_E2E_IMAGE": "digits:1"})
    assert not missing(GIVEN)
    assert Settings.read(GIVEN).environment("ns")["image_pull_policy"] == "Never"


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("digits:1", Image("digits", "1", "")),
        ("localhost:5000/team/digits:v1", Image("localhost:5000/team/digits", "v1", "")),
        (f"localhost:5000/digits@{DIGEST}", Image("localhost:5000/digits", "", DIGEST)),
        (f"localhost/digits:v1@{DIGEST}", Image("localhost/digits", "v1", DIGEST)),
    ],
)
def test_images(text: str, image: Image) -> None:
    assert Image.parse(text) == image


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"EKIBEN_E2E_IMAGE": "localhost:5000/digits"}, "is not REPOSITORY:TAG"),
        ({"EKIBEN_E2E_PULL": "never"}, "wanted one of Never"),
        ({"EKIBEN_E2E_NEXT_IMAGE": f"digits@{DIGEST}"}, "both by tag, or both by digest"),
        ({"EKIBEN_E2E_RUNTIME_IMAGE": "runtime:1"}, "needs EKIBEN_E2E_BUNDLE, WANDB_BASE_URL, WANDB_API_KEY"),
    ],
)
def test_what_cannot_be_meant(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings.read({**GIVEN, **given})


def test_settings_of_ones_own() -> None:
    more = {"resources": {"memory": "2Gi"}, "image_pull_secrets": ["a"], "env": {"A": 'say "\\"'}, "start_seconds": 9}
    text = "\n".join(f"{key} = {toml(value)}" for key, value in more.items())
    assert tomllib.loads(text) == more
    made = Settings.read({**GIVEN, "EKIBEN_E2E_SETTINGS": text}).environment("ns")
    assert more.items() <= made.items()
