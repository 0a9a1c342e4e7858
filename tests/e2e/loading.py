"""What the tests of load tests share: the locustfile, golden answers, and the processes that a run consists of."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from ekiben.loadtest.runner import run
from ekiben.loadtest.slo import Slo
from ekiben.types import BentoRef, LoadPlan, LoadReport, ModelVersion

LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"
MODEL = ModelVersion.parse("acme/vision/digits:v3", "0123456789abcdef" * 2)
BENTO = BentoRef(name="digits", version="abc123", digest="f" * 64, model=MODEL)


def write_golden(folder: Path) -> Path:
    path = folder / "golden.json"
    examples = [{"request": {"rows": [[x]]}, "response": {"classes": [x % 10]}} for x in range(20)]
    path.write_text(json.dumps({"version": 1, "route": "/predict", "examples": examples}))
    return path


def too_busy(reason: str) -> bool:
    """Whether this machine was too busy to offer the load on time, as an INVALID report says of itself."""
    return "could not keep its schedule" in reason


def load(
    url: str, out: Path, plan: LoadPlan, *, locustfile: Path = LOCUSTFILE, slo: Slo | None = None, tries: int = 3
) -> LoadReport:
    out.mkdir(exist_ok=True)
    golden = write_golden(out)
    report = run(locustfile=locustfile, url=url, golden=golden, plan=plan, subject=BENTO, out=out, slo=slo)
    if too_busy(report.reason) and tries > 1:
        return load(url, out, plan, locustfile=locustfile, slo=slo, tries=tries - 1)
    return report


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def offering(log: Path) -> bool:
    """Whether the Locust that writes there offers load."""
    return log.exists() and "measuring" in log.read_text()


def family(parent: psutil.Process) -> list[psutil.Process]:
    """The Locust processes beneath `parent`, the leader first."""
    found = []
    for child in parent.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may be ending
            if "locust" in child.cmdline():
                found.append(child)
    return found


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
