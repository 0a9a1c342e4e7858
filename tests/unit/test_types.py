"""The values that flow: parsed once, printed back, carried as JSON, and never better than their worst part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ekiben.errors import UsageError
from ekiben.types import BentoRef, Check, ModelVersion, Outcome, Probe, Verdict

PARTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
MODELS = st.builds(
    ModelVersion, entity=PARTS, project=PARTS, name=PARTS, version=st.integers(0, 9999).map(lambda n: f"v{n}"),
    digest=st.from_regex(r"([0-9a-f]{32})?", fullmatch=True),
)  # fmt: skip
CHECKS = st.builds(Check, name=st.text(), outcome=st.sampled_from(Outcome), seen=st.text(), wanted=st.text())


@given(MODELS)
def test_a_model_version_is_what_its_text_says(model: ModelVersion) -> None:
    assert ModelVersion.parse(str(model), model.digest) == model
    assert ModelVersion.model_validate_json(model.model_dump_json()) == model


@given(st.text(max_size=60))
def test_any_text_is_a_model_version_or_refused(text: str) -> None:
    try:
        assert str(ModelVersion.parse(text)) == text
    except UsageError as error:
        assert "entity/project/name:vN" in str(error)


@pytest.mark.parametrize(
    "text", ["", "digits:v3", "a/b/digits", "a/b/digits:production", "a/b/c/digits:v1", "a/../c:v1", "a/b/c:v1\n"]
)
def test_aliases_and_paths_are_not_versions(text: str) -> None:
    with pytest.raises(UsageError):
        ModelVersion.parse(text)


def test_values_do_not_change_and_know_their_fields() -> None:
    model = ModelVersion.parse("a/b/c:v1")
    with pytest.raises(ValidationError):
        model.version = "v2"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        BentoRef.model_validate({"name": "x", "version": "1", "digest": "", "model": model, "extra": 1})


@given(st.lists(CHECKS, max_size=6))
def test_a_verdict_is_its_worst_check_and_passes_only_when_all_do(checks: list[Check]) -> None:
    verdict = Verdict.of(checks)
    outcomes = {check.outcome for check in checks}
    assert verdict.passed == (outcomes == {Outcome.PASS})
    assert (verdict.outcome is Outcome.ERROR) == (Outcome.ERROR in outcomes)
    if not checks:
        assert verdict.outcome is Outcome.INCONCLUSIVE, "missing data never passes"


def test_a_verdict_names_what_did_not_pass() -> None:
    checks = [
        Check(name="p99", outcome=Outcome.FAIL, seen="p99 412 ms", wanted="≤ 300 ms"),
        Check(name="errors", outcome=Outcome.PASS, seen="0 %", wanted="≤ 1 %"),
    ]
    assert str(Verdict.of(checks, "digits:v3")) == "FAIL digits:v3: p99 412 ms, wanted ≤ 300 ms"
    assert str(Verdict.of(checks[1:], "digits:v3")) == "PASS digits:v3: 1 check passed"


def test_each_outcome_has_its_own_exit_code() -> None:
    assert {outcome.value: outcome.exit_code for outcome in Outcome} == {
        "PASS": 0, "FAIL": 10, "INCONCLUSIVE": 11, "ERROR": 12,
    }  # fmt: skip


PROBES = st.builds(Probe, requests=st.integers(0, 99), failed=st.integers(0, 9), worst_ms=st.floats(0, 1e4),
                   first_failure=st.text(max_size=3))  # fmt: skip


@given(PROBES, PROBES)
def test_probes_add_up(one: Probe, two: Probe) -> None:
    both = one + two
    assert (both.requests, both.failed) == (one.requests + two.requests, one.failed + two.failed)
    assert both.worst_ms == max(one.worst_ms, two.worst_ms)
