"""What a command line names: services in an environment, and the Bento or image that is deployed there."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ekiben.config import Project
from ekiben.errors import NotFoundError, UsageError
from ekiben.platforms.manifests.names import Delivery, Target, bento_of
from ekiben.types import BentoRef, ImageRef

_DIGEST = re.compile(r"(?:(?P<repository>[^@\s]+)@)?(?P<digest>sha256:[0-9a-f]{64})")
_Ref = TypeVar("_Ref", BentoRef, ImageRef)


def targets(project: Project, env: str, services: Sequence[str]) -> list[Target]:
    """The services, which the project must have, in that environment; no two may claim the same object's name."""
    known = project.names("bentos", "recipe.py")
    found = []
    taken: dict[str, str] = {}
    for service in services:
        if service not in known:
            raise NotFoundError(f"no service {service!r}", wanted=f"one of {', '.join(known) or 'bentos/*/recipe.py'}")
        target = Target(service, env, project.environment(env, service))
        for name in (target.name, target.preview, target.scraped):
            if taken.setdefault(name, service) != service:
                raise UsageError(
                    f"{taken[name]} and {service} would both have a Service {name}",
                    wanted="names that differ by more than signs, -preview or -pods",
                    next_step="rename one of the recipes",
                )
        found.append(target)
    return found


def named(targets: Sequence[Target], bento: str, image: str) -> Delivery:
    """The image that `image` names, of `bento`; or the Bento itself where no image is given.

    Each is a reference or the name of a file that `ekiben build --json` or `ekiben image --json` wrote. UsageError
    unless there is one target, and it is that Bento's.
    """
    target = targets[0]
    delivery = _image(target, bento, image) if image else _bento(bento)
    services = [target.service for target in targets]
    if services != [bento_of(delivery).name]:
        raise UsageError(
            f"{bento_of(delivery)} is no Bento of {', '.join(services)}",
            wanted=f"the service {bento_of(delivery).name}, and no other with it",
        )
    return delivery


def _image(target: Target, bento: str, image: str) -> ImageRef:
    if (match := _DIGEST.fullmatch(image)) is None:
        return _read(ImageRef, image)
    prefix = target.settings.image_repository
    if not bento or not (match["repository"] or prefix):
        raise UsageError(
            f"{image} does not say all that must be known of an image",
            wanted="its repository, or image_repository in the environment; and its Bento: --bento",
            next_step="or give --image the file that `ekiben image --json` wrote, which says both",
        )
    repository = match["repository"] or f"{prefix}/{target.service}"
    return ImageRef(repository=repository, digest=match["digest"], bento=_bento(bento))


def _bento(text: str) -> BentoRef:
    if text.endswith(".json"):
        return _read(BentoRef, text)
    from ekiben.packaging import image, store

    return image.reference(store.existing_bento(text))


def _read(kind: type[_Ref], file: str) -> _Ref:
    """The value in a file that another command's `--json` wrote, which may say more than that."""
    command = "image" if kind is ImageRef else "build"
    try:
        told = json.loads(Path(file).read_text(encoding="utf-8"))
        return kind.model_validate({key: value for key, value in told.items() if key in kind.model_fields})
    except OSError as error:
        raise NotFoundError(
            f"{file}: {error.strerror}",
            wanted=f"a file that `ekiben {command} --json` wrote"
            + (", or [REPOSITORY@]sha256:…" * (command == "image")),
        ) from None
    except (ValueError, AttributeError):  # no JSON, no object, or another object
        raise UsageError(f"{file} holds no {kind.__name__}", wanted=f"what `ekiben {command} --json` prints") from None
