import subprocess
import sys

import pytest


@pytest.mark.soak
@pytest.mark.parametrize("workers", ["1", "4"])
def test_ten_million_samples_are_reported_in_time_and_memory(workers: str) -> None:
    command = [sys.executable, "-m", "benchmarks.samples", "--workers", workers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS, VALID" in done.stdout
