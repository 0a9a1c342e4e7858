"""Steps for tests of the local engine: small, real Hera runner scripts."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated

from hera.workflows import Artifact, ArtifactLoader, Input, NoneArchiveStrategy, Output, Parameter, script

from ekiben.errors import UsageError


class Text(Input):
    text: str


class TextOut(Output):
    text: Annotated[str, Parameter(name="text")]


@script(constructor="runner")
def echo(given: Text) -> TextOut:
    return TextOut(text=given.text, result=f"said {given.text}")


@script(constructor="runner")
def fail(given: Text) -> TextOut:
    """Saves its output, then ends with an exit code of its own."""
    return TextOut(text=given.text, exit_code=7)


@script(constructor="runner")
def complain(given: Text) -> TextOut:
    raise UsageError(f"{given.text} was seen", wanted="something else", next_step="try that")


@script(constructor="runner")
def die(given: Text) -> TextOut:
    os.kill(os.getpid(), signal.SIGKILL)
    return TextOut(text="never")


@script(constructor="runner")
def fail_until_third(given: Text) -> TextOut:
    """Fails until it has been called three times; `text` names the file that counts."""
    counter = Path(given.text)
    calls = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(calls))
    return TextOut(text=str(calls), exit_code=0 if calls >= 3 else 1)


@script(constructor="runner")
def sleep(given: Text) -> TextOut:
    started = time.time()
    time.sleep(float(given.text))
    return TextOut(text=f"{started} {time.time()}")


class FileOut(Output):
    data: Annotated[dict[str, int], Artifact(name="data", archive=NoneArchiveStrategy())]


@script(constructor="runner")
def write(given: Text) -> FileOut:
    return FileOut(data={given.text: len(given.text)})


class FileIn(Input):
    data: Annotated[dict[str, int], Artifact(name="data", loader=ArtifactLoader.json)]


@script(constructor="runner")
def read(given: FileIn) -> TextOut:
    return TextOut(text=",".join(given.data))
