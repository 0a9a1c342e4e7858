"""`ekiben loadtest run`, `search` and `compare` from the outside, against real servers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ekiben.processes import free_port
from tests.e2e.loading import gone, until, write_golden
from tests.fakes.http_target import serving

FAST = ["--rate", "100", "--duration", "6s", "--warm-up", "500ms", "--timeout", "2s"]


def ekiben(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run in `folder`, which belongs to no project."""
    return subprocess.run(
        [sys.executable, "-m", "ekiben.cli", "loadtest", *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])}


def test_a_run_is_judged_and_leaves_its_report(tmp_path: Path) -> None:
    golden, out = str(write_golden(tmp_path)), tmp_path / "out"
    with serving(delay_ms=20) as url:
        failed = ekiben(
            tmp_path, "run", url, "--golden", golden, *FAST, "--slo", "p50=5ms", "--out", str(out), "--rows", "2-3"
        )
    assert failed.returncode == 10, failed.stderr
    assert failed.stdout.startswith("FAIL  ") and "p50" in failed.stdout.splitlines()[0]
    assert "measuring" in failed.stderr
    assert {"report.json", "report.html", "report.md", "junit.xml", "payload.json"} <= {p.name for p in out.iterdir()}
    document = json.loads((out / "report.json").read_text())["report"]
    assert document["machine"]["cores"] >= 1 and document["settings_hash"] and "2-3 to a request" in document["payload"]
    assert document["resources"] and any(sample["memory_mb"] for sample in document["resources"])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "http://127.0.0.1:9"], 2, "no objective"),
        (["run", "http://127.0.0.1:9", "--slo", "p99=1"], 2, "not an objective"),
        (["run", "http://127.0.0.1:9/predict", "--slo", "p99=1s"], 2, "names a path"),
        (["run", "http://127.0.0.1:9", "--slo", "p99=1s"], 4, "does not answer"),
        (["run", "nothing:v1", "--slo", "p99=1s"], 3, "no Bento nothing:v1"),
        (["run", "http://127.0.0.1:9", "--slo", "p99=1s", "--golden", "none.json"], 3, "none.json"),
        (["run", "http://127.0.0.1:9", "--slo", "p99=1s", "--rows", "0"], 2, "not a mix of rows"),
        (["run", "http://127.0.0.1:9", "--slo", "p99=1s", "--duration", "5"], 2, "wanted: a time with its unit"),
        (["search", "http://127.0.0.1:9", "--slo", "error_rate=1%"], 2, "an objective on a percentile"),
        (["search", "http://127.0.0.1:9", "--slo", "p99=1s", "--budget", "long"], 2, "wanted a time"),
        (["compare", "http://127.0.0.1:9", "http://127.0.0.1:9", "--duration", "20s"], 2, "too few"),
        (["compare", "http://127.0.0.1:9", "http://127.0.0.1:9", "--arrivals", "closed"], 2, "the same steady rate"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    seen = ekiben(tmp_path, *arguments)
    assert seen.returncode == code and told in seen.stderr, seen.stderr
    assert "Traceback" not in seen.stderr


@pytest.mark.parametrize("command", ["run", "search", "compare"])
def test_a_dry_run_says_what_would_be_done(tmp_path: Path, command: str) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    targets = [address, address] if command == "compare" else [address]
    seen = ekiben(tmp_path, command, *targets, "--slo", "p99=100ms", "--dry-run")
    assert seen.returncode == 0 and "requests" in seen.stdout, seen.stderr
    assert not list(tmp_path.iterdir())
    lines = json.loads(ekiben(tmp_path, command, *targets, "--slo", "p99=100ms", "--dry-run", "--json").stdout)
    assert lines["requests"]


def test_the_slower_of_two_is_told(tmp_path: Path) -> None:
    golden = str(write_golden(tmp_path))
    with serving(delay_ms=5) as a, serving(delay_ms=40) as b:
        seen = ekiben(tmp_path, "compare", a, b, "--golden", golden, "--rate", "60", "--duration", "30s", "--json")
    told = json.loads(seen.stdout)
    assert seen.returncode == 10 and told["comparison"]["outcome"] == "slower", seen.stderr
    differences = {each["name"]: each for each in told["comparison"]["differences"]}
    assert 20 < differences["p50"]["ms_lower"] < 35.5 and differences["p50"]["ms_upper"] > 34
    assert told["comparison"]["failed_a"] == told["comparison"]["failed_b"] == 0


def test_saved_reports_are_set_side_by_side_only_if_they_are_comparable(tmp_path: Path) -> None:
    golden = str(write_golden(tmp_path))
    with serving(delay_ms=5) as url:
        for name, rate in (("a", "80"), ("b", "80"), ("c", "90")):
            load = ["--rate", rate, "--duration", "3s", "--warm-up", "500ms"]
            ekiben(tmp_path, "run", url, "--golden", golden, *load, "--slo", "p50=1s", "--out", name)
    same = ekiben(tmp_path, "compare", "a/report.json", "b/report.json")
    assert same.returncode == 0 and "p50" in same.stdout and "different times" in same.stdout, same.stderr
    other = ekiben(tmp_path, "compare", "a/report.json", "c/report.json")
    assert other.returncode == 2 and "cannot be compared" in other.stderr


def test_a_search_that_has_little_time_says_what_it_knows(tmp_path: Path) -> None:
    golden = str(write_golden(tmp_path))
    options = ["--slo", "p50=15ms", "--rate", "80", "--highest", "100", "--warm-up", "500ms", "--budget", "80s"]
    with serving(delay_ms=5) as url:
        seen = ekiben(tmp_path, "search", url, "--golden", golden, *options, "--json")
    found = json.loads(seen.stdout)["search"]
    assert found["limited_by"] == "range" and found["highest_pass"] == 80 and found["knee"] is None, seen.stderr
    assert seen.returncode == 0 and found["rate"] == 80
    assert [point["stage"] for point in found["points"]] == ["bracket", "confirm"]


def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    golden = str(write_golden(tmp_path))
    with serving(delay_ms=5) as url:
        command = ["run", url, "--golden", golden, "--rate", "50", "--duration", "60s", "--slo", "p50=1s"]
        with subprocess.Popen(
            [sys.executable, "-m", "ekiben.cli", "loadtest", *command],
            cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            parent = psutil.Process(process.pid)
            until(lambda: len(parent.children(recursive=True)) > 0, 30, "Locust runs")
            time.sleep(1.0)
            family = parent.children(recursive=True)
            os.kill(process.pid, signal.SIGINT)
            _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in told and "Traceback" not in told
    until(lambda: all(gone(child) for child in family), 5, "no child is left")
