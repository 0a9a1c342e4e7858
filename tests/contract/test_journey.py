"""The road that a model takes: logged by one script, promoted by another, used by a third, read back by a fourth."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.contract.conftest import Server

Script = Callable[..., dict[str, Any]]


def test_a_model_is_logged_promoted_used_and_read_back(server: Server, script: Script, collection: str) -> None:
    trained = script("train", collection=collection)
    entity = trained["entity"]
    assert trained["version"] == "v0"
    assert trained["aliases"] == ["candidate", "latest"]
    assert trained["name"] == f"{entity}/{server.project}/{collection}:v0"

    promoted = script("promote", entity=entity, collection=collection, version="v0", alias="production")
    assert promoted["aliases"] == ["candidate", "latest", "production"]
    assert promoted["digest"] == trained["digest"]

    used = script("fetch", entity=entity, collection=collection, alias="production")
    assert (used["name"], used["digest"]) == (trained["name"], trained["digest"])
    assert (used["metadata"], used["tags"]) == ({"kind": "linear"}, ["tested"])
    assert used["files"] == ["about.json", "weights/model.bin"]
    assert used["content"] == "one"

    lineage = script("lineage", entity=entity, collection=collection, version="v0")
    assert (lineage["by"], lineage["used"]) == (trained["run"], [used["run"]])

    seen = script("look", entity=entity, run=trained["run"])
    assert seen["state"] == "finished"
    assert seen["config"] == {"lr": 0.1, "layers": [1, 2]}
    assert (seen["accuracy"], seen["tags"]) == (0.97, ["first"])
    assert seen["steps"] == [0, 1, 2, 3, 4]
    assert seen["losses"] == [1 / (step + 1) for step in range(5)]
    assert seen["logged"] == [f"{collection}:v0"]
    assert "wandb-metadata.json" in seen["files"]
    assert {trained["run"], used["run"]} <= set(seen["listed"])


def test_an_alias_names_one_version_and_moves(script: Script, collection: str) -> None:
    entity = script("train", collection=collection, content="one", aliases=["production"])["entity"]
    second = script("train", collection=collection, content="two", aliases=["candidate"])
    assert (second["version"], second["aliases"]) == ("v1", ["candidate", "latest"])

    moved = script("promote", entity=entity, collection=collection, version="v1", alias="production")
    assert moved["version"] == "v1"
    assert script("lineage", entity=entity, collection=collection, version="v0")["aliases"] == []
    demoted = script("demote", entity=entity, collection=collection, alias="production")
    assert demoted == {"aliases": ["candidate", "latest"], "exists": False}


def test_the_same_content_is_the_same_version(script: Script, collection: str) -> None:
    first = script("train", collection=collection, aliases=["a"])
    second = script("train", collection=collection, aliases=["b"])
    assert (second["version"], second["digest"]) == ("v0", first["digest"])
    assert second["aliases"] == ["a", "b", "latest"]


def test_what_is_not_there_is_an_error_that_names_it(script: Script, collection: str) -> None:
    entity = script("train", collection=collection)["entity"]
    names = [f"{collection}:v7", f"{collection}:production", "no-such-model:latest"]
    errors = script("missing", entity=entity, names=names)
    assert set(errors) == set(names)
    assert all(name in error for name, error in errors.items())


def test_tables_and_files_of_a_run_come_back(script: Script) -> None:
    seen = script("tables_and_files")
    assert seen["notes"] == "by hand"
    assert seen["table"] == [[1, 1], [2, 3]]
    assert {"notes.txt", "wandb-summary.json", "config.yaml"} <= set(seen["files"])


def test_the_client_asked_nothing_that_the_tracker_does_not_know(server: Server) -> None:
    if "127.0.0.1" not in server.url:
        return  # the address is only there on ekiben's own
    with urllib.request.urlopen(f"{server.url}/healthz") as answer:
        health = json.load(answer)
    assert health["status"] == "ok"
    assert health["unknown_operations"] == []
