"""Versions, collections and registries as scripts change them."""

from collections.abc import Callable
from typing import Any

from tests.contract.conftest import Server

Script = Callable[..., dict[str, Any]]


def test_a_version_is_edited_listed_and_deleted(script: Script, collection: str) -> None:
    seen = script("edit_version", collection=collection)
    assert seen["metadata"] == {"content": "two", "checked": True}
    assert (seen["description"], seen["tags"], seen["aliases"]) == ("the second", ["a-tag"], ["staging"])
    assert seen["ttl"] == 7 * 24 * 3600
    assert (seen["size"], seen["file_count"]) == (len("two") + len('{"content": "two"}'), 2)
    assert seen["files"] == ["about.json", "weights/model.bin"]
    assert seen["one_file"] == '{"content": "two"}'
    assert seen["tagged"] == [f"{collection}:v1"]
    assert seen["versions"] == ["v2", "v1", "v0"]
    assert seen["exists"] == seen["collection_exists"] == [True, False]
    assert "staging" in seen["refused"]
    assert (seen["left"], seen["latest"]) == (["v1", "v0"], "v1")
    assert seen["next"] == "v3"  # a number is never given twice


def test_a_collection_is_described_tagged_renamed_and_deleted(script: Script, collection: str) -> None:
    seen = script("collections", collection=collection)
    assert (seen["description"], seen["tags"], seen["aliases"]) == ("what it is", ["kept"], ["latest"])
    assert seen["versions"] == [f"{collection}:v0"]
    assert seen["types"] and seen["listed"] and seen["deleted"]
    assert seen["renamed"] == f"{collection}-renamed:v0"


def test_versions_are_linked_to_the_registry_and_promoted_there(
    server: Server, script: Script, collection: str
) -> None:
    seen = script("registry", collection=collection)
    assert seen["linked"] == f"wandb-registry-model/{collection}:v0"
    assert seen["source"].endswith(f"{server.project}/{collection}:v0")
    assert (seen["version"], seen["is_link"]) == ("v1", True)
    assert seen["production"] == ["production", "staging"]
    assert seen["content"] == "two"
    assert seen["links"] == [f"{collection}:v1"]
    assert seen["source_aliases"] == ["latest"]
    assert seen["found"] == [collection]
    assert seen["found_versions"] == ["v0"]
    assert seen["description"] == "wandb-registry-model"
    assert seen["unlinked"] and seen["source_stays"]


def test_a_registry_is_made_changed_and_deleted(script: Script) -> None:
    seen = script("registries")
    assert seen["description"] == "second"
    assert seen["deleted"]


def test_references_folders_and_drafts_built_on_a_version(script: Script, collection: str) -> None:
    seen = script("references", collection=collection)
    assert seen["version"] == "v1"
    assert len(seen["files"]) == 30  # 30, less the one removed, plus the one added
    assert seen["reference"] == "https://example.invalid/data.csv"
    assert seen["content"] == "7"
    assert seen["grown"] == ["v2", 32, True]
