"""Who sent an event and what it says: signatures, hostile bodies, settings.

W&B's automations sign the body with HMAC-SHA256 in X-Wandb-Signature: in base64 by its documentation, in hexadecimal
digits as seen; an access token comes as `Authorization: Bearer`.
"""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ekiben.errors import UnavailableError, UsageError
from ekiben.triggers import Trigger, Webhook
from ekiben.webhook import payload, signature
from ekiben.webhook.counts import Counts

SECRET = st.binary(min_size=1, max_size=80)


def digest(secret: bytes, body: bytes) -> bytes:
    return hmac.new(secret, body, hashlib.sha256).digest()


@given(body=st.binary(max_size=2000), secret=SECRET, others=st.lists(SECRET, max_size=3), at=st.integers(0, 3))
def test_both_spellings_of_a_right_signature_hold(body: bytes, secret: bytes, others: list[bytes], at: int) -> None:
    known = [*others[:at], secret, *others[at:]]
    right = digest(secret, body)
    for text in (right.hex(), right.hex().upper(), base64.b64encode(right).decode()):
        assert signature.signed(body, text, known)


@given(body=st.binary(max_size=200), secret=SECRET, text=st.text(max_size=100))
def test_any_other_text_does_not_hold(body: bytes, secret: bytes, text: str) -> None:
    right = digest(secret, body)
    assert signature.signed(body, text, [secret]) == (
        text.lower() == right.hex() or text == base64.b64encode(right).decode()
    )


@given(body=st.binary(max_size=200), secret=SECRET, bit=st.integers(0, 255), other=st.binary(max_size=200))
def test_one_bit_or_another_body_or_secret_does_not_hold(body: bytes, secret: bytes, bit: int, other: bytes) -> None:
    right = bytearray(digest(secret, body))
    assert signature.signed(other, right.hex(), [secret]) == (other == body)
    assert not signature.signed(body, right.hex(), [secret + b"x"])
    assert not signature.signed(body, right.hex(), [])
    right[bit // 8] ^= 1 << bit % 8
    assert not signature.signed(body, right.hex(), [secret])
    assert not signature.signed(body, base64.b64encode(right).decode(), [secret])


@pytest.mark.parametrize(
    ("header", "held"),
    [
        ("Bearer right", True),
        ("bearer  right", True),
        ("Bearer old", True),
        ("Bearer wrong", False),
        ("Bearer", False),
        ("right", False),
        ("Basic right", False),
        ("", False),
        ("Bearer ri\xe9", False),
    ],
)
def test_access_tokens(header: str, held: bool) -> None:
    assert signature.bears(header, [b"right", b"old"]) is held


def test_secrets_come_from_a_file_that_may_change_or_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("PLANTED", "one\ntwo\n")
    assert signature.kept("PLANTED", None)() == (b"one", b"two")
    assert "PLANTED" not in os.environ
    file = tmp_path / "secrets"
    with pytest.raises(UsageError, match="cannot read"):
        signature.kept("PLANTED", file)
    file.write_bytes(b"new\r\n\nold")
    read = signature.kept("PLANTED", file)
    assert read() == (b"new", b"old")
    file.write_bytes(b"newer")
    assert read() == (b"newer",)
    file.write_bytes(b"\n")
    with pytest.raises(UnavailableError, match="is empty"):
        read()


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
NAMES = ("event_type", "event_author", "alias", "artifact_collection_name", "artifact_version_string", "entity_name")


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    try:
        event = payload.read(body)
    except (payload.MalformedError, payload.UnusableError) as error:
        assert str(error)
    else:
        assert event["event_type"] and event["artifact_collection_name"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6))
def test_hostile_values_are_no_fields(value: dict[str, Any]) -> None:
    whole = {"event_type": "LINK_ARTIFACT", "artifact_collection_name": "digits", **value}
    try:
        event = payload.read(json.dumps(whole).encode())
    except (payload.MalformedError, payload.UnusableError):
        return
    for text in event.values():
        assert isinstance(text, str)
        assert 0 < len(text) <= payload.LONGEST
        text.encode()
        assert text.isprintable() or not any(ord(each) < 32 for each in text)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"x"',
        b"{",
        b"\xff",
        '{"a": 1}'.encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a": ' + b"[" * 30 + b"]" * 30 + b"}",
    ],
)
def test_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(payload.MalformedError):
        payload.read(body)


