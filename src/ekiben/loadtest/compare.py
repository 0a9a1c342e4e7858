"""Two targets under the same load in turn, and whether they differ. Pure.

One generator alternates between A and B in short blocks, so that what drifts (the machine, its neighbours) meets both
alike. Two adjacent blocks make a pair, A or B first by chance; the head of each block is discarded. A pair gives one
log-ratio for each figure; were A and B the same, each ratio could as well have the other sign, and the sign-flip test
asks how many of the sign patterns look as different as what was seen. Two equal targets one after the other would be
called different in most comparisons; in a strict ABBA order, with a disturbance that comes back every 3 to 12 s, in
13 % of them, with the order by chance in 5 %.
"""

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ekiben.errors import UsageError
from ekiben.loadtest.phrases import ms
from ekiben.loadtest.recorder import Recording
from ekiben.types import Comparison, Difference, LoadPlan

BLOCK_S = 2.5
HEAD_S = 0.5
USUAL_S = 60.0  # measured, for both together
FEWEST_PAIRS = 6  # with fewer no pattern of signs is rarer than 5 %
MOST_PATTERNS = 4096  # of signs: all of them for up to 12 pairs, else drawn
ALPHA = 0.05  # of the intervals
ALARM = 0.04  # of the alarm, so that with queues, which carry over between blocks, it stays below 5 %
FIGURES = {"mean": 1, "p50": 2, "p95": 20, "p99": 100}
"""Each figure, and the fewest requests of a block that it can be told from."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """Which target an arrival goes to: a function of its time alone, so that every generator process knows it."""

    warm_up_s: float
    pairs: int
    seed: int

    @classmethod
    def of(cls, plan: LoadPlan) -> "Blocks":
        return cls(plan.warm_up_s, int(plan.measure_s / BLOCK_S / 2 + 1e-9), plan.seed)

    def index(self, scheduled_s: Floats) -> NDArray[np.int64]:
        """The block of each arrival; negative in the warm-up, in which the targets alternate too."""
        return np.floor((scheduled_s - self.warm_up_s) / BLOCK_S).astype(np.int64)

    def target(self, scheduled_s: Floats) -> NDArray[np.int64]:
        """0 for A, 1 for B; (n,)."""
        index = self.index(scheduled_s)
        first = np.random.default_rng(self.seed).integers(0, 2, self.pairs)
        return np.where(index < 0, index % 2, index % 2 ^ first[np.clip(index // 2, 0, self.pairs - 1)])


def in_turn(plan: LoadPlan, seconds: float = USUAL_S) -> LoadPlan:
    """The plan for a comparison of `seconds` in all, in whole pairs of blocks. UsageError where there can be none."""
    if not plan.open_loop or plan.profile or plan.trace:
        raise UsageError(
            "a comparison needs the same steady rate for both", wanted="a rate, with poisson or constant arrivals"
        )
    pairs = round(seconds / BLOCK_S / 2)
    if pairs < FEWEST_PAIRS:
        raise UsageError(
            f"{seconds:g} s are {pairs} pairs of blocks: too few for any difference to show",
            wanted=f"at least {FEWEST_PAIRS * 2 * BLOCK_S:g} s, better {USUAL_S:g} s or more",
        )
    timing = {"warm_up_s": max(plan.warm_up_s, 2 * BLOCK_S), "measure_s": pairs * 2 * BLOCK_S, "extend_to_s": 0.0}
    return plan.model_copy(update=timing)


def settings_hash(plan: LoadPlan, payload: str, machine: str) -> str:
    """Of all that must be equal for two measurements to be comparable: the load, the requests, where it came from.

    `payload` is the digest of the requests, `machine` a phrase.
    """
    settings = plan.model_dump(mode="json", exclude={"extend_to_s", "max_in_flight", "processes"})
    text = json.dumps({"plan": settings, "payload": payload, "machine": machine}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compare(recording: Recording, plan: LoadPlan, a: str, b: str, settings: str) -> Comparison:
    """What differs between targets `a` and `b`, which the recorded run asked in turn."""
    blocks = Blocks.of(plan)
    since = recording.scheduled_s - plan.warm_up_s
    index = blocks.index(recording.scheduled_s)
    judged = (index >= 0) & (index < 2 * blocks.pairs) & (since - index * BLOCK_S >= HEAD_S)
    is_b = blocks.target(recording.scheduled_s) == 1
    # An arrival without a right answer counts as slow as the longest that is waited for.
    latency = np.where(recording.ok, recording.latency_ms, plan.timeout_s * 1000).astype(np.float64)
    pairs = [
        [latency[judged & (index // 2 == pair) & (is_b == which)] for which in (False, True)]
        for pair in range(blocks.pairs)
    ]
    fewest = min((len(block) for pair in pairs for block in pair), default=0)
    names = [name for name, needed in FIGURES.items() if fewest >= needed]
    differences: tuple[Difference, ...] = ()
    if blocks.pairs >= FEWEST_PAIRS and names:
        figures = np.array([[[_figure(block, name) for name in names] for block in pair] for pair in pairs])
        differences = difference(names, figures[:, 0], figures[:, 1])
    outcome = _outcome(differences)
    failed = judged & ~recording.ok
    return Comparison(
        a=a,
        b=b,
        settings_hash=settings,
        block_s=BLOCK_S,
        head_s=HEAD_S,
        pairs=blocks.pairs,
        requests_a=int((judged & ~is_b).sum()),
        requests_b=int((judged & is_b).sum()),
        failed_a=int((failed & ~is_b).sum()),
        failed_b=int((failed & is_b).sum()),
        differences=differences,
        outcome=outcome,
        seen=_seen(outcome, differences, blocks.pairs, fewest),
    )


def difference(names: list[str], a: Floats, b: Floats) -> tuple[Difference, ...]:
    """The differences of figures of paired blocks, in ms; `a` and `b` are (pairs, names)."""
    signs = _signs(len(a))
    logs = np.log(b / a)
    significant = _significant(logs, signs)
    found = []
    for i, name in enumerate(names):
        low, high = _interval(logs[:, i], signs)
        ms_low, ms_high = _interval(b[:, i] - a[:, i], signs)
        found.append(
            Difference(
                name=name,
                a_ms=float(np.exp(np.log(a[:, i]).mean())),
                b_ms=float(np.exp(np.log(b[:, i]).mean())),
                ratio=float(np.exp(logs[:, i].mean())),
                ratio_lower=math.exp(low),
                ratio_upper=math.exp(high),
                ms=float((b[:, i] - a[:, i]).mean()),
                ms_lower=ms_low,
                ms_upper=ms_high,
                significant=bool(significant[i]),
            )
        )
    return tuple(found)


def _figure(latencies: Floats, name: str) -> float:
    value = latencies.mean() if name == "mean" else np.percentile(latencies, float(name[1:]))
    return max(float(value), 1e-3)  # a logarithm must exist


def _signs(pairs: int) -> Floats:
    """Patterns of signs, what was seen (all +1) first; (patterns, pairs)."""
    if 2**pairs <= MOST_PATTERNS:
        return np.array(list(itertools.product((1.0, -1.0), repeat=pairs)))
    drawn = np.random.default_rng(0).choice((1.0, -1.0), (MOST_PATTERNS, pairs))
    drawn[0] = 1.0
    return drawn


def _significant(logs: Floats, signs: Floats) -> NDArray[np.bool_]:
    """Which columns differ from 0. A pattern counts by its most extreme column: so all columns together give a false
    alarm in at most ALARM of the cases, however alike they are."""
    scale = np.sqrt((logs**2).sum(axis=0)) + 1e-300
    sums = np.abs(signs @ logs) / scale
    rarer: NDArray[np.float64] = (sums.max(axis=1)[:, None] >= sums[0] - 1e-12).mean(axis=0)
    return rarer <= ALARM


def _interval(values: Floats, signs: Floats) -> tuple[float, float]:
    """All means that the sign-flip test does not refute, by bisection."""
    middle, reach = float(values.mean()), float(np.ptp(values)) + 1e-12

    def bound(direction: float) -> float:
        inside, outside = 0.0, reach
        for _ in range(40):
            step = (inside + outside) / 2
            sums = np.abs(signs @ (values - (middle + direction * step)))
            refuted = (sums >= sums[0] - 1e-12).mean() <= ALPHA
            inside, outside = (inside, step) if refuted else (step, outside)
        return middle + direction * outside

    return bound(-1.0), bound(1.0)


def _outcome(
    differences: tuple[Difference, ...],
) -> Literal["slower", "faster", "mixed", "no difference shown", "too little data"]:
    if not differences:
        return "too little data"
    slower = any(d.significant and d.ratio > 1 for d in differences)
    faster = any(d.significant and d.ratio < 1 for d in differences)
    return "mixed" if slower and faster else "slower" if slower else "faster" if faster else "no difference shown"


def _seen(outcome: str, differences: tuple[Difference, ...], pairs: int, fewest: int) -> str:
    if not differences:
        return f"{pairs} pairs of blocks with at least {fewest} requests each: at least {FEWEST_PAIRS} pairs are needed"
    told = [d for d in differences if d.significant] or list(differences)
    figures = "; ".join(describe(d) for d in told)
    return f"B is {outcome} than A: {figures}" if outcome in ("slower", "faster") else f"{outcome}: {figures}"


def describe(d: Difference) -> str:
    """`p95 +12.0 % (95 % interval +5.1 to +20.2 %), 40.1 → 44.9 ms`."""
    low, high = (d.ratio_lower - 1) * 100, (d.ratio_upper - 1) * 100
    interval = f"95 % interval {low:+.1f} to {high:+.1f} %"
    return f"{d.name} {(d.ratio - 1) * 100:+.1f} % ({interval}), {ms(d.a_ms)} → {ms(d.b_ms)} ms"
