"""Following a run: its states until it is over, its logs as they are written, and the error that it ends with."""

from collections.abc import Iterator
from dataclasses import replace
from time import monotonic, sleep

from ekiben.errors import ConflictError, EkibenError, NotFoundError, NotPassedError, StepError, UnavailableError
from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.status import Status, Step, read

WATCH_S = 30
"""Seconds after which a watch is opened anew: what sits between may hold it open without a word."""
OUTAGE_S = 300.0
"""Seconds that a control plane may be away (its upgrade takes minutes) before following ends."""
PAUSE_S = 0.5
LAST_LINES = 15
LONGEST_LINE = 500
POLL_S = 2.0
_VERDICTS = (10, 11, 12)


def states(client: Client, name: str, uid: str, timeout: float | None) -> Iterator[Status]:
    """Each state of the run, the last one over; without a change, the same again every WATCH_S. UnavailableError when
    `timeout` seconds are up or nobody answers."""
    until = None if timeout is None else monotonic() + timeout
    last: Status | None = None
    lost: float | None = None
    while True:
        begun = monotonic()
        try:
            status = read(client.get(name))
            lost = None
        except UnavailableError:
            lost = lost or begun
            if begun - lost > OUTAGE_S or (until and begun > until):
                raise
            sleep(min(POLL_S, PAUSE_S + begun - lost))
            continue
        except NotFoundError:
            if last is None:
                raise
            raise NotFoundError(
                f"{name} was deleted while it was {last.phase}",
                wanted="a run that stays until it is over",
                next_step="look for who deletes workflows, and at ttlStrategy",
            ) from None
        if uid and status.uid and status.uid != uid:
            raise ConflictError(f"{name} is another run now: it was deleted and made again")
        for seen in _from(client, status, until):
            yield seen
            last = seen
            if seen.over:
                return
            if until and monotonic() > until:
                raise UnavailableError(
                    f"{name} is not over after {timeout:g} s: {standing(seen)}",
                    wanted="a run that ends",
                    next_step=_next_step(client, seen),
                )
        sleep(max(0.0, PAUSE_S - (monotonic() - begun)))  # a watch that ends at once must not spin


def _from(client: Client, status: Status, until: float | None) -> Iterator[Status]:
    yield status
    left = WATCH_S if until is None else min(WATCH_S, max(1.0, until - monotonic()))
    for workflow in client.watch(status, int(left)):
        yield read(workflow)


def _next_step(client: Client, status: Status) -> str:
    if status.phase == "Pending" and status.started is None:
        return (
            f"is Argo's workflow controller running, and does it look after {client.where}? `ekiben doctor --env ENV`"
        )
    return f"ekiben workflow watch {status.name}"


def standing(status: Status) -> str:
    """In one line what the run does, or waits for."""
    if not status.steps:
        return f"{status.phase}: {status.message}" if status.message else status.phase
    at = [step for step in status.steps if step.phase in ("Running", "Pending")]
    told = [f"{step.name} {step.phase}{f' ({step.why})' if step.why else ''}" for step in at]
    return "; ".join(told) or status.message or status.phase


def require_success(client: Client, status: Status) -> None:
    """StepError or NotPassedError where the run did not succeed."""
    if status.phase == "Succeeded":
        return
    step = status.failed_step()
    if step is None:
        raise StepError(
            f"{status.name} {status.phase}: {status.message or status.hidden or 'Argo does not say why'}",
            next_step=f"kubectl describe workflow {status.name}",
        )
    seen = [f"{step.name} of {status.name} {step.phase}: {step.message or status.message or 'Argo does not say why'}"]
    seen += [f"    {line}" for line in _last_lines(client, status, step)]
    next_step = f"ekiben workflow logs {status.name} --step {step.name}"
    if step.exit_code in _VERDICTS:
        error: EkibenError = NotPassedError("\n".join(seen), wanted="a verdict that passes", next_step=next_step)
        error.exit_code = step.exit_code
        raise error
    raise StepError("\n".join(seen), next_step=next_step)


def _last_lines(client: Client, status: Status, step: Step) -> list[str]:
    if not step.attempts:
        return []
    try:
        last = replace(step, attempts=step.attempts[-1:])
        return [line[:LONGEST_LINE] for _, line in client.log(status, last, LAST_LINES, "")][-LAST_LINES:]
    except EkibenError as error:  # the run failed for its own reason: that its log cannot be read is told beside it
        return [f"(no log: {error.seen})"]


def logs(client: Client, name: str, wanted: str, tail: int | None, keep_on: bool) -> Iterator[tuple[str, str]]:
    """Names of steps and lines of their logs."""
    shown: dict[str, tuple[str, int]] = {}
    told: set[str] = set()  # what was over before it was read the last time: it writes no more
    while True:
        status = read(client.get(name))
        status.readable()
        steps = [step for step in status.steps if step.attempts and (not wanted or step.called(wanted))]
        if wanted and not steps and (status.over or not keep_on):
            known = ", ".join(step.name for step in status.steps if step.attempts)
            raise NotFoundError(
                f"{name} has no step {wanted!r} that ran", wanted=f"one of {known}" if known else "a step that started"
            )
        for step in steps:
            if step.id in told:
                continue
            for line in _new(client, status, step, tail, shown, quiet=keep_on or not wanted):
                yield step.name, line
            if step.finished:
                told.add(step.id)
        if status.over or not keep_on:
            return
        sleep(POLL_S)


def _new(
    client: Client, status: Status, step: Step, tail: int | None, shown: dict[str, tuple[str, int]], quiet: bool
) -> list[str]:
    """The lines of a step that were not shown yet. Two lines may have the same time stamp: they are counted."""
    since, count = shown.get(step.id, ("", 0))
    try:
        found = client.log(status, step, tail if not since else None, since)
    except NotFoundError as error:
        if not quiet:
            raise
        if step.id not in shown:
            shown[step.id] = ("", -1)
            return [f"({error.seen})"] if count != -1 else []
        return []
    fresh = [each for each in found if each[0] >= since]
    at_since = [each for each in fresh if each[0] == since]
    new = at_since[max(count, 0) :] + [each for each in fresh if each[0] != since]
    if fresh:
        newest = max(stamp for stamp, _ in fresh)
        shown[step.id] = (newest, sum(stamp == newest for stamp, _ in fresh))
    return [line for _, line in new]
