"""One folder as one more layer on an image in a registry: no program, no RUN and no rights, so it works in a pod that
the restricted profile confines. The same folder on the same image has the same digest wherever it is done."""

import hashlib
import json
import platform
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ekiben.errors import NotFoundError
from ekiben.packaging.distribution import MANIFEST, Manifest, Reference, Repository

_CONFIG, _LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
# What Docker and OCI call the same bytes.
_AS_OCI = {"application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_LAYER}+gzip"}
_ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Addition:
    """What comes on top: the folder and where it lies in the image, what containers of it do, and when it was made."""

    folder: Path
    place: str
    run: Mapping[str, Any]  # OCI's execution parameters, but Env and Labels, which are added to
    env: Mapping[str, str]
    labels: Mapping[str, str]
    epoch: int


class Base:
    """An image to add to, for the kind of processor that this machine has."""

    def __init__(self, name: str, insecure: Collection[str] = ()) -> None:
        self.reference = Reference.parse(name)
        self.repository = Repository(self.reference, insecure)
        found = self.repository.manifest(self.reference.digest or self.reference.tag)
        self.manifest = self._of_this_machine(found) if "manifests" in found.document else found
        self.config = self.repository.document(self.manifest.document["config"]["digest"])

    @property
    def labels(self) -> Mapping[str, str]:
        return (self.config.get("config") or {}).get("Labels") or {}

    def _of_this_machine(self, index: Manifest) -> Manifest:
        wanted = ("linux", _ARCHITECTURES.get(platform.machine(), platform.machine()))
        for each in index.document["manifests"]:
            offered = each.get("platform") or {}
            if (offered.get("os"), offered.get("architecture")) == wanted:
                return self.repository.manifest(each["digest"])
        raise NotFoundError(f"{self.reference} is not there for {'/'.join(wanted)}", next_step="choose another base")


def append(base: Base, added: Addition, image: str, scratch: Path, insecure: Collection[str] = ()) -> str:
    """Push `image` (REPOSITORY:TAG), and return the digest that the registry has it by."""
    layer = scratch / "layer.tar"
    _write(added, layer)
    with layer.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    config = _canonical(_config(base, added, digest))
    manifest = _manifest(base, config, digest, layer.stat().st_size)
    target = Reference.parse(image)
    with base.repository, Repository(target, insecure) as repository:
        for each in base.manifest.document["layers"]:
            repository.take(each["digest"], each["size"], base.repository)
        repository.put(digest, layer.stat().st_size, _chunks(layer))
        repository.put(manifest["config"]["digest"], len(config), iter([config]))
        return repository.put_manifest(target.tag, _canonical(manifest))


def _config(base: Base, added: Addition, layer: str) -> dict[str, Any]:
    given = base.config.get("config") or {}
    env = dict(line.split("=", 1) for line in given.get("Env") or [] if "=" in line) | dict(added.env)
    created = datetime.fromtimestamp(added.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run = {**given, **added.run, "Env": [f"{key}={value}" for key, value in env.items()]}
    history = {"created": created, "created_by": f"COPY {added.folder.name} {added.place}", "comment": "ekiben"}
    return {
        **base.config,
        "created": created,
        "config": {**run, "Labels": {**base.labels, **added.labels}},
        "rootfs": {"type": "layers", "diff_ids": [*base.config["rootfs"]["diff_ids"], layer]},
        "history": [*(base.config.get("history") or []), history],
    }


def _manifest(base: Base, config: bytes, layer: str, size: int) -> dict[str, Any]:
    below = [
        {**each, "mediaType": _AS_OCI.get(each["mediaType"], each["mediaType"])}
        for each in base.manifest.document["layers"]
    ]
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": _CONFIG, "digest": f"sha256:{hashlib.sha256(config).hexdigest()}", "size": len(config),
        },
        "layers": [*below, {"mediaType": _LAYER, "digest": layer, "size": size}],
        "annotations": {"org.opencontainers.image.base.digest": base.manifest.digest},
    }  # fmt: skip


def _write(added: Addition, layer: Path) -> None:
    """Root owns it, all may read it, and nothing in it tells when or by whom it was packed. It is not compressed:
    weights hardly shrink, and compressors of other versions write other bytes."""
    place = added.place.strip("/")
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in (added.folder, *sorted(added.folder.rglob("*"))):
            name = f"{place}/{path.relative_to(added.folder).as_posix()}".removesuffix("/.")
            entry = tarfile.TarInfo(name)
            entry.mtime = added.epoch
            if path.is_symlink():
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(entry)
            elif path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            else:
                entry.size, entry.mode = path.stat().st_size, 0o755 if path.stat().st_mode & 0o100 else 0o644
                with path.open("rb") as file:
                    tar.addfile(entry, file)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            yield chunk


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
