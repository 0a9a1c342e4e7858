"""The process of one step: Hera's own runner, ended when whoever started it ends.

`ekiben run` may be killed at any moment. Its slots and switch shall live on, but a step that nobody waits for must
not go on building and switching: the next run would race with it. A thread that sees its parent change works on every
Unix, and takes the step's whole process group (Locust, BentoML) along.
"""

import os
import signal
import sys
import threading
import time

INPUTS = "EKIBEN_STEP_INPUTS"
"""Folder of the step's input artifacts. Hera's runner knows one per machine, where parallel steps would collide."""

ERROR = "EKIBEN_STEP_ERROR"
"""File that receives the message of an EkibenError, so that the engine can show it without the log around it."""


def die_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """`python -m ekiben.pipeline.child PARENT_PID -e module:function args.json`, in a process group of its own."""
    die_with(int(sys.argv.pop(1)))
    from hera.workflows import Artifact
    from hera.workflows._runner.util import _run

    from ekiben.errors import EkibenError

    inputs = os.environ[INPUTS]
    Artifact._get_default_inputs_path = lambda self: f"{inputs}/{self.name}"
    try:
        _run()
    except EkibenError as error:
        with open(os.environ[ERROR], "w") as file:  # noqa: PTH123
            file.write(str(error))
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
