"""JUnit XML against the schema that GitLab and Jenkins read."""

import functools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from ekiben.loadtest.judging import judge
from ekiben.loadtest.slo import Slo
from ekiben.report import junit
from ekiben.types import Check, ErrorKind, LoadReport, Outcome, Verdict
from tests.fakes.load_reports import HOSTILE, crashed, everything, measured

SLO = Slo(objectives={"p99": 250.0, "error_rate": 0.005, "achieved_rate": 0.95})
CASES = {
    "pass": measured(),
    "fail": measured(slow_ms=400, failures=40, example=HOSTILE),
    "all failed": measured(failures=10**6),
    "crashed": crashed(),
    "everything": everything(),
}
ANY = st.text(max_size=60) | st.text(st.characters(min_codepoint=0, max_codepoint=0x1F), max_size=10)


@functools.cache
def schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(str(Path(__file__).parents[1] / "data" / "junit.xsd"))


def parsed(report: LoadReport, verdict: Verdict) -> ET.Element:
    text = junit.render(report, verdict)
    root = ET.fromstring(text.encode())
    schema().validate(root)
    return root


@pytest.mark.parametrize("name", CASES)
def test_there_is_a_case_for_each_objective_and_for_validity(name: str) -> None:
    root = parsed(CASES[name], judge(CASES[name], SLO))
    assert [c.get("name") for c in root.iter("testcase")] == ["validity", "p99", "error_rate", "achieved_rate"]
    suite = root.find("testsuite")
    assert suite is not None and suite.get("tests") == "4"
    for tag in ("failure", "error"):
        assert suite.get(f"{tag}s") == root.get(f"{tag}s") == str(len(list(root.iter(tag))))


def test_the_schema_refuses_what_it_should() -> None:
    text = junit.render(CASES["fail"], judge(CASES["fail"], SLO))
    for good, bad in (
        ('tests="4"', 'tests="four"'),
        ('name="p99"', 'name="validity"'),
        ("<properties>", "<surprise/><properties>"),
        ('classname="load test of digits"', ""),
    ):
        assert good in text
        assert not schema().is_valid(ET.fromstring(text.replace(good, bad, 1)))


def test_each_outcome_is_told_as_ci_knows_it() -> None:
    checks = [Check(name=o.lower(), outcome=o, seen=f"seen {o}", wanted=f"wanted {o}") for o in Outcome]
    root = parsed(CASES["pass"], Verdict.of(checks, "digits:abc123"))
    told = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert told == {"pass": ["system-out"], "fail": ["failure"], "inconclusive": ["failure"], "error": ["error"]}
    inconclusive = root.find(".//testcase[@name='inconclusive']/failure")
    assert inconclusive is not None and inconclusive.text is not None
    assert inconclusive.get("type") == "INCONCLUSIVE"
    assert inconclusive.text.startswith("INCONCLUSIVE: seen INCONCLUSIVE, wanted wanted INCONCLUSIVE")


def test_a_failure_says_what_the_errors_were() -> None:
    root = parsed(CASES["fail"], judge(CASES["fail"], SLO))
    failure = root.find(".//testcase[@name='error_rate']/failure")
    assert failure is not None and failure.text is not None
    assert "40 × status 503: <script>alert(1)</script>" in failure.text


def test_one_name_twice_makes_two_cases() -> None:
    checks = [Check(name="p99", outcome=Outcome.PASS, seen=w, wanted=w) for w in ("here", "there")]
    root = parsed(CASES["pass"], Verdict.of(checks))
    assert [c.get("name") for c in root.iter("testcase")] == ["p99", "p99 (2)"]


def test_names_do_not_depend_on_the_version() -> None:
    other = CASES["pass"].model_copy(update={"subject": CASES["pass"].subject.model_copy(update={"version": "later"})})  # type: ignore[union-attr]
    names = [[c.attrib for c in parsed(r, judge(r, SLO)).iter("testcase")] for r in (CASES["pass"], other)]
    assert names[0] == names[1]


@settings(deadline=None)
@given(kind=ANY, example=ANY, seen=ANY, url=ANY)
def test_no_answer_breaks_the_xml(kind: str, example: str, seen: str, url: str) -> None:
    report = CASES["pass"].model_copy(
        update={"errors": (ErrorKind(kind=kind, count=1, example=example + "\ud800\x00\ufffe]]>"),), "url": url}
    )
    check = Check(name=f"p99{kind}", outcome=Outcome.FAIL, seen=seen, wanted=seen)
    root = parsed(report, Verdict.of([check], subject=url))
    assert root.find(".//failure") is not None
