"""What the local engine costs: a fan-out of 200 steps, 4 at a time, beside a bare pool that starts the same scripts.

    python -m benchmarks.pipeline [--steps 200] [--sleep 0.5] [--rounds 2]

Both run Hera's runner with the same script, which sleeps; the engine also keeps logs, outputs and a ledger that a run
can be resumed from. The rounds alternate. A step's time is that of the slot it holds: wall time by parallelism and
steps. The exit code is 1 if the engine adds more than 5 % of the pool's time and 50 ms to a step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import yaml
from hera.workflows import DAG, Workflow

from ekiben.pipeline import checks, document
from ekiben.pipeline.attempts import Processes
from ekiben.pipeline.local import Engine
from tests.fakes import engine_steps

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sleep", type=float, default=0.5, help="seconds that a step sleeps")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    taken: dict[str, list[float]] = {"engine": [], "pool": []}
    own: list[float] = []
    for number in range(given.rounds):
        # The order changes, so that a machine that gets slower is nobody's disadvantage.
        for name in ("engine", "pool") if number % 2 else ("pool", "engine"):
            with tempfile.TemporaryDirectory() as folder:
                work = engine if name == "engine" else pool
                started, busy = time.perf_counter(), time.process_time()
                work(Path(folder), given.steps, given.sleep)
                taken[name].append((time.perf_counter() - started) * AT_ONCE / given.steps)
            if name == "engine":
                own.append((time.process_time() - busy) / given.steps)
            print(f"round {number + 1}, {name}: {taken[name][-1] * 1000:.0f} ms a step")
    ours, bare = median(taken["engine"]), median(taken["pool"])
    allowed = 0.05 * bare + 0.05
    print(
        f"{given.steps} steps, {AT_ONCE} at a time: engine {ours * 1000:.0f} ms a step, pool {bare * 1000:.0f} ms,"
        f" ratio {ours / bare:.3f}; {(ours - bare) * 1000:+.0f} ms, allowed {allowed * 1000:.0f} ms;"
        f" the engine itself computes {median(own) * 1000:.1f} ms"
    )
    sys.exit(ours - bare > allowed)


def engine(folder: Path, steps: int, sleep: float) -> None:
    with Workflow(name="fan-out", entrypoint="main", parallelism=AT_ONCE) as workflow, DAG(name="main"):
        engine_steps.sleep(name="sleep", arguments={"text": str(sleep)}, with_sequence={"count": str(steps)})
    made = yaml.safe_load(workflow.to_yaml())
    checks.require(made)
    result = Engine(
        document.read(made), name="fan-out", folder=folder / "run", state=folder / "state", parameters={},
        steps=Processes(ROOT, environment()), tell=lambda event: None,
    ).run()  # fmt: skip
    done = [node for node in result.nodes if node.phase == "Succeeded" and "sleep(" in node.name]
    if len(done) != steps:
        sys.exit(f"{len(done)} of {steps} steps succeeded")


def pool(folder: Path, steps: int, sleep: float) -> None:
    args = folder / "args.json"
    args.write_text(json.dumps([{"name": "text", "value": str(sleep)}]))
    command = [sys.executable, "-m", "hera.workflows.runner", "-e", "tests.fakes.engine_steps:sleep", str(args)]

    def step(number: int) -> None:
        env = {**environment(), "hera__outputs_directory": str(folder / str(number))}
        # In a session of its own, as the engine's: Linux shares processors out by sessions.
        subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL, start_new_session=True)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(step, range(steps)))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


if __name__ == "__main__":
    main()
