"""A verdict as JUnit XML, one test case for each check, as GitLab and Jenkins read it. Pure."""

import xml.etree.ElementTree as ET
from collections import Counter

from ekiben.report.headline import headline, lineage, settings
from ekiben.report.text import printable, shortened
from ekiben.types import Check, LoadReport, Outcome, Verdict


def render(report: LoadReport, verdict: Verdict) -> str:
    """FAIL and INCONCLUSIVE are failures, ERROR is an error; each says what was seen and what was wanted.

    A case keeps its name from run to run, whatever the version and the limits are, so that CI can tell what is new.
    """
    outcomes = Counter(check.outcome for check in verdict.checks)
    failures = outcomes[Outcome.FAIL] + outcomes[Outcome.INCONCLUSIVE]
    lasted = f"{report.settings.warm_up_s + report.measured_s:.3f}"
    counts = {"tests": str(len(verdict.checks)), "failures": str(failures), "errors": str(outcomes[Outcome.ERROR])}
    name = f"load test of {report.bento.name}" if report.bento else "load test"
    root = ET.Element("testsuites", {"name": "ekiben", "time": lasted, **counts})
    started = f"{report.started:%Y-%m-%dT%H:%M:%S}"
    suite = ET.SubElement(root, "testsuite", {"name": name, "time": lasted, "timestamp": started, **counts})
    properties = ET.SubElement(suite, "properties")
    for key, value in [*lineage(report), *settings(report)]:
        ET.SubElement(properties, "property", {"name": key, "value": _shown(value)})
    used: Counter[str] = Counter()
    for check in verdict.checks:
        used[check.name] += 1
        title = _shown(check.name if used[check.name] == 1 else f"{check.name} ({used[check.name]})")
        case = ET.SubElement(suite, "testcase", {"name": title, "classname": name, "time": "0"})
        _outcome(case, check, report)
    ET.SubElement(suite, "system-out").text = _shown(f"{verdict.outcome}: {headline(verdict)}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _outcome(case: ET.Element, check: Check, report: LoadReport) -> None:
    if check.outcome is Outcome.PASS:
        ET.SubElement(case, "system-out").text = _shown(str(check))
        return
    tag = "error" if check.outcome is Outcome.ERROR else "failure"
    message = _shown(f"{check.outcome}: {check}")
    found = ET.SubElement(case, tag, {"type": check.outcome, "message": message})
    errors = [f"{e.count:,} × {_shown(e.kind)}: {_shown(e.example)}" for e in report.errors]
    found.text = "\n".join([message, *errors])  # GitLab shows the text, not the message


def _shown(text: str) -> str:
    return shortened(printable(text))
