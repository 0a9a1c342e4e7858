"""The query language and its execution, apart from W&B."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.tracker.graphql import Args, GraphQLError, Node, choose, execute, field, field_named
from ekiben.tracker.syntax import MAX_DEPTH, GraphQLSyntaxError, Variable, parse


class Leaf(Node):
    typename = "Leaf"
    also = ("Thing",)

    def __init__(self, name: str) -> None:
        self._name = name

    @field
    def full_name(self, args: Args) -> str:
        return self._name + (args.optional_text("suffix") or "")

    @field_named("theURL")
    def url(self, args: Args) -> str:
        return f"/{self._name}"

    @field
    def broken(self, args: Args) -> str:
        raise GraphQLError("it broke")


class Root(Node):
    typename = "Query"

    @field
    def leaves(self, args: Args) -> list[Leaf]:
        return [Leaf(name) for name in args.texts("names")]

    @field
    def leaf(self, args: Args) -> Leaf | None:
        given = args.object("input")
        return Leaf(given.text("name")) if given.has("name") else None

    @field
    def page(self, args: Args) -> dict[str, Any]:
        return {"__typename": "Page", "size": args.integer("size"), "total": lambda: 7, "raw": {"a": [1]}}


def ask(text: str, **variables: Any) -> dict[str, Any]:
    document = parse(text)
    return execute(document, choose(document, None), variables, Root())


def test_fields_aliases_arguments_variables_and_defaults() -> None:
    assert ask('{ a: leaf(input: {name: "x"}) { fullName theURL } }') == {"a": {"fullName": "x", "theURL": "/x"}}
    query = 'query Q($n: [String!]!, $s: String = "!") { leaves(names: $n) { fullName(suffix: $s) } }'
    assert ask(query, n=["a", "b"]) == {"leaves": [{"fullName": "a!"}, {"fullName": "b!"}]}
    assert ask(query, n=["a"], s="?") == {"leaves": [{"fullName": "a?"}]}
    assert ask("{ leaf(input: {}) { fullName } }") == {"leaf": None}


def test_fragments_apply_to_their_type_and_its_interfaces() -> None:
    query = """
    # a comment
    query Q { leaf(input: {name: "x"}) { ...F ... on Thing { fullName } ... on Other { broken } __typename } }
    fragment F on Leaf { theURL }
    """
    assert ask(query) == {"leaf": {"theURL": "/x", "fullName": "x", "__typename": "Leaf"}}


def test_include_and_skip() -> None:
    query = 'query Q($y: Boolean = true, $n: Boolean!) { leaf(input: {name: "x"}) { %s } }'
    assert ask(query % "fullName @include(if: $n) theURL @include(if: $y)", n=False) == {"leaf": {"theURL": "/x"}}
    assert ask(query % "fullName @skip(if: $n) broken @skip(if: true)", n=False) == {"leaf": {"fullName": "x"}}


def test_mappings_answer_with_their_members_and_compute_when_asked() -> None:
    assert ask("{ page(size: 3) { size total raw __typename } }") == {
        "page": {"size": 3, "total": 7, "raw": {"a": [1]}, "__typename": "Page"}
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ nothing }", 'Cannot query field "nothing" on type "Query".'),
        ('{ leaf(input: {name: "x"}) { nothing } }', 'Cannot query field "nothing" on type "Leaf".'),
        ("{ page { nothing } }", 'Cannot query field "nothing" on type "Page".'),
    ],
)
def test_an_unknown_field_is_named_in_the_words_that_the_client_looks_for(query: str, message: str) -> None:
    with pytest.raises(GraphQLError) as caught:
        ask(query)
    assert str(caught.value) == message
    assert caught.value.unknown


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ leaf(input: 3) { fullName } }", "must be an object"),
        ("{ leaf(input: {name: 3}) { fullName } }", "name must be a string, not int"),
        ("{ leaves(names: 3) { fullName } }", "must be a list"),
        ('{ page(size: "x") { size } }', "must be a whole number"),
        ("{ page(size: 99999999999999999999) { size } }", "whole number|out of range"),
        ('{ leaf(input: {name: "a\\u0000"}) { fullName } }', "cannot be stored"),
        ('{ leaf(input: {name: "%s"}) { fullName } }' % ("x" * 2000), "2000 characters; at most 1024"),
        ("{ leaf(input: {}) { ...Missing } }", ""),
        ('{ leaf(input: {name: "x"}) { ...F } } fragment F on Leaf { ...F }', "holds itself"),
    ],
)
def test_wrong_arguments_are_refused_with_what_was_wanted(query: str, message: str) -> None:
    if not message:
        assert ask(query) == {"leaf": None}  # nothing to select from, so nothing is missed
        return
    with pytest.raises(GraphQLError, match=message):
        ask(query)


def test_fragments_that_multiply_are_cut_short() -> None:
    levels = "".join(f"fragment F{n} on Leaf {{ {f'...F{n + 1} ' * 10} }}\n" for n in range(12))
    with pytest.raises(GraphQLError, match="more than"):
        ask('{ leaf(input: {name: "x"}) { ...F0 } }\n' + levels + "fragment F12 on Leaf { fullName }")


@pytest.mark.parametrize(
    "text",
    ["", "{", "}", "{ a", "{ a(", "query", "subscription { a }", '{ a(b: "unended) }', "{ a(b:) }", "fragment F {a}"],
)
def test_what_is_not_a_query_is_refused(text: str) -> None:
    with pytest.raises(GraphQLSyntaxError):
        choose(parse(text), None)


def test_nesting_is_bounded() -> None:
    assert parse("{a" * 10 + "}" * 10)
    for text in ("{a" * 100_000, "{a(b:" + "[" * 100_000, "query ($a: " + "[" * 100_000):
        with pytest.raises(GraphQLSyntaxError):
            parse(text[:150_000])
    with pytest.raises(GraphQLSyntaxError, match=f"deeper than {MAX_DEPTH}"):
        parse("{a" * 50 + "}" * 50)


@given(st.text(max_size=200) | st.text(alphabet='{}()[]:$!@#"\\ \nquery mutation fragment on abc.1-', max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse(text)
    except GraphQLSyntaxError as error:
        assert str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text().filter(lambda t: t.isprintable()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"\A[_a-z][_0-9a-z]*\Z"), inner, max_size=3)
    ),
    max_leaves=10,
)


def written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + " ".join(written(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


@given(VALUES)
def test_values_are_read_as_they_were_written(value: Any) -> None:
    arguments = parse(f"{{ a(b: {written(value)}, c: $d) }}").operations[0].selection[0].arguments
    assert arguments == {"b": value, "c": Variable("d")}
