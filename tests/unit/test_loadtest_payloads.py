import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import EkibenError, NotFoundError, UsageError
from ekiben.loadtest.golden import Golden
from ekiben.loadtest.payloads import COUNT, Mix, digest, for_other, made_up, mixed, shares


def golden(rows: int = 20, more: int = 0) -> Golden:
    examples = [
        {"request": {"rows": [[x, x]]}, "response": {"classes": [x % 10], "texts": [str(x)]}} for x in range(rows)
    ]
    return Golden.model_validate({"version": 1, "route": "/predict", "examples": examples[more:]})


def document(**request: Any) -> dict[str, Any]:
    answer = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}}
    answers = {"200": {"content": {"application/json": {"schema": answer}}}}
    paths = {"/count": {"post": {"requestBody": {"content": content}, "responses": answers}}, "/readyz": {"get": {}}}
    return {"paths": paths, "components": {"schemas": {"Request": request}}}


ROWS = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": {"type": "integer"}}}}


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 30))
def test_mixed_rows_keep_their_answers(seed: int, low: int, width: int) -> None:
    made = mixed(golden(), Mix.parse(f"{low}-{low + width}"), seed)
    assert len(made.examples) == COUNT
    for example in made.examples:
        pixels = [row[0] for row in example.request["rows"]]
        assert low <= len(pixels) <= low + width
        assert example.response == {"classes": [x % 10 for x in pixels], "texts": [str(x) for x in pixels]}


def test_weights_are_kept_and_the_seed_decides() -> None:
    made = mixed(golden(), Mix.parse("1:9,32:1"), seed=3)
    large = sum(len(example.request["rows"]) == 32 for example in made.examples)
    assert 8 <= large <= 34  # 20 of 200
    again, other = (mixed(golden(), Mix.parse(mix), 3) for mix in ("1:9,32:1", "1"))
    assert digest(made) == digest(again) != digest(other)


@pytest.mark.parametrize("text", ["", "0", "5-2", "1:", "a", "1,,2", "-3", "9999999"])
def test_what_is_no_mix_says_what_is_wanted(text: str) -> None:
    with pytest.raises(UsageError, match="not a mix of rows"):
        Mix.parse(text)


NO_ROWS = [({"text": "a"}, {"n": 1}), ({"rows": [1, 2]}, {"n": [1]}), ([1], [1])]


@pytest.mark.parametrize(("request_", "response"), NO_ROWS)
def test_what_are_no_rows_is_refused(request_: Any, response: Any) -> None:
    other = Golden.model_validate(
        {"version": 1, "route": "/p", "examples": [{"request": request_, "response": response}]}
    )
    with pytest.raises(UsageError, match="not rows"):
        mixed(other, Mix.parse("2"), 1)


def test_made_up_requests_fit_the_schema_and_their_answers_are_checked_by_it() -> None:
    made = made_up(document(**ROWS), Mix.parse("4"), seed=1)
    assert made.endpoints == ("POST /count",)
    example = made.examples[0]
    assert len(example.request["rows"]) == 4 and all(isinstance(x, int) for x in example.request["rows"])
    assert example.check(b'{"n": 3}') == ("", "")
    assert example.check(b'{"n": "three"}')[0] == "contract: answer.n is no integer"
    assert example.check(b"{}")[0] == "contract: answer.n is missing"
    assert example.check(b"<html>")[0] == "contract: not JSON"
    assert digest(made) == digest(made_up(document(**ROWS), Mix.parse("4"), seed=1))
    assert digest(Golden.model_validate_json(made.model_dump_json())) == digest(made)


def test_a_service_without_a_usable_endpoint_says_why() -> None:
    with pytest.raises(NotFoundError, match="POST /count: no value can be made up"):
        made_up(document(type="file"), None, 1)
    with pytest.raises(NotFoundError, match="names no endpoint"):
        made_up({"paths": {}}, None, 1)
    with pytest.raises(EkibenError, match="cannot be read"):
        made_up({"paths": {"/a": []}}, None, 1)


def test_another_model_is_asked_the_same_and_judged_by_its_own_answers() -> None:
    mine, other = golden(), golden(more=5)
    sevens = [each.model_copy(update={"response": {"classes": [7], "texts": ["x"]}}) for each in other.examples]
    theirs = for_other(mine, other.model_copy(update={"examples": tuple(sevens)}))
    assert digest(theirs) == digest(mine)
    assert theirs.examples[6].check(b'{"classes": [7], "texts": ["x"]}') == ("", "")
    assert theirs.examples[6].check(b'{"classes": [6], "texts": ["6"]}')[0]
    unknown = theirs.examples[0]
    assert unknown.check(json.dumps({"classes": [Random(1).random()], "texts": []}).encode()) == ("", "")
    assert unknown.check(b'{"classes": [1]}')[0] == "contract: answer.texts is missing"


def test_shares_by_endpoint() -> None:
    examples = [{"request": 1, "response": 1}] * 3 + [{"request": 1, "response": 1, "route": "/b"}]
    found = Golden.model_validate({"version": 1, "route": "/a", "examples": examples})
    assert shares(found) == {"POST /a": 0.75, "POST /b": 0.25}
