"""This machine: Python, packages, tracker, store, port, git, and what builds images."""

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from ekiben.config import Project
from ekiben.doctor import addresses
from ekiben.doctor.finding import Check, Finding, missing, ok, warn, wrong

SPOKEN_TO = ("bentoml", "wandb", "hera")
"""Packages whose behaviour differs from version to version, so each has a line of its own."""
LEAST_FREE = 5 * 1024**3  # bytes
_REINSTALL = "pip install --upgrade ekiben, in a fresh virtual environment"


def checks(project: Project, environ: Mapping[str, str]) -> list[Check]:
    """`environ` is the process's environment."""
    given: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("Python", lambda: [python(sys.version_info[:3], metadata.metadata("ekiben")["Requires-Python"])]),
        ("packages", lambda: packages(metadata.requires("ekiben") or [], _installed)),
        ("store", lambda: [store(_store_home())]),
        ("port", lambda: [port(project)]),
        ("git", lambda: [git(project.root)]),
        ("image engine", lambda: [image_engine()]),
    ]
    return [*(Check(name, look) for name, look in given), *tracker(project, environ)]


def python(version: tuple[int, ...], wanted: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    text = ".".join(map(str, version))
    if SpecifierSet(wanted).contains(text):
        return ok("Python", f"{text} ({platform.system()} {platform.machine()})")
    return wrong("Python", text, wanted, "make a virtual environment with a newer Python")


def packages(requirements: list[str], installed: Callable[[str], str | None]) -> list[Finding]:
    """A line for each that matters most, one for all others. `installed` gives a version, or None."""
    from packaging.requirements import Requirement

    found, bad, others = [], [], 0
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = installed(requirement.name)
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        if requirement.name in SPOKEN_TO:
            name, wanted = requirement.name, str(requirement.specifier)
            seen = version or "not installed"
            found.append(ok(name, seen) if fits else wrong(name, seen, wanted, _REINSTALL))
        else:
            others += 1
            bad += [] if fits else [f"{requirement.name} {version or 'is not installed'} (wanted {requirement})"]
    name = "other packages"
    rest = wrong(name, "\n".join(bad), "what ekiben needs", _REINSTALL) if bad else ok(name, f"all {others} fit")
    return [*found, rest]


def store(home: Path) -> Finding:
    """BentoML's store, or the folder that it will be made in: writable, and with room."""
    name, step = "store", "set BENTOML_HOME to a folder on a disk with room that you may write to"
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        return wrong(name, f"{there} cannot be written to: {error.strerror}", f"to write to {home}", step)
    if free < LEAST_FREE:
        return warn(name, f"{home}: {free / 1024**3:.1f} GiB free", f"{LEAST_FREE // 1024**3} GiB or more", step)
    return ok(name, f"{home}: {free / 1024**3:.0f} GiB free")


def port(project: Project) -> Finding:
    """The local service's port: free, or taken by the service itself."""
    from ekiben.processes import Daemon, port_is_free

    number = project.settings.port
    if number == 0:
        return ok("port", "any free one")
    if port_is_free(number):
        return ok("port", f"{number} is free")
    switches = [Daemon(path.parent, path.stem) for path in project.state.glob("*/**/switch.json")]
    if any(each.url.endswith(f":{number}") and each.alive for each in switches):
        return ok("port", f"{number}: the service listens there")
    step = "end what listens there, or set `port` in [tool.ekiben] (EKIBEN_PORT); 0 takes a free one"
    return wrong("port", f"another program listens on {number}", "a free port for the local service", step)


def git(root: Path) -> Finding:
    wanted, step = "a git work tree, so that a release says which code it came from", "git init, and commit"
    if not shutil.which("git"):
        return warn("git", "not installed", wanted, "install git")
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    if done.returncode:
        return warn("git", (done.stderr.strip().splitlines() or ["no commit"])[0], wanted, step)
    return ok("git", f"at {done.stdout.strip()}")


def image_engine() -> Finding:
    from ekiben.errors import EkibenError
    from ekiben.packaging import engines

    try:
        return ok("image engine", engines.choose().name)
    except EkibenError as error:
        return warn("image engine", error.seen, "one, for `ekiben image` only", error.next_step)


def tracker(project: Project, environ: Mapping[str, str]) -> list[Check]:
    """The W&B server that the environment names, or the embedded one."""
    from ekiben import tracking

    url, key = environ.get("WANDB_BASE_URL") or "", environ.get("WANDB_API_KEY") or ""
    if url or key:
        return addresses.wandb(url or tracking.CLOUD, key)
    return [Check("tracker", lambda: [_embedded(project)])]


def _embedded(project: Project) -> Finding:
    from ekiben import tracking

    daemon = tracking.tracker(project)
    if not daemon.alive:
        return ok("tracker", "embedded; it is started when it is needed")
    found = addresses.wandb_server("tracker", daemon.url)
    if found.outcome != "ok":
        return missing("tracker", f"{found.seen}; its log is {daemon.log}", "an answer", "ekiben down, then ekiben up")
    return ok("tracker", f"embedded, at {daemon.url}")


def _store_home() -> Path:
    from ekiben.packaging import store

    return store.home()


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
