"""What a request costs: our services beside untuned BentoML, FastAPI and LitServe, with the same models.

    python -m benchmarks.service [--quick] [--model NAME] [--json FILE]

Requests of 1, 8 and 64 rows over 1, 16 and 64 keep-alive connections. The servers take turns within each round, so that
a machine that grows slower or faster meanwhile does so for all; ratios are taken within a round, and the median over
the rounds is shown. CPU is user + system time of all the server's processes, in ms a request; every answer is checked.
Models of torch are measured where torch is installed, LitServe where it is: `pip install -e '.[bench]'`.
"""

import argparse
import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving import models, servers
from benchmarks.serving.load import Sample, measure
from benchmarks.serving.models import CONCURRENCY, Case, Trained
from benchmarks.serving.servers import FASTAPI, OURS, SERVERS, UNBATCHED

Cell = tuple[int, int]  # rows, connections

WHERE_THE_TIME_GOES = """
Where the time goes. One row: the model itself is a small part of a millisecond; HTTP, reading and checking 64 numbers,
and metrics are the rest, and that is where the servers differ. BentoML untuned rebuilds a JSON schema for each answer
and traces each request; LitServe sends each request to another process and back, which a cheap model never repays.
With 64 rows reading and writing JSON is nearly all, for everybody. Where a call costs 5 ms, each request stands in line
behind all the others; merging those that wait asks the model once for all of them, and a lone request waits for nobody.
"""


def run(case: Case, folder: Path, seconds: float, rounds: int) -> tuple[Trained, dict[Cell, dict[str, list[Sample]]]]:
    """The samples of each server, by rows and connections."""
    home = folder / "store"
    home.mkdir(parents=True)
    trained = models.train(case, folder / "model", home)
    cells = [(rows, connections) for rows in case.rows for connections in CONCURRENCY]
    names = servers.available(case)
    samples: dict[Cell, dict[str, list[Sample]]] = {cell: {name: [] for name in names} for cell in cells}
    with ExitStack() as stack:
        started = []
        for name in names:
            own = Path(shutil.copytree(home, folder / name))
            started.append(stack.enter_context(servers.serving(name, case, trained.folder, own)))
        for server in started:
            servers.wait_ready(server)
            for rows in case.rows:
                measure(server, *trained.bodies[rows], max(CONCURRENCY), seconds / 2)  # warm-up
        for _ in range(rounds):
            for rows, connections in cells:
                for server in started:
                    sample = measure(server, *trained.bodies[rows], connections, seconds)
                    samples[rows, connections][server.name].append(sample)
    return trained, samples


def summary(samples: dict[str, list[Sample]]) -> dict[str, dict[str, float]]:
    """Medians per server, and the median over the rounds of ours / this server's."""

    def of(name: str) -> dict[str, float]:
        pairs = list(zip(samples[OURS], samples[name], strict=True))
        return {
            "cpu_ms": median(s.cpu_ms for s in samples[name]),
            "requests_per_s": median(s.rate for s in samples[name]),
            "p50_ms": median(s.p50_ms for s in samples[name]),
            "p99_ms": median(s.p99_ms for s in samples[name]),
            "cpu_ours_to_this": median(a.cpu_ms / b.cpu_ms for a, b in pairs),
            "rate_ours_to_this": median(a.rate / b.rate for a, b in pairs),
            "generator_share_of_core": median(s.generator for s in samples[name]),
        }

    return {name: of(name) for name in samples}


def show(case: Case, trained: Trained, results: dict[Cell, dict[str, dict[str, float]]]) -> None:
    alone = ", ".join(f"{rows} rows {ms:.2f}" for rows, ms in trained.alone_ms.items())
    print(f"\n{case.name}: {case.text}. One call of the model itself, CPU ms: {alone}\n")
    print("rows conns server        CPU ms    req/s   p50 ms   p99 ms  CPU ours/this  rate ours/this")
    for (rows, connections), by_server in results.items():
        for name, row in by_server.items():
            print(
                f"{rows:>4}{connections:>6} {name:<10}{row['cpu_ms']:>10.3f}{row['requests_per_s']:>9.0f}"
                f"{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['cpu_ours_to_this']:>15.2f}"
                f"{row['rate_ours_to_this']:>16.2f}"
            )
    one = results[1, 1]
    print(f"\none row, one connection: CPU ours / FastAPI {one[FASTAPI]['cpu_ours_to_this']:.2f}", end="")
    if UNBATCHED in one:
        print(f", rate ours / unbatched {one[UNBATCHED]['rate_ours_to_this']:.2f}", end="")
    print(f"\none row, 64 connections: rate ours / FastAPI {results[1, 64][FASTAPI]['rate_ours_to_this']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short: does it run, not what does it cost")
    parser.add_argument("--model", help="only this one: " + ", ".join(case.name for case in models.CASES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args()
    seconds, rounds = (0.2, 1) if arguments.quick else (1.0, 3)
    report: dict[str, Any] = {"version": 2, "seconds": seconds, "rounds": rounds, "models": {}}
    os.environ |= {"BENTOML_DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}
    for case in models.available():
        if arguments.model not in (None, case.name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            trained, samples = run(case, Path(folder) / "run", seconds, rounds)
        results = {cell: summary(by_server) for cell, by_server in samples.items()}
        show(case, trained, results)
        report["models"][case.name] = {
            "alone_cpu_ms": trained.alone_ms,
            "cells": [{"rows": cell[0], "connections": cell[1], "servers": row} for cell, row in results.items()],
        }
    print()
    for name, text in SERVERS.items():
        print(f"{name:<12}{text}")
    print(WHERE_THE_TIME_GOES)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
