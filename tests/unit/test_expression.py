"""Argo's `depends` and `when`, against a small reference of what each operator means."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiben.errors import UnsupportedError
from ekiben.pipeline import expression

RESULTS = {
    "a": {"Succeeded"},
    "load-test": {"Failed", "AnySucceeded"},
    "c": {"Skipped"},
    "d": {"Omitted"},
    "e": {"Failed", "AllFailed"},
}
ATOMS = st.builds(lambda task, result: (task, result), st.sampled_from([*RESULTS]), st.sampled_from(expression.RESULTS))


def _trees() -> st.SearchStrategy[Any]:
    return st.recursive(
        ATOMS,
        lambda inner: st.one_of(st.tuples(st.just("!"), inner), st.tuples(st.sampled_from(["&&", "||"]), inner, inner)),
        max_leaves=12,
    )


def _write(tree: Any) -> str:
    match tree:
        case ("!", inner):
            return f"!({_write(inner)})"
        case ("&&" | "||" as op, left, right):
            return f"({_write(left)}) {op} ({_write(right)})"
        case (task, result):
            return f"{task}.{result}"
    raise AssertionError(tree)


def _mean(tree: Any) -> bool:
    match tree:
        case ("!", inner):
            return not _mean(inner)
        case ("&&", left, right):
            return _mean(left) and _mean(right)
        case ("||", left, right):
            return _mean(left) or _mean(right)
        case (task, result):
            return result in RESULTS[task]
    raise AssertionError(tree)


@given(_trees())
def test_depends_means_what_its_operators_mean(tree: Any) -> None:
    assert expression.depends(_write(tree), RESULTS) is _mean(tree)


@given(st.lists(ATOMS, min_size=2, max_size=5), st.data())
def test_and_binds_more_tightly_than_or(atoms: list[tuple[str, str]], data: st.DataObject) -> None:
    ops = [data.draw(st.sampled_from(["&&", "||"])) for _ in atoms[1:]]
    source = _write(atoms[0]) + "".join(f" {op} {_write(atom)}" for op, atom in zip(ops, atoms[1:], strict=True))
    python = repr(_mean(atoms[0])) + "".join(
        f" {'and' if op == '&&' else 'or'} {_mean(atom)!r}" for op, atom in zip(ops, atoms[1:], strict=True)
    )
    assert expression.depends(source, RESULTS) is eval(python)


@given(st.text(max_size=40))
def test_any_text_is_either_understood_or_refused(text: str) -> None:
    for read in (expression.when, lambda source: expression.depends(source, RESULTS)):
        with contextlib.suppress(UnsupportedError):
            read(text)


def test_a_task_without_a_result_word_means_succeeded_or_skipped() -> None:
    assert expression.depends("a", RESULTS)
    assert expression.depends("c", RESULTS)
    assert not expression.depends("load-test || d || e", RESULTS)


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("yes == yes", True),
        ("'a b' == \"a b\"", True),
        ("10 > 9", True),
        ("'10' > '9'", False),
        ("1.0 == 1", True),
        ("x != y && !(1 >= 2)", True),
        ("true", True),
        ("false || 3 <= 3", True),
        ("prod == staging || prod == test", False),
        ("'release-1' == 'release-1'", True),
        ("-1.5 < 1e-3", True),
    ],
)
def test_when(source: str, holds: bool) -> None:
    assert expression.when(source) is holds


@pytest.mark.parametrize("source", ["", "a ==", "(true", "true)", "maybe", "a = b", "a && && b", "== a"])
def test_when_refuses_what_it_cannot_read(source: str) -> None:
    with pytest.raises(UnsupportedError):
        expression.when(source)


@pytest.mark.parametrize("word", ["release-1", "2026-11-29", "10ms/2", "a,b", "[1]"])
def test_when_refuses_words_without_quotes_that_argo_would_calculate_with(word: str) -> None:
    """Argo's parser takes the hyphen for minus: the task ends in Error, or a date is its difference."""
    with pytest.raises(UnsupportedError, match="without quotes: Argo calculates") as caught:
        expression.when(f"{word} == x")
    assert f"write '{word}'" in caught.value.next_step


def test_depends_names_what_is_wrong() -> None:
    with pytest.raises(UnsupportedError, match=r"a\.Succeded"):
        expression.depends("a.Succeded", RESULTS)
    with pytest.raises(UnsupportedError, match="'nobody'"):
        expression.depends("nobody.Failed", RESULTS)
