"""A Bento as a W&B artifact: delivered without an image registry, and verified by its content digest."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ekiben.errors import IntegrityError
from ekiben.packaging import content, pickles, store
from ekiben.packaging.lineage import CONTENT, FILES
from ekiben.types import BentoRef

if TYPE_CHECKING:
    from ekiben.registry import Registry


def collection(name: str) -> str:
    """The artifact's name: W&B gives a name to one type of artifact only, and the model has the Bento's."""
    return f"{name}-bento"


def export(bento: str, folder: Path) -> None:
    """Make `folder`, which must be new: the Bento of that tag with its model in it, as `bentoml serve` takes it.

    NotFoundError when the store has no such Bento.
    """
    import bentoml

    store.existing_bento(bento)
    # An export puts the model into the store's own folder for a while: two at once would meet there.
    with store.only("bento", bento.partition(":")[0]):
        bentoml.export_bento(bento, str(folder), "folder")
    folder.chmod(0o755)  # BentoML leaves 0700: nobody else could read it


def publish(registry: "Registry", ref: BentoRef) -> str:
    """Log the Bento as an artifact made from its model. Returns its `entity/project/name:vN`; the same one if it is
    there already."""
    with store.scratch() as scratch:
        folder = scratch / "bento"
        export(ref.tag, folder)
        metadata = {"bento": ref.model_dump(mode="json"), "labels": store.existing_bento(ref.tag).labels}
        return registry.log_bento(collection(ref.name), folder, ref.model, ref.version, metadata)


def pull(registry: "Callable[[], Registry]", name: str, alias: str, allowed: Mapping[str, str]) -> BentoRef:
    """The published Bento `name` that `alias` names, with its model, in the BentoML stores. Idempotent.

    IntegrityError when its content digest, computed from what came, is not the one that it was published with.
    """
    import bentoml

    connected = registry()
    path, metadata = connected.resolve_bento(collection(name), alias)
    ref = BentoRef.model_validate(metadata["bento"])
    with store.only("bento", ref.name), store.scratch() as scratch:
        found = store.bento(ref.tag)
        if found is None or found.labels.get(CONTENT) != ref.digest:
            folder = scratch / "bento"
            connected.download_bento(path, folder)
            pickles.refuse(_model(folder, path), allowed)
            check(folder, ref.digest, path)
            with store.only("model", ref.model.name.lower()):
                _check_store(folder)
                bentoml.bentos.import_bento(str(folder), input_format="folder")
    return ref


def check(folder: Path, digest: str, path: str) -> None:
    """IntegrityError unless the exported Bento in `folder`, which came from `path`, has the content digest `digest`."""
    labelled = store.read_yaml(folder / "bento.yaml").get("labels", {}).get(CONTENT, "")
    computed = content.of_bento(folder, content.of_model(_model(folder, path)))
    if not computed == labelled == digest:
        raise IntegrityError(
            f"{path} has the content digest {computed[:12]}, and says of itself {labelled[:12]}",
            wanted=f"{digest[:12]}, as it was published",
            next_step="publish it again: ekiben build --publish",
        )


def _model(folder: Path, path: str) -> Path:
    models = [file.parent for file in folder.glob("models/*/*/model.yaml")]
    if len(models) != 1:
        raise IntegrityError(f"{path} holds {len(models)} models", wanted="the one model that its service pins")
    return models[0]


def _check_store(folder: Path) -> None:
    """BentoML keeps a model that the store has by that tag already: it must be the same one."""
    for file in folder.glob("models/*/*/model.yaml"):
        tag = f"{file.parent.parent.name}:{file.parent.name}"
        there, wanted = store.model(tag), store.read_yaml(file).get("labels", {}).get(FILES)
        if there is not None and there.labels.get(FILES) != wanted:
            raise IntegrityError(
                f"the BentoML model store holds another model as {tag}",
                wanted="the model that the Bento pins",
                next_step=f"bentoml models delete {tag}, if nothing needs it",
            )
