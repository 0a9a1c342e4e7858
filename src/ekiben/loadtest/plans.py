"""The [load] table of slo.toml. Pure."""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ekiben.errors import UsageError
from ekiben.types import LoadPlan

TIMES = {"warm_up": "warm_up_s", "duration": "measure_s", "extend_to": "extend_to_s", "timeout": "timeout_s"}
PLAIN = ("rate", "arrivals", "users", "seed", "max_in_flight", "processes")
LOAD_KEYS = ", ".join(["profile", "trace", *TIMES, *PLAIN])

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|%)\s*")


def quantity(text: str) -> tuple[float, str] | None:
    """`250 ms` -> (250.0, "ms"); the unit is ms, s or %. None for anything else."""
    match = _QUANTITY.fullmatch(text)
    return (float(match[1]), match[2]) if match else None


def plan_of(table: dict[str, Any], path: Path) -> LoadPlan:
    """UsageError, naming `path`, for what is wrong in the table. A trace's path is relative to it."""
    fields: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path}: [load] {key}"
        if key in TIMES:
            fields[TIMES[key]] = _seconds(value, where)
        elif key == "profile":
            fields[key] = _profile(value, where)
        elif key == "trace":
            if not isinstance(value, str) or not value:
                raise UsageError(f"{where} = {value!r}", wanted="the path of a file, as a string")
            fields[key] = str(path.parent / value)
        elif key in PLAIN:
            fields[key] = value
        else:
            raise UsageError(f"{path}: [load] has no {key!r}", wanted=f"one of {LOAD_KEYS}")
    try:
        return LoadPlan(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise UsageError(f"{path}: [load] {first['ctx']['error']}") from None
        raise UsageError(f"{path}: [load] {first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None


def _profile(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    """[["0s", 50], ["60s", 200]]: the rate at each time, linear in between."""
    pairs = value if isinstance(value, list) else []
    if not pairs or not all(
        isinstance(pair, list) and len(pair) == 2 and type(pair[1]) in (int, float) for pair in pairs
    ):
        raise UsageError(f"{where} = {value!r}", wanted='pairs of time and rate, such as [["0s", 50], ["60s", 200]]')
    return tuple((_seconds(at, where), float(rate)) for at, rate in pairs)


def _seconds(value: Any, where: str) -> float:
    amount, unit = quantity(value) or (0.0, "") if isinstance(value, str) else (0.0, "")
    if unit not in ("s", "ms"):
        raise UsageError(f"{where} = {value!r}", wanted='a time with its unit, such as "20s" or "500ms"')
    return amount / (1000 if unit == "ms" else 1)
