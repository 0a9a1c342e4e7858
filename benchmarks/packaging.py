"""Packaging beside plain BentoML: how long a build takes cold and warm, and how large an image is.

    python benchmarks/packaging.py [--base IMAGE] [--repeat 3]

Builds are whole commands, interpreter start included, from a model that is in the store; "ekiben, warm" is the second
`ekiben build` of the same content by its exact version, which finds the Bento and builds nothing. By an alias W&B is
asked first what it names, and "wandb alone" is what its client takes for that. All run with byte code, as pip installs
it. Rounds alternate, and each number is the fastest of its rounds. Plain `bentoml build` runs with the project's own
bentofile, which does not lock packages, so neither side asks an index. With `--base`, an image of Buildah's with apt,
python3 and pip as in python:3.x-slim, both image builds run on it; `bentoml containerize` needs the network inside its
build.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAIN = "from ekiben.pipeline import stages; print(stages.train('digits', {}).model_dump_json())"
TRACKED = """
import json
from ekiben import config, tracking
print(json.dumps(tracking.environment(config.Project.here())))
"""
ASK = "import wandb; wandb.Api().artifact('digits:latest')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--base", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            bench.builds(given.repeat)
            if given.base:
                bench.images(given.base)
        finally:
            bench.ekiben("down")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "project", folder / "bentoml"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "EKIBEN_"))}
        kept = {key: value for key, value in kept.items() if key != "PYTHONDONTWRITEBYTECODE"}
        kept["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        self.env = {**kept, "BENTOML_HOME": str(self.home), "BENTOML_DO_NOT_TRACK": "true", "EKIBEN_PORT": "0"}
        for part in ("bentos", "service", "workflows", "loadtests"):
            shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("bentofile.yaml", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / file, self.root)
        model = json.loads(self.run(sys.executable, "-c", TRAIN).splitlines()[-1])
        self.exact = "{entity}/{project}/{name}:{version}@{digest}".format(**model)
        self.ekiben("pull", self.exact)

    def builds(self, repeat: int) -> None:
        best: dict[str, float] = {}
        tracked = json.loads(self.run(sys.executable, "-c", TRACKED))

        def timed(name: str, command: Callable[[], object]) -> None:
            start = time.perf_counter()
            command()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)

        for _ in range(repeat):
            shutil.rmtree(self.home / "bentos", ignore_errors=True)
            timed("bentoml build", self.plain)
            timed("ekiben, cold", lambda: self.ekiben("build", self.exact))
            timed("ekiben, warm", lambda: self.ekiben("build", self.exact))
            timed("…, by alias", lambda: self.ekiben("build", "digits:latest"))
            timed("wandb alone", lambda: self.run(sys.executable, "-c", ASK, env={**self.env, **tracked}))
        plain = best["bentoml build"]
        for name, seconds in best.items():
            print(f"{name:<16}{seconds:7.2f} s   {seconds / plain:5.2f} x bentoml build")

    def images(self, base: str) -> None:
        buildah = {"BUILDAH_ISOLATION": "chroot", **self.env}
        ours = json.loads(self.ekiben("image", "digits", "--base", base, "--engine", "buildah", "--json"))
        bentofile = self.root / "bentofile.yaml"
        bentofile.write_text(f"{bentofile.read_text()}\ndocker:\n  base_image: {base}\n")
        tag = self.plain()
        self.run(
            sys.executable, "-m", "bentoml", "containerize", tag, "--backend", "buildah", "-t", "localhost/plain:bench",
            env=buildah,
        )  # fmt: skip
        names = {"bentoml": "localhost/plain:bench", "ekiben": f"{ours['repository']}:{ours['bento']['version']}"}
        sizes = {}
        for who, name in {"base": base, **names}.items():
            told = self.run("buildah", "images", "--json", name, env=buildah)
            sizes[who] = json.loads(told)[0]["size"]
        for who, size in sizes.items():
            print(f"image, {who:<9}{size:>9}   {_bytes(size) / _bytes(sizes['bentoml']):5.2f} x bentoml containerize")
        self.run("buildah", "rmi", *names.values(), env=buildah)

    def plain(self) -> str:
        told = self.run(sys.executable, "-m", "bentoml", "build", "-o", "tag", "--arg", "model=digits:v0")
        return told.strip().removeprefix("__tag__:")

    def ekiben(self, *args: str) -> str:
        return self.run(sys.executable, "-m", "ekiben.cli", *args)

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(command, cwd=self.root, env=env or self.env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout


def _bytes(size: str) -> float:
    """Buildah tells sizes as text, even in JSON: "1.28 GB"."""
    number, unit = size.split()
    return float(number) * 1000 ** ("B", "KB", "MB", "GB").index(unit.upper())


if __name__ == "__main__":
    main()
