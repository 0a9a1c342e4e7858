"""The smoke test: golden examples through the preview Service, which the API server reaches on our behalf."""

from datetime import timedelta

from ekiben.loadtest.golden import Golden
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.traffic import NOBODY
from ekiben.types import Check, Outcome, Slot, Verdict

EXAMPLES = 3
TRIES = 8  # kube-proxies and load balancers follow some time later
TRY_SECONDS = 60.0


def smoke(place: KubernetesPlatform, slot: Slot, golden: Golden) -> Verdict:
    """Whether that colour gives right answers. PASS only if the first examples are all right."""
    place.traffic.aim(slot)
    checks = []
    for number, example in enumerate(golden.examples[:EXAMPLES], 1):
        seen = _ask(place, golden.route_of(example), example.body)
        wrong = seen if isinstance(seen, str) else example.check(seen)[1]
        outcome = Outcome.FAIL if wrong else Outcome.PASS
        name = f"golden example {number} through {place.target.preview}"
        checks.append(Check(name=name, outcome=outcome, seen=wrong or "right answer", wanted="the golden answer"))
        if wrong:
            break
    return Verdict.of(checks, f"smoke test of {slot}")


def _ask(place: KubernetesPlatform, route: str, body: bytes) -> bytes | str:
    """The answer, or what was wrong."""
    status, answer, until = 0, b"", place.hold.now() + timedelta(seconds=TRY_SECONDS)
    for attempt in range(TRIES):
        if attempt:
            place.hold.sleep(min(0.25 * 2**attempt, 5.0))
        status, answer = place.traffic.ask_preview(route, body)
        if status not in NOBODY or place.hold.now() > until:
            break
    if status == 200:
        return answer
    said = f"POST {route}: {status or 'no answer'}: {answer[:300].decode(errors='replace').strip()}"
    network = place.target.settings.network
    if status in NOBODY and network.policy and not network.from_addresses:
        said += " (may the API server connect to the pods? network.from_addresses, or from_namespaces for its agents)"
    return said
