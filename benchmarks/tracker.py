"""What the embedded tracker costs: its start, a model's round trip, an alias among 10,000 versions, memory under 2 GiB.

    python benchmarks/tracker.py [--quick] [--json FILE]

The round trip is timed inside the real `wandb` client, against the tracker and against a server that answers the same
script from memory (rivals/replay.py); the rounds are interleaved, and the median of the rounds' ratios is shown.
`--quick` sends 256 MiB instead of 2 GiB (so no upload in parts) and measures fewer rounds.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
REPLAY = ROOT / "benchmarks" / "rivals" / "replay.py"
KEY = "0123456789" * 4
MODEL_BYTES = 10_000_000

LOG = """
import json, os, sys, time, wandb
rounds, size = int(sys.argv[1]), int(sys.argv[2])
times = []
with wandb.init(project="bench", id="log") as run:
    for number in range(rounds):
        with open("model.bin", "wb") as file:
            file.write(bytes([number]) * size)
        start = time.perf_counter()
        artifact = wandb.Artifact(f"model-{number}", "model")
        artifact.add_file("model.bin", policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=["production"]).wait()
        times.append(time.perf_counter() - start)
print(json.dumps(times))
"""
USE = """
import json, os, sys, time, wandb
rounds, size = int(sys.argv[1]), int(sys.argv[2])
times = []
with wandb.init(project="bench", id="use") as run:
    for number in range(rounds):
        start = time.perf_counter()
        folder = run.use_artifact(f"model-{number}:production").download(root=f"got-{number}")
        times.append(time.perf_counter() - start)
        assert os.path.getsize(f"{folder}/model.bin") == size
print(json.dumps(times))
"""
RESOLVE = """
import json, sys, time, wandb
api = wandb.Api()
names = json.loads(sys.argv[1])
times = {name: [] for name in names}
for _ in range(int(sys.argv[2])):
    for name in names:
        start = time.perf_counter()
        assert api.artifact(f"local/bench/{name}:production").version == "v3"
        times[name].append(time.perf_counter() - start)
print(json.dumps(times))
"""


@contextmanager
def server(command: list[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server process that says where it listens in its first line. Ended by SIGTERM."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "listening on" in line, line
        yield line.split()[-1], process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


def tracker(data: Path) -> Any:
    return server([sys.executable, "-m", "ekiben.tracker", "--data", str(data)])


def client(script: str, url: str, folder: Path, *arguments: str) -> Any:
    """What a fresh client prints that runs this script; it shares nothing with any other."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        environment[f"WANDB_{name}"] = str(folder / name)
    environment |= {
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": KEY,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "HOME": str(folder),
    }
    out = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE
    )
    return json.loads(out.stdout.splitlines()[-1])


def start_seconds(folder: Path, rounds: int) -> float:
    """From the command to the first answer."""
    times = []
    for number in range(rounds):
        begin = time.perf_counter()
        with tracker(folder / f"start-{number}") as (url, _):
            urllib.request.urlopen(f"{url}/healthz").read()
            times.append(time.perf_counter() - begin)
    return median(times)


def round_trips(folder: Path, repeats: int, rounds: int) -> dict[str, float]:
    """Seconds to log, commit, use and download 10 MB: here, from memory, and the median ratio of the two."""

    def trip(url: str, name: str) -> float:
        arguments = (str(rounds), str(MODEL_BYTES))
        logged = client(LOG, url, folder / f"{name}-log", *arguments)
        used = client(USE, url, folder / f"{name}-use", *arguments)
        return median(one + other for one, other in zip(logged, used, strict=True))

    recording = folder / "recording"
    with (
        tracker(folder / "recorded") as (upstream, _),
        server([sys.executable, str(REPLAY), "record", upstream, str(recording)]) as (url, _),
    ):
        trip(url, "recorder")
    ours, memory = [], []
    for repeat in range(repeats):
        with tracker(folder / f"trip-{repeat}") as (url, _):
            ours.append(trip(url, f"ours-{repeat}"))
        with server([sys.executable, str(REPLAY), "play", str(recording)]) as (url, _):
            memory.append(trip(url, f"memory-{repeat}"))
    ratio = median(one / other for one, other in zip(ours, memory, strict=True))
    return {"seconds": median(ours), "from_memory_seconds": median(memory), "ratio": ratio}


