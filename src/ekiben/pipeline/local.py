"""Executes an Argo workflow document on this machine: each script in a process and a folder of its own.

`tests/unit/test_local_engine.py` says, feature by feature, what Argo does and that the same happens here.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from ekiben.errors import UsageError
from ekiben.pipeline import expression
from ekiben.pipeline.child import ERROR, INPUTS
from ekiben.pipeline.document import REFERENCE, Document, Task, Template

_RESULT = {"Succeeded": "Succeeded", "Failed": "Failed", "Error": "Errored", "Skipped": "Skipped", "Omitted": "Omitted"}
_WORST = ("Error", "Failed", "Succeeded", "Skipped", "Omitted")


@dataclass(frozen=True)
class Node:
    """What became of one task. `phase` is Argo's: Succeeded, Failed, Error, Skipped or Omitted."""

    name: str
    phase: str
    seconds: float = 0.0
    exit_code: int = 0
    message: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Event:
    """Something worth telling: kind is "start", "line", "retry" or "end"; `node` only at the end."""

    kind: str
    task: str
    text: str = ""
    node: Node | None = None


@dataclass(frozen=True)
class Result:
    """How a workflow ended. `nodes` holds every task in the order in which they ended, exit handler last."""

    name: str
    phase: str
    nodes: tuple[Node, ...]
    folder: Path
    seconds: float
    stopped: bool = False  # somebody asked it to end before its time


