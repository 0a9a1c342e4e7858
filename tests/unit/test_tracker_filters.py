"""Filters and orders as SQL, against what they mean."""

import json
import math
import re
import sqlite3
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.tracker.graph.filters import RUNS, order, where
from ekiben.tracker.graphql import GraphQLError
from ekiben.tracker.sqlfunctions import config_at, json_at, register, run_state

SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, -1.5]) | st.sampled_from(["a", "b", "'", ""])
)
ROWS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "a'b"]),
        "tags": st.lists(st.sampled_from(["x", "y", "'"]), max_size=3),
        "config": st.dictionaries(st.sampled_from(["lr", "net"]), SCALARS),
        "summary": st.dictionaries(st.sampled_from(["loss", "acc"]), SCALARS | st.just(math.nan)),
    }
)
NAMES = st.sampled_from(["name", "config.lr", "config.net", "summary_metrics.loss", "summaryMetrics.acc"])
CONDITIONS = (
    SCALARS
    | st.dictionaries(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), SCALARS, max_size=2)
    | st.fixed_dictionaries({"$in": st.lists(SCALARS, max_size=3)})
    | st.fixed_dictionaries({"$nin": st.lists(SCALARS, max_size=3)})
    | st.fixed_dictionaries({"$exists": st.booleans()})
    | st.fixed_dictionaries({"$not": st.dictionaries(st.sampled_from(["$eq", "$gt"]), SCALARS, max_size=1)})
)
FILTERS = st.recursive(
    st.dictionaries(NAMES, CONDITIONS, max_size=2)
    | st.fixed_dictionaries(
        {"tags": st.sampled_from(["x", "'", {"$in": ["x", "y"]}, {"$nin": ["x"]}, {"$all": ["x", "y"]}])}
    ),
    lambda inner: st.dictionaries(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, max_size=3), max_size=1),
    max_leaves=5,
)


def meant(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """The filter's meaning, in Python."""
    return all(_clause(row, name, condition) for name, condition in wanted.items())


def _clause(row: dict[str, Any], name: str, condition: Any) -> bool:
    if name == "$and":
        return all(meant(row, item) for item in condition)
    if name == "$or":
        return any(meant(row, item) for item in condition)
    if name == "$nor":
        return not any(meant(row, item) for item in condition)
    operators = condition if isinstance(condition, dict) else {"$eq": condition}
    if name == "tags":
        tags = set(row["tags"])
        tests = {
            "$eq": lambda t: t in tags,
            "$in": lambda t: bool(tags & set(t)),
            "$nin": lambda t: not tags & set(t),
            "$all": lambda t: set(t) <= tags,
        }
        return all(tests[operator](operand) for operator, operand in operators.items())
    column, _, path = name.partition(".")
    value = row[column] if not path else row["config" if column == "config" else "summary"].get(path)
    return all(_holds(_sql(value), operator, operand) for operator, operand in operators.items())


def _holds(value: Any, operator: str, operand: Any) -> bool:
    if operator == "$not":
        return not all(_holds(value, inner, item) for inner, item in operand.items())
    if operator in ("$in", "$nin"):
        return (value in [_sql(item) for item in operand]) == (operator == "$in")
    if operator == "$exists":
        return (value is not None) == operand
    operand = _sql(operand)
    if operator in ("$eq", "$ne"):
        return (value == operand) == (operator == "$eq")
    if value is None or operand is None or isinstance(value, str) != isinstance(operand, str):
        return False
    return {"$gt": value > operand, "$gte": value >= operand, "$lt": value < operand, "$lte": value <= operand}[
        operator
    ]


def _sql(value: Any) -> Any:
    # SQLite has numbers for booleans, and NULL for what is not a number.
    return None if isinstance(value, float) and math.isnan(value) else int(value) if isinstance(value, bool) else value


@settings(max_examples=300, deadline=None)
@given(ROWS, FILTERS)
def test_a_filter_finds_what_it_means(row: dict[str, Any], wanted: dict[str, Any]) -> None:
    with sqlite3.connect(":memory:") as db:
        register(db)
        sql, parameters = where(wanted, RUNS)
        wrapped = json.dumps({key: {"value": value} for key, value in row["config"].items()})
        found = db.execute(
            f"SELECT 1 FROM (SELECT ? AS name, ? AS tags, ? AS config, ? AS summary) WHERE {sql}",
            (row["name"], json.dumps(row["tags"]), wrapped, json.dumps(row["summary"]), *parameters),
        ).fetchone()
    db.close()
    assert (found is not None) == meant(row, wanted)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=8) | NAMES | st.sampled_from(["$and", "$or", "$in", "$regex", "$not", "tags"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(ANY_JSON)
def test_any_json_is_a_filter_or_refused(wanted: Any) -> None:
    try:
        sql, parameters = where(wanted, RUNS)
    except GraphQLError:
        return
    db = sqlite3.connect(":memory:")
    register(db)
    row = {"tags": "[]", "config": "{}", "summary": "{}", "heartbeat_at": "2026-01-01T00:00:00+00:00"}
    named = set(re.findall(r"[a-z_]+", " ".join(RUNS.columns.values()))) - {"run_state"}
    columns = ", ".join(f"'{row.get(name, name)}' AS {name}" for name in named | set(row))
    db.execute(f"SELECT 1 FROM (SELECT {columns}) WHERE {sql}", parameters).fetchall()
    db.close()


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)*b", "a*a*a*b", "(?P<x>a)(?P=x)", r"(a)\1", "x" * 201, "(", "[z-a]"]
)
def test_a_pattern_that_could_run_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(GraphQLError):
        where({"name": {"$regex": pattern}}, RUNS)


@pytest.mark.filterwarnings("ignore:Possible")
@given(st.text(alphabet="ab*+?()[]{}|.^$\\1,", max_size=12))
@settings(max_examples=300, deadline=None)
def test_every_pattern_that_is_taken_is_quick(pattern: str) -> None:
    try:
        where({"name": {"$regex": pattern}}, RUNS)
    except GraphQLError:
        return
    start = time.monotonic()
    re.search(pattern, "a" * 1024)
    assert time.monotonic() - start < 1


def test_orders() -> None:
    assert order("-created_at", RUNS, "+name") == ("created_at", True)
    assert order(None, RUNS, "+createdAt") == ("created_at", False)
    assert order("+summary_metrics.a'b", RUNS, "") == ("json_at(summary, 'a''b')", False)
    with pytest.raises(GraphQLError, match="not something that can be ordered by"):
        order("-nothing", RUNS, "+name")


def test_json_at_reads_nested_and_dotted_keys_and_nan() -> None:
    text = '{"a": {"b": 1}, "a.c": 2, "n": NaN, "l": [1], "big": 100000000000000000000}'
    assert [json_at(text, path) for path in ("a.b", "a.c", "l", "a.b.c", "x", "big")] == [1, 2, "[1]", None, None, 1e20]
    assert json_at("not json", "a") is None
    config = '{"net": {"value": {"depth": 3}}, "_wandb": {"value": {}}}'
    assert [config_at(config, path) for path in ("net.depth", "net.value.depth", "none")] == [3, 3, None]


def test_a_run_that_says_it_runs_but_is_long_silent_has_crashed() -> None:
    assert run_state("running", "2020-01-01T00:00:00.000000Z") == "crashed"
    assert run_state("finished", "2020-01-01T00:00:00.000000Z") == "finished"
    assert run_state("running", "2999-01-01T00:00:00.000000Z") == "running"
