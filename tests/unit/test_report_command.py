"""`ekiben loadtest report` as a function: forms, exit codes, and posting where a CI shows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ekiben.commands import report as command
from ekiben.commands.report import Form, report
from ekiben.errors import NotFoundError, UnsupportedError, UsageError
from ekiben.loadtest.judging import judge
from ekiben.loadtest.slo import Slo
from ekiben.report import provider
from ekiben.report.write import write
from ekiben.types import Outcome, Verdict
from tests.fakes.load_reports import HOSTILE, crashed, everything, measured

SLO = Slo(objectives={"p99": 250.0, "error_rate": 0.005})
FAILED = measured(slow_ms=400, failures=40, example=HOSTILE)


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the CI that may run these tests; and files that are written without a folder go to a new one."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write(FAILED, judge(FAILED, SLO), tmp_path / "report")


@pytest.mark.parametrize(
    ("measured_", "code"), [(measured(), 0), (FAILED, 10), (measured(slow_ms=93), 11), (crashed(), 12)]
)
def test_the_exit_code_is_the_verdicts(tmp_path: Path, measured_: object, code: int) -> None:
    path = write(measured_, judge(measured_, SLO), tmp_path / "report")  # type: ignore[arg-type]
    assert report(path) == code


@pytest.mark.parametrize(
    ("form", "sign"),
    [
        (Form.TERMINAL, r"^FAIL  no p99: "),
        (Form.MARKDOWN, r"^### ❌ Load test FAIL: no p99: "),
        (Form.HTML, r"^<!doctype html>"),
        (Form.JUNIT, r"^<\?xml version"),
        (Form.JSON, r'^{\n  "schema_version": 1,\n  "kind": "ekiben-load-report"'),
    ],
)
def test_each_form_goes_to_stdout_or_to_a_file(
    saved: Path, form: Form, sign: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert report(saved, form) == 10
    shown = capsys.readouterr()
    assert re.match(sign, shown.out) and shown.out.endswith("\n") and not shown.err
    assert report(saved.parent, form, tmp_path / "new" / "file") == 10
    assert (tmp_path / "new" / "file").read_text() == shown.out
    assert not capsys.readouterr().out


def test_json_is_the_document_itself(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(saved, Form.JSON)
    assert json.loads(capsys.readouterr().out) == json.loads(saved.read_text())


def test_a_pipe_gets_no_colours_and_a_terminal_may(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report(saved)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    report(saved)
    coloured = capsys.readouterr().out
    assert "\x1b[1;31mFAIL\x1b[0m" in coloured and re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    report(saved)
    assert capsys.readouterr().out == plain


def test_nothing_is_posted_without_being_asked(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITLAB_CI", "true")
    before = sorted(tmp_path.rglob("*"))
    report(saved)
    assert sorted(tmp_path.rglob("*")) == before


def test_on_github_the_steps_summary_grows(
    saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary"
    summary.write_text("# What was there\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert report(saved, post=True) == 10
    text = summary.read_text()
    assert text.startswith("# What was there\n\n### ❌ Load test FAIL") and "summary" in capsys.readouterr().err
    summary.write_text("x" * (provider.SUMMARY_LIMIT - 10))
    with pytest.raises(UsageError, match="bytes already"):
        report(saved, post=True)
    assert summary.stat().st_size == provider.SUMMARY_LIMIT - 10


def test_on_gitlab_the_artifacts_are_written_and_explained(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    assert report(saved, post=True) == 10
    assert Path(command.GITLAB_JUNIT).read_text().startswith("<?xml")
    assert Path(command.GITLAB_MARKDOWN).read_text().startswith("### ❌")
    assert f"junit: {command.GITLAB_JUNIT}" in capsys.readouterr().err


@pytest.mark.parametrize("environment", [{}, {"GITHUB_ACTIONS": "true"}, {"CI": "true"}])
def test_elsewhere_posting_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="no CI job") as refused:
        report(saved, post=True)
    assert "--output" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"", UsageError, "not a load report"),
        (b"\xff\xfe\x00", UsageError, "not a load report"),
        (b"[1, 2]", UsageError, "not a load report"),
        (b"[" * 100_000, UsageError, "not a load report"),
        (b'{"some": "thing"}', UsageError, "not a load report"),
        (b'{"kind": "another", "schema_version": 9, "report": {"schema_version": 9}}', UsageError, "not a load"),
        (b'{"kind": "ekiben-load-report", "schema_version": "9", "report": {}}', UsageError, "not a load"),
        (b'{"kind": "ekiben-load-report", "schema_version": 2, "new": 1}', UnsupportedError, "newer ekiben"),
        (b'{"kind": "ekiben-load-report", "schema_version": 1, "report": {"schema_version": 7}}',
         UnsupportedError, "newer ekiben"),
    ],
)  # fmt: skip
def test_what_is_no_report_says_so(tmp_path: Path, content: bytes, error: type[Exception], said: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(error, match=said) as refused:
        report(path)
    assert str(path) in str(refused.value)


def test_a_missing_file_an_empty_folder_and_a_huge_file(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(NotFoundError, match="no load report"):
            report(missing)
    huge = tmp_path / "huge.json"
    huge.touch()
    os.truncate(huge, 1 << 40)
    with pytest.raises(UsageError, match="more than"):
        report(huge)


def test_the_terminals_tables_are_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(write(everything(), judge(everything(), SLO), tmp_path / "report"))
    blocks = capsys.readouterr().out.split("\n\n")
    for name in ("Offered", "latency", "endpoint", "error "):
        block = next(b for b in blocks if name in b.splitlines()[0])
        lines = block.splitlines() if name != "error " else [line.rpartition("  ")[0] for line in block.splitlines()]
        assert len(lines) > 1 and len({len(line) for line in lines}) == 1, block


def test_a_verdict_without_checks_has_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(measured(), Verdict(outcome=Outcome.INCONCLUSIVE), tmp_path / "report")
    for form in Form:
        assert report(path, form) == 11
        assert "INCONCLUSIVE" in capsys.readouterr().out


def test_what_cannot_be_written_is_said(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path, tmp_path / "file" / "below.html"):
        with pytest.raises(UsageError, match="cannot be written"):
            report(saved, Form.HTML, output)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(UsageError, match="cannot be written"):
        report(saved, post=True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["report.json"], 10, "FAIL  no p99"),
        ([".", "--format", "markdown"], 10, "### ❌ Load test FAIL"),
        (["nowhere"], 3, "no load report at nowhere"),
        (["report.html"], 2, "not a load report"),
        (["report.json", "--format", "pdf"], 2, "--format"),
        (["report.json", "--post"], 2, "--post: this is no CI job"),
    ],
)
def test_the_command_line(saved: Path, arguments: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-m", "ekiben.cli", "loadtest", "report", *arguments]
    done = subprocess.run(command, cwd=saved.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
