"""The tracker as a process: how it starts, whom it answers, how it ends; and what a browser makes of its pages."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ekiben.tracker import keys
from tests.contract.conftest import KEY, ROOT, Server, answer_of, start_script, start_tracker, stop


def refused(data: Path, *arguments: str) -> tuple[int, str]:
    """How it ends, and what it says, when it does not start."""
    ended = subprocess.run(
        [sys.executable, "-m", "ekiben.tracker", "--data", str(data), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def test_it_says_one_line_answers_at_once_and_ends_cleanly_and_quickly(tmp_path: Path) -> None:
    begin = time.monotonic()
    process, url = start_tracker(tmp_path / "data")
    with urllib.request.urlopen(f"{url}/healthz") as answer:
        assert json.load(answer) == {"status": "ok", "unknown_operations": [], "missing_files": 0}
    assert time.monotonic() - begin < 5  # half a second when the machine is free: benchmarks/tracker.py
    kept_open = http.client.HTTPConnection(urlsplit(url).netloc)
    kept_open.request("GET", "/healthz")
    kept_open.getresponse().read()
    begin = time.monotonic()
    assert stop(process) == 0
    assert time.monotonic() - begin < 3
    kept_open.close()


def test_a_second_one_does_not_touch_the_same_data_or_port(tmp_path: Path) -> None:
    process, url = start_tracker(tmp_path / "data")
    code, said = refused(tmp_path / "data")
    assert (code, str(process.pid) in said, "--data" in said) == (6, True, True)
    code, said = refused(tmp_path / "other", "--port", str(urlsplit(url).port))
    assert (code, "cannot listen" in said) == (4, True)
    stop(process)


def test_other_machines_are_served_only_with_keys(tmp_path: Path) -> None:
    code, said = refused(tmp_path / "data", "--host", "0.0.0.0")
    assert (code, "no key was made" in said, "key create" in said) == (2, True, True)
    key = keys.create_key(tmp_path / "data", "one")
    process, url = start_tracker(tmp_path / "data", "--host", "0.0.0.0")
    port = urlsplit(url).port
    assert _status(f"127.0.0.1:{port}", KEY) == 401
    assert _status(f"127.0.0.1:{port}", key) == 200
    assert _status(f"127.0.0.1:{port}", key, host="tracker.example:80") == 200
    keys.revoke_key(tmp_path / "data", "one")
    assert _status(f"127.0.0.1:{port}", key) == 401
    stop(process)


def test_without_keys_it_answers_to_this_machines_own_names_only(tmp_path: Path) -> None:
    process, url = start_tracker(tmp_path / "data")
    address = urlsplit(url).netloc
    assert _status(address, KEY) == 200
    assert _status(address, KEY, host=f"localhost:{urlsplit(url).port}") == 200
    assert _status(address, KEY, host="rebound.example") == 403
    stop(process)


def _status(address: str, key: str, host: str = "") -> int:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Authorization": f"Bearer {key}"})
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_lost_its_bytes_is_reported_by_the_next_start(tmp_path: Path) -> None:
    process, url = start_tracker(tmp_path / "data")
    server = Server(url, KEY, "lost")
    answer_of(start_script(tmp_path / "client", server, "train", project="lost", collection="model"))
    stop(process)
    md5 = hashlib.md5(b"one").hexdigest()
    (tmp_path / "data" / "blobs" / md5[:2] / md5).unlink()
    (tmp_path / "data" / "blobs" / "tmp" / "unfinished").write_bytes(b"half")

    process, url = start_tracker(tmp_path / "data")
    assert not (tmp_path / "data" / "blobs" / "tmp" / "unfinished").exists()
    until = time.monotonic() + 5
    health: dict[str, object] = {}
    while health.get("status") != "damaged" and time.monotonic() < until:
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            health = json.load(answer)
    assert (health["status"], health["missing_files"]) == ("damaged", 1)
    stop(process)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_shows_curves_versions_and_lineage(tmp_path: Path) -> None:
    process, url = start_tracker(tmp_path / "data")
    server = Server(url, KEY, "shown")
    trained = answer_of(start_script(tmp_path / "one", server, "train", project="shown", collection="digits"))
    used = answer_of(
        start_script(
            tmp_path / "two", server, "fetch", project="shown", entity="local", collection="digits", alias="candidate"
        )
    )
    assert 'href="/local/shown"' in _rendered(f"{url}/", tmp_path)
    project = _rendered(f"{url}/local/shown", tmp_path)
    assert f"/local/shown/runs/{trained['run']}" in project
    assert "candidate → v0" in project
    run = _rendered(f"{url}/local/shown/runs/{trained['run']}", tmp_path)
    assert '<path d="M0.0 0.0L75.0 ' in run  # the loss, from its highest down
    assert "digits:v0" in run
    collection = _rendered(f"{url}/local/shown/artifacts/model/digits", tmp_path)
    for wanted in (trained["digest"], "linear", f"runs/{trained['run']}", f"runs/{used['run']}", "latest", "tested"):
        assert wanted in collection
    assert stop(process) == 0


def _rendered(url: str, folder: Path) -> str:
    """The page as the browser has it."""
    browser = subprocess.Popen(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'browser'}",
            "--window-size=390,800",
            "--dump-dom",
            url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        return browser.communicate(timeout=60)[0]
    finally:
        if browser.poll() is None:
            os.killpg(browser.pid, signal.SIGKILL)
