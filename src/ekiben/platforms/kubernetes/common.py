"""What both colours of a service share."""

from typing import Any

from ekiben.errors import ConflictError
from ekiben.platforms.kubernetes.api import NoAnswerError
from ekiben.platforms.kubernetes.hold import Hold
from ekiben.platforms.kubernetes.state import beginning, not_foreign, only_ours, ours
from ekiben.platforms.manifests import groups, shared
from ekiben.platforms.manifests.names import Manifest

ATTEMPTS = 6  # to create what may have been created, when no answer comes


def prepare(hold: Hold) -> None:
    """What both colours share. The Services are created once, with selectors, which no apply has."""
    if hold.known.service is None:
        _create_services(hold)
    else:
        only_ours(hold.target, hold.known.service)
    for manifest in groups.common(hold.target):
        active = manifest["metadata"]["name"] == hold.target.name and manifest["kind"] == "Service"
        if active and _says(hold.known.service, manifest):
            continue  # it was just read
        applied = hold.api.apply(hold.path_of(manifest), manifest)
        if active:
            hold.view = hold.known.with_service(applied)


def _says(found: Any, wanted: Any) -> bool:
    """Whether an object has all that is wanted; what the API server added does not count."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_says(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_says, found, wanted))
    return bool(found == wanted)


def _create_services(hold: Hold) -> None:
    """Once, with selectors. The active one last: where it is, both are."""
    active, preview = shared.first_services(hold.target)
    for service in (preview, active):
        for attempt in range(ATTEMPTS):
            try:
                _create(hold, service)
            except (ConflictError, NoAnswerError):
                if attempt + 1 == ATTEMPTS:
                    raise
                hold.sleep(0.2 * 2**attempt)
                continue
            break
    hold.look()


def _create(hold: Hold, service: Manifest) -> None:
    """An active Service that somebody has applied gets its first selector; the preview's is set before it is asked."""
    try:
        hold.api.create(hold.path("v1", "services"), service)
    except ConflictError:  # it is there
        found = hold.api.get(hold.path_of(service))
        not_foreign(hold.target, found)
        if service["metadata"]["name"] == hold.target.name and ours(hold.target, found) is None:
            hold.api.patch(hold.path_of(service), beginning(found, service["spec"]["selector"]))
