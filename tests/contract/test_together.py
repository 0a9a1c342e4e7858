"""Many clients at once."""

import time
from pathlib import Path

from tests.contract.conftest import Server, answer_of, start_script

PROCESSES = 8
EACH = 50


def test_eight_clients_at_once_lose_no_version_and_number_them_without_gap_or_double(
    server: Server, tmp_path: Path, collection: str
) -> None:
    start = time.time() + 4  # all have started by then, and log at the same moment
    clients = [
        start_script(
            tmp_path / str(n), server, "many", project=server.project, collection=collection, number=EACH, start=start
        )
        for n in range(PROCESSES)
    ]
    answers = [answer_of(client) for client in clients]
    logged = {int(version[1:]): digest for answer in answers for version, digest in answer["versions"]}
    assert sorted(logged) == list(range(PROCESSES * EACH))

    listed = start_script(
        tmp_path / "reader",
        server,
        "all_versions",
        project=server.project,
        collection=collection,
        entity=answers[0]["entity"],
    )
    assert {int(version[1:]): digest for version, digest in answer_of(listed)["versions"]} == logged
