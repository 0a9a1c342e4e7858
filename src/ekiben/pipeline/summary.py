"""What a finished run comes to: one verdict, one exit code, and the values that its steps passed on. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ekiben.errors import StepError
from ekiben.pipeline.nodes import Node, Result
from ekiben.types import BentoRef, Check, ModelVersion, Outcome, Probe, Verdict

UNMET = ("Failed", "Error")
STOPPED = 130
"""Exit code of a run that was interrupted, as shells have it for Ctrl-C."""


@dataclass(frozen=True)
class Summary:
    """The figures of one run. What no step provided is None."""

    run: str
    verdict: Verdict
    exit_code: int
    model: ModelVersion | None
    bento: BentoRef | None
    probe: Probe | None
    report: str
    nodes: tuple[Node, ...]
    seconds: float

    def as_json(self, active: str | None, url: str) -> dict[str, Any]:
        """The object that `ekiben run --json` prints."""
        return {
            "outcome": self.verdict.outcome.value,
            "run": self.run,
            "model": self.model and {"path": str(self.model), "digest": self.model.digest},
            "bento": self.bento and self.bento.tag,
            "steps": [
                {"name": node.name, "seconds": round(node.seconds, 3), "outcome": node.phase} for node in self.nodes
            ],
            "active": active,
            "url": url,
            "report": self.report and f"{self.report}/report.html",
            "probe": self.probe and self.probe.model_dump(),
            "verdict": {"line": str(self.verdict), **self.verdict.model_dump(mode="json")},
            "seconds": round(self.seconds, 3),
        }


def of(result: Result) -> Summary:
    """Read a run's outputs. The first step that failed decides; else all verdicts together."""
    outputs: dict[str, str] = {}
    verdicts: list[str] = []
    probes: list[Probe] = []
    for node in result.nodes:
        outputs |= {key: value for key, value in node.outputs.items() if value}
        if text := node.outputs.get("verdict"):
            verdicts.append(text)
        if text := node.outputs.get("probe"):
            probes.append(Probe.model_validate_json(text))
    failed = next((node for node in result.nodes if node.phase in UNMET), None)
    verdict = _verdict(result, failed, verdicts)
    return Summary(
        run=result.name,
        verdict=verdict,
        exit_code=STOPPED if result.stopped else _exit_code(verdict, failed),
        model=_read(ModelVersion, outputs, "model"),
        bento=_read(BentoRef, outputs, "bento"),
        probe=sum(probes[1:], probes[0]) if probes else None,
        report=outputs.get("report", ""),
        nodes=result.nodes,
        seconds=result.seconds,
    )


def _verdict(result: Result, failed: Node | None, verdicts: list[str]) -> Verdict:
    if result.stopped:
        steps = ", ".join(node.name for node in result.nodes if node.phase == "Error") or "between two steps"
        check = Check(name="run", outcome=Outcome.ERROR, seen=f"the run was stopped ({steps})", wanted="all its steps")
        return Verdict.of([check], result.name)
    if failed is not None:
        if text := failed.outputs.get("verdict"):
            return Verdict.model_validate_json(text)
        seen = failed.message or f"exit code {failed.exit_code}"
        check = Check(name="step", outcome=Outcome.ERROR, seen=seen, wanted=f"step {failed.name} to succeed")
        return Verdict.of([check], result.name)
    given = [Verdict.model_validate_json(text) for text in verdicts]
    checks = [check for verdict in given for check in verdict.checks]
    return Verdict.of(checks, given[-1].subject) if given else Verdict(outcome=Outcome.PASS, subject=result.name)


def _exit_code(verdict: Verdict, failed: Node | None) -> int:
    """A verdict has its own code, and so has an error that Ekiben raised; all else is a step's own failure."""
    if failed is None or failed.outputs.get("verdict"):
        return verdict.outcome.exit_code
    raised = failed.folder is not None and (failed.folder / "error").is_file()
    return failed.exit_code if raised else StepError.exit_code


def _read(kind: Any, outputs: Mapping[str, str], key: str) -> Any:
    return kind.model_validate_json(outputs[key]) if key in outputs else None
