"""The report's files: report.json is the source, report.html and report.md are made from it."""

from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from ekiben.errors import NotFoundError, UsageError
from ekiben.files import write_atomically
from ekiben.report import html, markdown
from ekiben.types import LoadReport, Value, Verdict


class Document(Value):
    """What report.json holds."""

    schema_version: Literal[1] = 1
    kind: Literal["ekiben-load-report"] = "ekiben-load-report"
    report: LoadReport
    verdict: Verdict

    @classmethod
    def read(cls, path: Path) -> Self:
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"no load report at {path}", next_step="run a load test first") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(
                f"{path} is not a load report: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                wanted="a report.json of schema version 1",
            ) from None


def write(report: LoadReport, verdict: Verdict, folder: Path) -> Path:
    """Write report.json, report.html and report.md into `folder`, each whole or not at all; the path of report.json.

    The JSON comes last: where it stands, the other two belong to it.
    """
    write_atomically(folder / "report.html", html.render(report, verdict))
    write_atomically(folder / "report.md", markdown.render(report, verdict))
    path = folder / "report.json"
    write_atomically(path, Document(report=report, verdict=verdict).model_dump_json(indent=2))
    return path