class Engine:
    """One run of one document. Not reusable.

    `root` is the project, where scripts are imported from; `folder` receives a folder for each step, with its
    log, its arguments and its outputs; `env` is the environment of every step.
    """

    def __init__(
        self,
        document: Document,
        *,
        name: str,
        root: Path,
        folder: Path,
        parameters: Mapping[str, str],
        env: Mapping[str, str],
        tell: Callable[[Event], None] = lambda event: None,
    ) -> None:
        unknown = set(parameters) - set(document.arguments)
        if unknown:
            raise UsageError(
                f"{document.name} has no parameter {', '.join(sorted(unknown))}",
                wanted=f"any of {', '.join(sorted(document.arguments))}",
            )
        self.document, self.name, self.root, self.folder, self.env = document, name, root, folder, env
        values = {**document.arguments, **parameters}
        if missing := sorted(key for key, value in values.items() if value is None):
            raise UsageError(f"{document.name} needs a value for {', '.join(missing)}")
        self.globals = {f"workflow.parameters.{key}": str(value) for key, value in values.items()}
        self.globals |= {"workflow.name": name, "workflow.uid": name, "workflow.status": "Running"}
        self._tell, self._telling = tell, threading.Lock()
        self.nodes: list[Node] = []
        self._slots = threading.Semaphore(document.parallelism or max(4, os.cpu_count() or 4))
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()

    def run(self) -> Result:
        """Execute the entrypoint, then the exit handler with the status it is to see."""
        started = time.monotonic()
        self.folder.mkdir(parents=True)
        end = self._template(self.document.templates[self.document.entrypoint], "", {}, {})
        stopped = self._stopped.is_set()
        phase = "Failed" if stopped else end.phase
        if self.document.on_exit:
            self._stopped.clear()  # a stopped workflow still gets its exit handler
            self.globals["workflow.status"] = phase
            handler = self._template(self.document.templates[self.document.on_exit], "onExit", {}, {})
            if phase == "Succeeded" and handler.phase in ("Failed", "Error"):
                phase = handler.phase
        return Result(self.name, phase, tuple(self.nodes), self.folder, time.monotonic() - started, stopped)

    def stop(self) -> None:
        """End what runs and start nothing more, except the exit handler. May be called from a signal handler."""
        self._stopped.set()
        for process in list(self._running):
            _end(process)

    def tell(self, event: Event) -> None:
        with self._telling:
            if event.node is not None:
                self.nodes.append(event.node)
            with contextlib.suppress(BrokenPipeError):  # nobody reads any more: the release goes on all the same
                self._tell(event)

    def _template(self, template: Template, name: str, inputs: Mapping[str, str], given: Mapping[str, Path]) -> Node:
        """Run `template` as the node `name`: the names of the tasks above it and its own, joined by dots."""
        if template.tasks:
            return self._dag(template, name, inputs, given)
        return self._script(template, name or template.name, inputs, given)

    def _dag(self, template: Template, path: str, inputs: Mapping[str, str], given: Mapping[str, Path]) -> Node:
        started = time.monotonic()
        scope = {f"inputs.parameters.{key}": value for key, value in inputs.items()}
        files = {f"inputs.artifacts.{key}": value for key, value in given.items()}
        waits = {task.name: expression.dependencies(task.depends) for task in template.tasks}
        left = {task.name: task for task in template.tasks}
        done: dict[str, Node] = {}
        running: dict[Future[Node], Task] = {}
        with ThreadPoolExecutor(max_workers=max(len(left), 1)) as pool:
            while left or running:
                for name in [name for name in left if waits[name] <= set(done)]:
                    task = left.pop(name)
                    results = {other: _RESULT[done[other].phase] for other in waits[name]}
                    if self._stopped.is_set() or (task.depends and not expression.depends(task.depends, results)):
                        done[name] = Node(name, "Omitted")
                        self.tell(Event("end", name, node=done[name]))
                    else:
                        full = f"{path}.{name}" if path else name
                        running[pool.submit(self._task, task, full, dict(scope), dict(files))] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    task, node = running.pop(future), future.result()
                    done[task.name] = node
                    scope |= {f"tasks.{task.name}.outputs.parameters.{k}": v for k, v in node.outputs.items()}
                    scope[f"tasks.{task.name}.status"] = node.phase
                    files |= {f"tasks.{task.name}.outputs.artifacts.{k}": v for k, v in node.artifacts.items()}
        outputs = {key: scope.get(source.strip("{} "), "") for key, source in template.outputs.items()}
        artifacts = {key: files[source.strip("{} ")] for key, source in template.output_artifacts.items()}
        phase = _dag_phase(waits, {name: node.phase for name, node in done.items()})
        return Node(path, phase, time.monotonic() - started, outputs=outputs, artifacts=artifacts)

    def _task(self, task: Task, name: str, scope: Mapping[str, str], files: Mapping[str, Path]) -> Node:
        called = self.document.templates[task.template]
        values = {**self.globals, **scope}
        if task.when and not expression.when(fill(task.when, values)):
            node = Node(name, "Skipped", message=f"when {fill(task.when, values)}")
            self.tell(Event("end", name, node=node))
            return node
        inputs = {key: value for key, value in called.inputs.items() if value is not None}
        inputs |= {key: fill(value, values) for key, value in task.parameters.items()}
        given = {key: files[source] for key, source in task.artifacts.items() if source in files}
        return self._template(called, name, inputs, given)

    def _script(self, template: Template, name: str, inputs: Mapping[str, str], given: Mapping[str, Path]) -> Node:
        retry, attempt, pause, started = template.retry, 0, template.retry.wait, time.monotonic()
        with self._slots:
            self.tell(Event("start", name))
            while True:
                node = self._attempt(template, name, attempt, inputs, given)
                again = node.phase in retry.phases and (retry.limit is None or attempt < retry.limit)
                late = retry.max_wait is not None and time.monotonic() - started + pause > retry.max_wait
                if not again or late or self._stopped.is_set():
                    break
                self.tell(Event("retry", name, f"{node.message}; again in {pause:g} s"))
                self._stopped.wait(pause)
                attempt, pause = attempt + 1, pause * retry.factor
        self.tell(Event("end", name, node=node))
        return node

    def _attempt(
        self, template: Template, name: str, attempt: int, inputs: Mapping[str, str], given: Mapping[str, Path]
    ) -> Node:
        folder = self.folder / "steps" / name / (f"attempt-{attempt}" if template.retry.phases else "")
        outputs, artifacts = folder / "outputs", folder / "inputs"
        outputs.mkdir(parents=True)
        artifacts.mkdir()
        for key, source in given.items():
            _copy(source, artifacts / key)
        args = folder / "args.json"
        args.write_text(json.dumps([{"name": key, "value": value} for key, value in inputs.items()]))
        env = {
            **self.env,
            **{key: fill(value, self.globals) for key, value in template.env.items()},
            "hera__outputs_directory": str(outputs),
            INPUTS: str(artifacts),
            ERROR: str(folder / "error"),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "ekiben.pipeline.child", str(os.getpid()), "-e", template.entrypoint]
        started = time.monotonic()
        code, last = self._execute([*command, str(args)], env, name, folder / "log")
        error = folder / "error"
        return Node(
            name=name,
            phase="Succeeded" if code == 0 else "Error" if code < 0 else "Failed",
            seconds=time.monotonic() - started,
            exit_code=code,
            message=error.read_text() if error.is_file() else "" if code == 0 else last,
            outputs={key: _read(outputs / "parameters" / key) for key in template.outputs},
            artifacts={
                key: outputs / "artifacts" / key
                for key in template.output_artifacts
                if (outputs / "artifacts" / key).exists()
            },
            folder=folder,
        )

    def _execute(self, command: list[str], env: Mapping[str, str], name: str, log: Path) -> tuple[int, str]:
        """Run to its end, each line to the log and to the listener; the exit code and the last line."""
        last = ""
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=self.root, env=dict(env), text=True, errors="replace", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self._running.add(process)
            if self._stopped.is_set():  # stop() may have looked just before this one was added
                _end(process)
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                file.flush()
                last = line.strip() or last
                self.tell(Event("line", name, line.rstrip("\n")))
            process.wait()
            self._running.discard(process)
        return process.returncode, last


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each `{{reference}}` by its value. One without a value stays as it is, as with Argo."""
    return REFERENCE.sub(lambda match: values.get(match[1], match[0]), text)


def _dag_phase(waits: Mapping[str, set[str]], phases: Mapping[str, str]) -> str:
    """A DAG ends as its worst leaf; an omitted task stands for what it waited for."""
    leaves = set(waits) - {name for needs in waits.values() for name in needs}

    def effective(name: str) -> str:
        if phases[name] == "Omitted" and waits[name]:
            return min((effective(need) for need in waits[name]), key=_WORST.index)
        return phases[name]

    worst = min((effective(leaf) for leaf in leaves), key=_WORST.index)
    return worst if worst in ("Error", "Failed") else "Succeeded"


def _end(process: "subprocess.Popen[str]") -> None:
    """Ask the step's whole group to end; ten seconds later, make it."""

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, number)

    send(signal.SIGTERM)
    timer = threading.Timer(10, send, [signal.SIGKILL])
    timer.daemon = True
    timer.start()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
