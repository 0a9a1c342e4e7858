"""Which model a service serves: one exact version, chosen when the service is imported."""

import bentoml
from bentoml._internal.utils.args import set_arguments
from bentoml.exceptions import BentoMLException, NotFound
from pydantic import BaseModel


def pinned_model(default: str) -> bentoml.Model:
    """The model that `--arg model=name:version` names, or else `default`, from the BentoML model store.

    `name:latest` becomes an exact version here, and that is written back into BentoML's arguments: a Bento keeps its
    arguments, and a reference to `latest` in it would be resolved anew each time that it is served.
    """

    class Arguments(BaseModel):
        model: str = default

    given = vars(bentoml.use_arguments())
    wanted = Arguments.model_validate(given).model
    try:
        model = bentoml.models.get(wanted)
    except BentoMLException as error:
        raise _missing(wanted) from error
    version = bentoml.Tag.from_str(wanted).version
    # The store takes a version for a prefix: with only v10 in it, "v1" finds v10.
    if version not in (None, "latest", model.tag.version):
        raise _missing(wanted)
    set_arguments({**given, "model": str(model.tag)})
    return model


def _missing(wanted: str) -> NotFound:
    return NotFound(
        f"model {wanted} is not in the BentoML model store: run `ekiben run` first, "
        "or choose one of `bentoml models list` with --arg model=NAME:VERSION"
    )
