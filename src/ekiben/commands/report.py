"""`ekiben loadtest report`: a saved load report in another form, and to where CI shows it."""

import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from ekiben.errors import UsageError
from ekiben.files import write_atomically

if TYPE_CHECKING:
    from ekiben.report.provider import Provider
    from ekiben.report.write import Document

GITLAB_JUNIT, GITLAB_MARKDOWN = "ekiben-junit.xml", "ekiben-report.md"


class Form(StrEnum):
    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    HTML = "html"
    JUNIT = "junit"
    JSON = "json"


def report(path: Path, form: Form = Form.TERMINAL, output: Path | None = None, *, post: bool = False) -> int:
    """Show the report.json at `path` (or in the folder `path`) on stdout, or write it to `output`; with `post` also
    where this CI shows it. Returns the exit code of the verdict in it."""
    from ekiben.report import provider
    from ekiben.report.write import Document

    document = Document.read(path)
    if output is None:
        sys.stdout.write(_rendered(document, form, colour=_coloured(os.environ)).rstrip("\n") + "\n")
    else:
        _write(output, _rendered(document, form).rstrip("\n") + "\n")
    if post:
        sys.stderr.write(_post(document, provider.detect(os.environ)) + "\n")
    return document.verdict.outcome.exit_code


def _rendered(document: "Document", form: Form, *, colour: bool = False) -> str:
    from ekiben.report import html, junit, markdown, terminal

    measured, verdict = document.report, document.verdict
    if form is Form.TERMINAL:
        return terminal.render(measured, verdict, colour=colour)
    if form is Form.JSON:
        return document.model_dump_json(indent=2)
    render = {Form.MARKDOWN: markdown.render, Form.HTML: html.render, Form.JUNIT: junit.render}[form]
    return render(measured, verdict)


def _coloured(environment: Mapping[str, str]) -> bool:
    return sys.stdout.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _post(document: "Document", found: "Provider") -> str:
    """Show the report where `found` does; returns what was done, in a sentence."""
    from ekiben.report import junit, markdown, provider

    text = markdown.render(document.report, document.verdict)
    if found.name == "github" and found.summary:
        summary = Path(found.summary)
        there = summary.stat().st_size if summary.exists() else 0
        if there + len(text.encode()) > provider.SUMMARY_LIMIT:
            raise UsageError(
                f"the step's summary has {there:,} bytes already, and the report {len(text.encode()):,}",
                wanted=f"at most {provider.SUMMARY_LIMIT:,} bytes in all",
                next_step="post it in a step of its own",
            )
        try:
            with summary.open("a", encoding="utf-8") as file:
                file.write(f"\n{text}")
        except OSError as error:
            raise _unwritable(summary, error) from None
        return "the report stands in this step's summary"
    if found.name == "gitlab":
        _write(Path(GITLAB_JUNIT), junit.render(document.report, document.verdict))
        _write(Path(GITLAB_MARKDOWN), text)
        return (
            f"wrote {GITLAB_JUNIT} and {GITLAB_MARKDOWN}; GitLab shows them if the job has\n"
            f"{provider.gitlab_job(GITLAB_JUNIT, GITLAB_MARKDOWN)}"
        )
    raise UsageError(
        "--post: this is no CI job that can show a report: neither GITHUB_STEP_SUMMARY nor GITLAB_CI is set",
        wanted="a step of GitHub Actions or a job of GitLab CI",
        next_step="write the report to a file instead: --format markdown --output report.md",
    )


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written: {error.strerror}", wanted="a file in a folder that you may write to")
