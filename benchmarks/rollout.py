"""How long a plan takes, and all manifests of 200 services as text, as `ekiben render` prints them.

    python benchmarks/rollout.py [--services 200]

Both in this process, without the interpreter's start. A plan is a release's from what a cluster holds, with reading it
from the fake API server's answers; each number is the median of its rounds.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ekiben.platforms.manifests import groups, text
from ekiben.rollout.plan import Live
from ekiben.types import Release
from tests.fakes import kubernetes_platform as fake
from tests.fakes.kubernetes.cluster import Cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=200)
    count = parser.parse_args().services
    cluster, wanted = Cluster(), fake.target()
    fake.set_up(cluster, wanted)
    place = fake.platform(cluster, wanted)
    fake.deploy(place, 1)
    release = Release(service="digits", slot="blue", bento=fake.bento(2), time=datetime.now(UTC), by="anna")
    read = _median(lambda: place.plan(Live(release, "anna")), 50)
    print(f"a plan, with 3 reads of the fake API server: {read * 1000:.1f} ms")
    targets = [dataclasses.replace(wanted, service=f"service_{number}") for number in range(count)]
    rendered = _median(
        lambda: text.to_yaml([each for target in targets for each in groups.everything(target, None)]), 3
    )
    print(f"{count} services rendered: {rendered:.2f} s")


def _median(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
