"""The smoke test: golden examples through the preview Service, which the API server reaches on our behalf."""

from ekiben.loadtest.golden import Golden
from ekiben.platforms.kubernetes.platform import KubernetesPlatform
from ekiben.platforms.kubernetes.traffic import VERIFY_SECONDS
from ekiben.types import Check, Outcome, Slot, Verdict

EXAMPLES = 3
_UNREACHED = (
    "; the API server asks on our behalf: where NetworkPolicies are enforced, its addresses belong into"
    " network.from_addresses of the environment"
)
TRIES = 8  # the preview's endpoints follow its selector some time later


def smoke(place: KubernetesPlatform, slot: Slot, golden: Golden) -> Verdict:
    """Whether that colour gives right answers. PASS only if the first examples are all right."""
    place.traffic.preview(slot)
    checks: list[Check] = []
    if wrong := place.traffic.preview_astray(slot, VERIFY_SECONDS):
        name, wanted = f"endpoints of {place.target.preview}", f"ready pods of {slot}, and only those"
        checks.append(Check(name=name, outcome=Outcome.ERROR, seen=wrong, wanted=wanted))
        return Verdict.of(checks, f"smoke test of {slot}")
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
    status, answer = 0, b""
    for attempt in range(TRIES):
        if attempt:
            place.hold.sleep(min(0.25 * 2**attempt, 5.0))
        status, answer = place.traffic.ask_preview(route, body)
        if status not in (0, 502, 503):
            break
    if status == 200:
        return answer
    told = f"POST {route}: {status or 'no answer'}: {answer[:200].decode(errors='replace').strip()}"
    return told + (_UNREACHED if status in (0, 503) else "")
