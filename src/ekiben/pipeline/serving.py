"""A Bento of the store, served on loopback for as long as a block lasts."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ekiben.errors import UnavailableError
from ekiben.leash import GRACE_S
from ekiben.packaging import bundle
from ekiben.packaging.store import Stored
from ekiben.processes import free_port, ready

START_SECONDS = 90.0


@contextlib.contextmanager
def serving(bento: Stored, folder: Path) -> Iterator[str]:
    """The address where it answers. `folder`, which does not exist, gets what is served and the server's log.

    It ends with the block, and with this process however that ends. UnavailableError when it does not become ready.
    """
    folder.mkdir(parents=True)
    bundle.export(bento.tag, folder / "bento")
    (folder / "home").mkdir()
    log, port = folder / "server.log", free_port()
    # Two BentoML servers that share a BENTOML_HOME wipe each other's metrics. A server needs no key.
    env = {key: value for key, value in os.environ.items() if key != "WANDB_API_KEY"}
    env |= {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    serve = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        str(folder / "bento"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with log.open("wb") as output:
        leash = subprocess.Popen(
            [sys.executable, "-m", "ekiben.leash", *serve],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=env,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is for this process, which then lets go of the leash
        )
    try:
        _wait_ready(leash, bento.tag, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        assert leash.stdin is not None
        leash.stdin.close()
        try:
            leash.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            leash.kill()
            leash.wait()


def _wait_ready(leash: "subprocess.Popen[bytes]", tag: str, url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready(url):
        ended = leash.poll() is not None
        if ended or time.monotonic() > deadline:
            words = log.read_text(errors="replace").splitlines()[-10:]
            what = "ended while it started" if ended else f"was not ready after {START_SECONDS:.0f} s"
            raise UnavailableError(
                "\n".join([f"the Bento {tag} {what}; its last words:", *(f"  | {line}" for line in words)]),
                wanted=f"200 from {url}/readyz",
                next_step=f"`bentoml serve {tag}` shows the same",
            )
        time.sleep(0.1)
