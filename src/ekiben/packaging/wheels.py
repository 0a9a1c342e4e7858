"""The wheels of a lock, fetched on the host: the image's build then needs no network, and no index's credentials."""

import platform
import subprocess
import sys
from pathlib import Path

from ekiben.errors import EkibenError

_MANYLINUX = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux1")


def fetch(lock: Path, python: str, target: Path) -> None:
    """Put a wheel of every package in `lock` into `target`, each checked against the lock's hashes.

    The index is the one that pip is configured with. For another Python than this one, or from another system than
    Linux, packages must have wheels; here a source distribution, its hash checked, is built.
    """
    pip = [sys.executable, "-m", "pip"]
    flags = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--require-hashes", "-r", str(lock)]
    if sys.platform == "linux" and python == f"{sys.version_info.major}.{sys.version_info.minor}":
        command = [*pip, "wheel", *flags, "--wheel-dir", str(target)]
    else:
        machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
        fits = [f"--platform={name}_{machine}" for name in _MANYLINUX]
        command = [*pip, "download", *flags, "--only-binary=:all:", f"--python-version={python}", *fits]
        command += ["--implementation=cp", "--dest", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise EkibenError(
            f"the packages of the image cannot be fetched:\n{(done.stderr or done.stdout).strip()[-2000:]}",
            wanted=f"a wheel with a locked hash for each line of {lock.name}, for Python {python} on Linux",
            next_step="check pip's index (`pip config list`), or write the lock anew: ekiben lock",
        )