@pytest.mark.parametrize(
    "change",
    [
        {"event_type": ""},
        {"event_type": 1},
        {"artifact_collection_name": None},
        {"alias": ["production"]},
        {"alias": "a\nb"},
        {"alias": "\ud800"},
        {"event_author": "x" * 513},
    ],
)
def test_what_does_not_say_what_is_needed(change: dict[str, Any]) -> None:
    whole = {"event_type": "LINK_ARTIFACT", "artifact_collection_name": "digits", **change}
    with pytest.raises(payload.UnusableError):
        payload.read(json.dumps(whole).encode())


def test_the_version_string_gives_what_is_missing() -> None:
    event = payload.read(b'{"event_type": "LINK_ARTIFACT", "artifact_version_string": "acme/vision/digits:production"}')
    assert event == {
        "event_type": "LINK_ARTIFACT",
        "entity_name": "acme",
        "project_name": "vision",
        "artifact_collection_name": "digits",
        "alias": "production",
    }


TRIGGER = {"collections": ["digits"], "workflow": "release"}
EVENT = {"event_type": "ADD_ARTIFACT_ALIAS", "artifact_collection_name": "digits", "alias": "production"}


@pytest.mark.parametrize(
    ("trigger", "event", "about"),
    [
        ({}, {}, True),
        ({}, {"alias": "staging"}, False),
        ({"alias": "staging"}, {}, False),
        ({}, {"event_type": "RUN_STATE"}, False),
        ({}, {"artifact_collection_name": "cats"}, False),
        ({"events": ["RUN_STATE"]}, {"event_type": "RUN_STATE"}, True),
    ],
)
def test_which_events_a_trigger_is_about(trigger: dict[str, str], event: dict[str, str], about: bool) -> None:
    settings = Webhook(triggers={"mine": Trigger(**{**TRIGGER, **trigger})})
    assert bool(settings.about({**EVENT, **event})) is about


def test_a_link_without_an_alias_is_about_every_alias() -> None:
    settings = Webhook(triggers={name: Trigger(**{**TRIGGER, "alias": name}) for name in ("production", "staging")})
    event = payload.read(b'{"event_type": "LINK_ARTIFACT", "artifact_collection_name": "digits", "alias": ""}')
    assert settings.about(event).keys() == {"production", "staging"}


@pytest.mark.parametrize(
    "text", ["{artifact_versoin}", "{alias.__class__}", "{alias!r}", "{alias:>9}", "{", "{0}", "{}"]
)
def test_a_parameter_with_an_unknown_field_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Trigger.model_validate({**TRIGGER, "parameters": {"model": text}})


@pytest.mark.parametrize("name", ["a.b", "A", "x" * 64, ""])
def test_a_trigger_has_a_name_that_can_be_a_label(name: str) -> None:
    with pytest.raises(ValidationError):
        Webhook.model_validate({"triggers": {name: TRIGGER}})


def test_parameters_are_text_with_fields() -> None:
    trigger = Trigger.model_validate({**TRIGGER, "parameters": {"model": "{artifact_version}", "note": "{{as is}}"}})
    assert trigger.filled({"artifact_version": "a/b/c:v1"}) == {"model": "a/b/c:v1", "note": "{as is}"}


def test_seconds_are_a_histogram() -> None:
    counts = Counts()
    for seconds in (0.001, 0.01, 0.2, 100.0):
        counts.add("submitted", seconds)
    text = counts.render()
    assert 'ekiben_webhook_events_total{outcome="submitted"} 4' in text
    assert [line.split()[1] for line in text.splitlines() if "_bucket" in line] == [
        "2",
        "2",
        "2",
        "3",
        "3",
        "3",
        "3",
        "4",
    ]
    assert "ekiben_webhook_event_seconds_count 4" in text
