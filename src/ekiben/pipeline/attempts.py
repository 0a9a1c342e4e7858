"""One attempt at a step: Hera's runner in a process and a folder of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from ekiben.pipeline.child import ERROR, INPUTS
from ekiben.pipeline.model import Template

RESULT_BYTES = 256 * 1024
"""The most of a script's standard output that Argo keeps as its result."""


@dataclass(frozen=True)
class Call:
    """What is to be run. `limit`: seconds after which it is ended; None: none."""

    template: Template
    name: str
    folder: Path
    inputs: Mapping[str, str]
    artifacts: Mapping[str, Path]
    env: Mapping[str, str]
    limit: float | None


@dataclass(frozen=True)
class Attempt:
    """What came of it. `phase` is Succeeded, Failed or Error; `result` what it printed."""

    phase: str
    exit_code: int = 0
    message: str = ""
    result: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)


class Performer(Protocol):
    def run(self, call: Call, line: Callable[[str], None]) -> Attempt: ...

    def end(self) -> None:
        """End all that runs, and all that is started until `open`."""

    def open(self) -> None: ...


class Processes:
    """`root` is the project, where scripts are imported from; `env` is the environment of every step."""

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        self._root, self._env = root, env
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = threading.Event()

    def run(self, call: Call, line: Callable[[str], None]) -> Attempt:
        folder, template = call.folder, call.template
        outputs, artifacts = folder / "outputs", folder / "inputs"
        outputs.mkdir(parents=True)
        artifacts.mkdir()
        for key, source in call.artifacts.items():
            _copy(source, artifacts / key)
        args = folder / "args.json"
        args.write_text(json.dumps([{"name": key, "value": value} for key, value in call.inputs.items()]))
        env = {
            **self._env,
            **call.env,
            "hera__outputs_directory": str(outputs),
            INPUTS: str(artifacts),
            ERROR: str(folder / "error"),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "ekiben.pipeline.child", str(os.getpid()), "-e", template.entrypoint]
        code, late, last, result = self._execute([*command, str(args)], env, folder / "log", line, call.limit)
        error = folder / "error"
        found = {
            key: _read(outputs / "parameters" / key) if (outputs / "parameters" / key).is_file() else source.default
            for key, source in template.outputs.items()
        }
        phase = "Failed" if late else "Succeeded" if code == 0 else "Error" if code < 0 else "Failed"
        message = error.read_text() if error.is_file() else "" if code == 0 else last
        if late:
            message = f"ended after its deadline of {call.limit:g} s"
        elif phase == "Succeeded" and (missing := [key for key, value in found.items() if value is None]):
            phase, message = "Error", f"it wrote no output {', '.join(missing)}"
        return Attempt(
            phase=phase,
            exit_code=code,
            message=message,
            result=result,
            outputs={key: value for key, value in found.items() if value is not None},
            artifacts={
                key: outputs / "artifacts" / key
                for key in template.output_artifacts
                if (outputs / "artifacts" / key).exists()
            },
        )

    def end(self) -> None:
        self._ended.set()
        for process in list(self._running):
            _end(process)

    def open(self) -> None:
        self._ended.clear()

    def _execute(
        self, command: list[str], env: Mapping[str, str], log: Path, line: Callable[[str], None], limit: float | None
    ) -> tuple[int, bool, str, str]:
        """Run to its end, each line to the log and to the listener; the exit code, whether its time was up, the last
        line, and its standard output."""
        last, printed, size = "", list[str](), 0
        writing, late = threading.Lock(), threading.Event()
        with log.open("w") as file, contextlib.ExitStack() as after:
            process = subprocess.Popen(
                command, cwd=self._root, env=dict(env), text=True, errors="replace", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            self._running.add(process)
            if self._ended.is_set():  # end() may have looked just before this one was added
                _end(process)
            if limit is not None:
                timer = threading.Timer(max(limit, 0), _too_late, [late, process])
                timer.start()
                after.callback(timer.cancel)

            def told(text: str) -> None:
                nonlocal last
                with writing:
                    file.write(text)
                    file.flush()
                    last = text.strip() or last
                    line(text.rstrip("\n"))

            assert process.stdout is not None
            assert process.stderr is not None
            errors = threading.Thread(target=_each, args=[process.stderr, told])
            errors.start()
            for text in process.stdout:
                if size < RESULT_BYTES:
                    printed.append(text)
                    size += len(text)
                told(text)
            process.wait()
            errors.join()
            self._running.discard(process)
            process.stdout.close()
            process.stderr.close()
        return process.returncode, late.is_set(), last, "".join(printed)[:RESULT_BYTES].rstrip("\n")


def _each(stream: IO[str], told: Callable[[str], None]) -> None:
    for text in stream:
        told(text)


def _too_late(late: threading.Event, process: "subprocess.Popen[str]") -> None:
    late.set()
    _end(process)


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
    return path.read_text()
