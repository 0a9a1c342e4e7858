"""Writes what was planned: all of it or nothing, and never over what is there."""

import contextlib
from pathlib import Path

from ekiben.errors import EkibenError, UsageError
from ekiben.scaffold.plan import Plan


def write(plan: Plan) -> None:
    """UsageError if a file has come in the way since it was planned; EkibenError if one cannot be written."""
    made: list[Path] = []
    try:
        for name, text in plan.files.items():
            path = plan.root / name
            for folder in reversed(path.relative_to(plan.root).parents[:-1]):
                if not (plan.root / folder).is_dir():
                    (plan.root / folder).mkdir()
                    made.append(plan.root / folder)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
    except OSError as error:
        _take_back(made)
        if isinstance(error, FileExistsError):
            raise UsageError(
                f"{error.filename} is there already; nothing was written",
                wanted="nothing in the way: nothing is overwritten",
                next_step="move it away, or choose another name",
            ) from None
        raise EkibenError(
            f"{error.filename} cannot be written: {error.strerror}; nothing was kept",
            wanted="a folder that you may write to, with room on its disk",
        ) from None


def _take_back(made: list[Path]) -> None:
    for path in reversed(made):
        with contextlib.suppress(OSError):  # somebody else has put something into the folder: it stays
            path.rmdir() if path.is_dir() else path.unlink()
