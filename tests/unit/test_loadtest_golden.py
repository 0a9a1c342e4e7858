import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import NotFoundError, UsageError
from ekiben.loadtest.golden import Golden, GoldenExample, check, difference
from ekiben.loadtest.probing import questions

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=10,
)


@given(json_values)
def test_every_answer_is_right_for_itself(value: Any) -> None:
    assert check(value, json.dumps(value).encode()) == ("", "")


@given(st.dictionaries(st.text(max_size=3), json_values, min_size=1, max_size=3), json_values)
def test_further_keys_are_allowed_missing_ones_are_not(expected: dict[str, Any], more: Any) -> None:
    assert difference(expected, {**expected, "something else": more}) == ""
    key = next(iter(expected))
    assert "is missing" in difference(expected, {k: v for k, v in expected.items() if k != key})


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ({"classes": [3]}, {"classes": [4]}),
        ({"classes": [3]}, {"classes": [3, 3]}),
        ({"classes": [3]}, {"classes": 3}),
        ({"classes": [3]}, [3]),
        ({"p": 0.5}, {"p": 0.50001}),
        ({"ok": True}, {"ok": 1}),
        ({"n": 1}, {"n": "1"}),
    ],
)
def test_a_wrong_answer_says_where(expected: Any, answer: Any) -> None:
    assert "wanted" in difference(expected, answer)


def test_floats_may_differ_by_a_millionth() -> None:
    assert difference({"p": [0.5, 1]}, {"p": [0.5000009, 1.0]}) == ""


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", "contract: not JSON"),
        (b"", "contract: not JSON"),
        (b"[3]", "contract: answer is no object"),
        (b'{"classes": [3]}', "contract: answer.items is missing"),
        (b'{"items": [{"p": 1}, {}]}', "contract: answer.items[].p is missing"),
        (b'{"items": [{"p": "1"}, {"p": 2}]}', "contract: answer.items[].p is no number"),
        (b'{"items": [{"p": 1}]}', "wrong answer"),
        (b'{"items": [{"p": 1}, {"p": 3}]}', "wrong answer"),
        (b'{"items": [{"p": 1}, {"p": 2}], "more": 1}', ""),
    ],
)
def test_a_broken_contract_is_told_from_a_wrong_answer(body: bytes, kind: str) -> None:
    example = GoldenExample(request={}, response={"items": [{"p": 1}, {"p": 2}]})
    assert example.check(body)[0] == kind
    assert example.check(body)[0] == kind  # the same again, from what was remembered
    assert bool(example.check(body)[1]) == bool(kind)


def test_an_example_may_have_an_endpoint_of_its_own() -> None:
    golden = _golden((1, 1), (2, 2))
    more = golden.model_copy(update={"examples": (*golden.examples, GoldenExample(request=1, response=2, route="/x"))})
    assert golden.endpoints == ("POST /predict",) and more.endpoints == ("POST /predict", "POST /x")
    assert {(q.path, q.body) for q in questions([more])} >= {("/x", b"1")}


def _golden(*pairs: tuple[int, int]) -> Golden:
    examples = [{"request": {"rows": [[x]]}, "response": {"classes": [y]}} for x, y in pairs]
    return Golden.model_validate({"version": 1, "route": "/predict", "examples": examples})


def test_during_a_switch_either_model_may_answer() -> None:
    asked = {json.loads(q.body)["rows"][0][0]: q for q in questions([_golden((1, 10), (2, 20)), _golden((1, 11))])}
    assert len(asked) == 2
    for right in (10, 11):
        assert asked[1].wrong(json.dumps({"classes": [right]}).encode()) == ""
    assert "wanted" in asked[1].wrong(b'{"classes": [12]}')
    assert asked[2].wrong(b'{"classes": [99]}') == ""  # the other model's answer to it is not known
    assert "classes is missing" in asked[2].wrong(b'{"error": "no"}')


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 2, "route": "/p", "examples": []}', '{"version": 1, "route": "/p", "examples": []}']
)
def test_a_file_that_is_not_golden_says_what_is_wanted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"golden\.json"):
        Golden.read(path)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"golden\.json"):
        Golden.read(tmp_path / "golden.json")
