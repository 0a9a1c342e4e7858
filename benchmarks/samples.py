"""Ten million samples: how long and how much memory it takes from the samples to the report's files.

    python -m benchmarks.samples [--samples 10000000] [--workers 2]

The samples come as in a run: chunk by chunk, as bytes from each of the worker processes, a second of theirs at a time,
out of order within it. Timed is what the master does with them after the last one came (the report, its verdict,
report.json, .html and .md); taking them in, which happens during the run, is told beside it, for each sample. The
memory is the peak of this process with all of Ekiben, Locust and scipy that a master has loaded.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ekiben.loadtest.recorder import Chunk

RATE = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    import locust  # noqa: F401  # first, as in a run: it patches what the others import

    from ekiben.loadtest.arrivals import shard
    from ekiben.loadtest.judging import judge
    from ekiben.loadtest.recorder import Collector
    from ekiben.loadtest.slo import Slo
    from ekiben.loadtest.summary import summarise
    from ekiben.report.write import write
    from ekiben.types import LoadPlan

    plan = LoadPlan(rate=RATE, warm_up_s=0, measure_s=given.samples / RATE, processes=given.workers)
    before = peak_mb()
    shards = [shard(plan, worker) for worker in range(given.workers)]
    collector = Collector(shards)
    took, count = 0.0, 0
    for worker, due in enumerate(shards):
        for chunk in chunks(due):
            start = time.perf_counter()
            count += len(collector.take(chunk, worker))
            took += time.perf_counter() - start
    shards.clear()
    del due
    collected = peak_mb()

    start = time.perf_counter()
    report = summarise(
        collector.recording(), plan, url="http://x", endpoint="", started=datetime.now(UTC), subject=None
    )
    slo = Slo(objectives={"p50": 100.0, "p99": 250.0, "p99.9": 1000.0, "error_rate": 0.01, "achieved_rate": 0.9})
    verdict = judge(report, slo)
    summarised = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        write(report, verdict, Path(folder))
        sizes = {file.name: file.stat().st_size for file in sorted(Path(folder).iterdir())}
    seconds = time.perf_counter() - start
    print(f"{count:,} samples of {given.workers} workers: {verdict.outcome}, {report.validity}")
    print(f"  taken in      {took / count * 1e9:6.0f} ns a sample, {took:.2f} s in all, during the run")
    print(f"  report        {seconds:6.2f} s, of which {summarised:.2f} s for the figures      wanted: 10 s")
    print(
        f"  peak memory   {peak_mb():6.0f} MB ({before:.0f} at first, {collected:.0f} when all were in)  wanted: 500 MB"
    )
    print(f"  files         {json.dumps(sizes)}")
    if seconds > 10 or peak_mb() > 500:
        sys.exit("over what is wanted")


def chunks(due: "NDArray[np.float64]") -> "Iterator[Chunk]":
    """A worker's records, a second at a time: gamma latencies, 0.03 % errors."""
    import numpy as np

    from ekiben.loadtest.recorder import RECORD, Chunk

    rng = np.random.default_rng(len(due))
    edges = np.searchsorted(due, np.arange(0.0, due[-1] + 1.0))
    for start, end in zip(edges, [*edges[1:], len(due)], strict=True):
        numbers = rng.permutation(np.arange(start, end, dtype=np.uint32))
        records = np.empty(len(numbers), RECORD)
        records["number"], records["at_s"] = numbers, due[numbers]
        records["kind"] = rng.random(len(numbers)) < 0.0003
        records["endpoint"], records["lag_ms"] = 0, 0.1
        records["latency_ms"] = rng.gamma(4, 5, len(numbers))
        first = start == 0
        yield Chunk(records.tobytes(), [("status 503", "no")] if first else [], ["POST /predict"] if first else [])


def peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # elsewhere ru_maxrss will do, though it begins with the size of who started this process
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    kilo = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilo / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