def resolving(folder: Path, repeats: int) -> dict[str, float]:
    """Seconds to resolve an alias in a collection of 10 versions and in one of 10,000, by the client."""
    data = folder / "resolving"
    sizes = {"small": 10, "large": 10_000}
    with tracker(data):
        pass
    fill(data, sizes)
    with tracker(data) as (url, _):
        times = client(RESOLVE, url, folder / "resolver", json.dumps(list(sizes)), str(repeats))
    small, large = median(times["small"]), median(times["large"])
    return {"seconds_of_10": small, "seconds_of_10000": large, "ratio": large / small}


def fill(data: Path, sizes: dict[str, int]) -> None:
    """Versions without files: what resolving reads is all there."""
    sys.path.insert(0, str(ROOT / "src"))
    from ekiben.tracker.state import open_store
    from ekiben.tracker.store import now

    with open_store(data).write() as db:
        db.execute("INSERT INTO projects (id, entity, name, created_at) VALUES (1, 'local', 'bench', ?)", (now(),))
        for name, size in sizes.items():
            collection = db.execute(
                "INSERT INTO collections (project, kind, type, name, next_version, created_at, updated_at)"
                " VALUES (1, 'SEQUENCE', 'model', ?, ?, ?, ?)",
                (name, size, now(), now()),
            ).lastrowid
            for number in range(size):
                artifact = db.execute(
                    "INSERT INTO artifacts (collection, state, digest, digest_algorithm, created_at)"
                    " VALUES (?, 'COMMITTED', ?, 'MANIFEST_MD5', ?)",
                    (collection, f"{number:032x}", now()),
                ).lastrowid
                place = db.execute(
                    "INSERT INTO memberships (collection, artifact, version, created_at) VALUES (?, ?, ?, ?)",
                    (collection, artifact, number, now()),
                ).lastrowid
                db.execute("INSERT INTO aliases VALUES (?, ?, ?)", (collection, f"alias-{number}", place))
            db.execute(
                "INSERT INTO aliases SELECT collection, 'production', id FROM memberships"
                " WHERE collection = ? AND version = 3",
                (collection,),
            )


def memory(folder: Path, size: int) -> dict[str, float]:
    """The tracker's largest resident memory in MB while `size` bytes go in and come out again; and MB/s."""
    with tracker(folder / "memory") as (url, process), highest_memory(process.pid) as highest:
        logged = client(LOG, url, folder / "big-log", "1", str(size))
        (folder / "big-log" / "model.bin").unlink()
        used = client(USE, url, folder / "big-use", "1", str(size))
        return {
            "bytes": size,
            "resident_mb": highest() / 1e6,
            "in_mb_per_s": size / 1e6 / logged[0],
            "out_mb_per_s": size / 1e6 / used[0],
        }


@contextmanager
def highest_memory(pid: int) -> Iterator[Callable[[], int]]:
    seen = [0]
    done = threading.Event()

    def watch() -> None:
        process = psutil.Process(pid)
        while not done.wait(0.02):
            seen[0] = max(seen[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: seen[0]
    finally:
        done.set()
        watcher.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, 256 MiB instead of 2 GiB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {
            "start_seconds": start_seconds(folder, 3 if given.quick else 9),
            "round_trip": round_trips(folder, 2 if given.quick else 5, 5),
            "resolve": resolving(folder, 30 if given.quick else 100),
            "memory": memory(folder, 256 << 20 if given.quick else (2 << 30) + 1),
        }
    trip, alias, used = found["round_trip"], found["resolve"], found["memory"]
    print(f"start                        {found['start_seconds']:.3f} s        aim 0.5")
    print(
        f"10 MB round trip             {trip['seconds']:.3f} s / {trip['from_memory_seconds']:.3f} s from memory"
        f" = {trip['ratio']:.2f}    aim 1.5"
    )
    print(
        f"alias among 10,000 / 10      {alias['seconds_of_10000'] * 1e3:.2f} ms / {alias['seconds_of_10'] * 1e3:.2f} ms"
        f" = {alias['ratio']:.2f}    aim 2"
    )
    print(
        f"memory under {used['bytes'] >> 20} MiB       {used['resident_mb']:.0f} MB, in {used['in_mb_per_s']:.0f} MB/s,"
        f" out {used['out_mb_per_s']:.0f} MB/s    aim 150"
    )
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    met = found["start_seconds"] <= 0.5 and trip["ratio"] <= 1.5 and alias["ratio"] <= 2 and used["resident_mb"] <= 150
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
