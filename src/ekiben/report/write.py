"""The report's files: report.json is the source, all others are made from it."""

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from ekiben.errors import NotFoundError, UnsupportedError, UsageError
from ekiben.files import write_atomically
from ekiben.report import html, junit, markdown
from ekiben.types import LoadReport, Value, Verdict

SCHEMA_VERSION = 1
FILES = ("report.html", "report.md", "junit.xml", "report.json")
MAX_BYTES = 64 * 1024 * 1024
"""Of a report.json that is read; one of a run of 24 hours has 11 MB."""


class Document(Value):
    """What report.json holds."""

    schema_version: Literal[1] = 1
    kind: Literal["ekiben-load-report"] = "ekiben-load-report"
    report: LoadReport
    verdict: Verdict

    @classmethod
    def read(cls, path: Path) -> Self:
        """NotFoundError, UsageError for what is no report, UnsupportedError for one of a newer ekiben."""
        path = path / "report.json" if path.is_dir() else path
        try:
            with path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise NotFoundError(f"no load report at {path}", next_step="run a load test first") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        if len(text) > MAX_BYTES:
            raise UsageError(f"{path} has more than {MAX_BYTES / 1e6:.0f} MB", wanted="the report.json of a load test")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            _refuse_newer(path, text)
            first = error.errors()[0]
            raise UsageError(
                f"{path} is not a load report: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                wanted=f"a report.json of schema version {SCHEMA_VERSION}",
            ) from None


def _refuse_newer(path: Path, text: bytes) -> None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(found, dict) or found.get("kind") != "ekiben-load-report":
        return
    inner = found.get("report")
    versions = [part.get("schema_version") for part in (found, inner) if isinstance(part, dict)]
    if newer := [v for v in versions if isinstance(v, int) and v > SCHEMA_VERSION]:
        raise UnsupportedError(
            f"{path} was made by a newer ekiben: it has schema version {newer[0]}",
            wanted=f"schema version {SCHEMA_VERSION}",
            next_step="upgrade ekiben: pip install --upgrade ekiben",
        )


def write(report: LoadReport, verdict: Verdict, folder: Path) -> Path:
    """Write FILES into `folder`, each whole or not at all; the path of report.json.

    The JSON comes last: where it stands, the others belong to it.
    """
    document = Document(report=report, verdict=verdict).model_dump_json()
    texts = (html.render(report, verdict), markdown.render(report, verdict), junit.render(report, verdict), document)
    for name, text in zip(FILES, texts, strict=True):
        write_atomically(folder / name, text)
    return folder / FILES[-1]
