"""How much load one core can offer on time: ours beside Locust's FastHttpUser, wrk and hey, against one nginx.

    python -m benchmarks.generator [--seconds 5] [--p99-lag-ms 5] [--json FILE]

Ours is the whole thing, `locust -f loadtests/locustfile.py` with records, checks of every answer and Locust's own
statistics, in one process and at rates that grow until 1 % of the requests start later than the lag allowed. The others
are closed loops, which start a request when the last was answered and so are never late by their own count: theirs is
the ceiling, what they reach flat out. nginx runs unprivileged on loopback, from a folder that goes afterwards; wrk and
hey are used where they are installed. All share this machine's cores with nginx.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ekiben.loadtest.runner import run
from ekiben.processes import free_port
from ekiben.types import LoadPlan

RATES = (1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 10_000)
TRIES = 3  # at each rate, the best counts: other work on the machine makes starts late, and never earlier
BODY = json.dumps({"rows": [[0.5] * 64]})
GOLDEN = {"version": 1, "route": "/predict", "examples": [{"request": json.loads(BODY), "response": {"classes": [3]}}]}

CONFIG = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{{"classes": [3]}}'; }}
  }}
}}
"""

FAST_HTTP_USER = f"""
from locust import FastHttpUser, task
class Closed(FastHttpUser):
    @task
    def predict(self):
        self.client.post("/predict", data={BODY!r}, headers={{"Content-Type": "application/json"}})
"""


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        sys.exit("nginx is not installed; on Debian: apt install nginx-light")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port))
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")])
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/predict", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            sys.exit(f"nginx does not answer: {(folder / 'error.log').read_text()}")
        yield url
    finally:
        process.terminate()  # this very process, which ends its worker
        process.wait(10)


def ours(url: str, folder: Path, seconds: float, allowed_ms: float) -> list[dict[str, float]]:
    """What was measured at each rate, up to the second at which starts were later than allowed each time."""
    golden = folder / "golden.json"
    golden.write_text(json.dumps(GOLDEN))
    locustfile = Path(__file__).resolve().parents[1] / "loadtests" / "locustfile.py"
    points = []
    for rate in RATES:
        plan = LoadPlan(rate=rate, warm_up_s=1, measure_s=seconds)
        best: dict[str, float] = {}
        for _ in range(TRIES):
            report = run(
                locustfile=locustfile, url=url, golden=golden, plan=plan, subject=None, out=folder / "out", slo=None
            )
            if report.failed or not report.requests:
                sys.exit(f"{rate}/s: {report.failed} failed: {report.reason or report.errors}")
            p50, p99 = report.percentile(50), report.percentile(99)
            point = {
                "rate": rate,
                "achieved": round(report.achieved_rate),
                "lag_p99_ms": report.lag_p99_ms,
                "p50_ms": p50.ms if p50 and p50.ms else 0.0,
                "p99_ms": p99.ms if p99 and p99.ms else 0.0,
            }
            best = min(best or point, point, key=lambda found: found["lag_p99_ms"])
            if best["lag_p99_ms"] <= allowed_ms:
                break
        points.append(best)
        print(
            f"  {rate:>6,}/s offered   p99 start lag {best['lag_p99_ms']:7.2f} ms   "
            f"p50 {best['p50_ms']:.2f} ms   p99 {best['p99_ms']:.2f} ms",
            flush=True,
        )
        if sum(point["lag_p99_ms"] > allowed_ms for point in points) == 2:
            break
    return points


def fast_http_user(url: str, folder: Path, seconds: float) -> float:
    """Requests/s of Locust's own fastest user in one process, flat out."""
    locustfile, stats = folder / "fast.py", folder / "stats"  # Locust adds .json
    locustfile.write_text(FAST_HTTP_USER)
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--host", url, "--headless", "--only-summary"]
    command += ["-u", "20", "-r", "20", "-t", f"{seconds + 1:g}s", "--json-file", str(stats)]
    subprocess.run(command, check=True, capture_output=True, timeout=seconds + 60)
    (entry,) = json.loads(stats.with_suffix(".json").read_text())
    assert entry["num_failures"] == 0, entry
    return float(entry["num_requests"] / (entry["last_request_timestamp"] - entry["start_time"]))


def wrk(url: str, folder: Path, seconds: float) -> float | None:
    if shutil.which("wrk") is None:
        return None
    script = folder / "post.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\nwrk.headers['Content-Type'] = 'application/json'\n")
    command = ["wrk", "-t1", "-c20", f"-d{max(1, round(seconds))}s", "-s", str(script), f"{url}/predict"]
    return _found(r"Requests/sec:\s+([\d.]+)", command, seconds)


def hey(url: str, seconds: float) -> float | None:
    if shutil.which("hey") is None:
        return None
    command = ["hey", "-z", f"{seconds:g}s", "-c", "20", "-cpus", "1", "-m", "POST", "-T", "application/json"]
    return _found(r"Requests/sec:\s+([\d.]+)", [*command, "-d", BODY, f"{url}/predict"], seconds)


def _found(pattern: str, command: list[str], seconds: float) -> float:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    match = re.search(pattern, done.stdout)
    assert match, done.stdout + done.stderr
    return float(match[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--p99-lag-ms", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, nginx(Path(name)) as url:
        folder = Path(name)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ours, open loop, one process:", flush=True)
        points = ours(url, folder, given.seconds, given.p99_lag_ms)
        rate = max((point["rate"] for point in points if point["lag_p99_ms"] <= given.p99_lag_ms), default=0.0)
        found = {
            "ekiben, open loop": rate,
            "Locust FastHttpUser, closed loop": fast_http_user(url, folder, given.seconds),
        }
        for tool, ceiling in (("wrk", wrk(url, folder, given.seconds)), ("hey", hey(url, given.seconds))):
            if ceiling is not None:
                found[f"{tool}, closed loop"] = ceiling
    print(f"\nrequests/s of one core; ours with a p99 start lag of at most {given.p99_lag_ms:g} ms:")
    for name, reached in found.items():
        print(f"  {name:<34}{reached:>9,.0f}   {reached / rate if rate else float('nan'):7.2f} x ours")
    if given.json:
        given.json.write_text(json.dumps({"points": points, "reached": found}, indent=2))


if __name__ == "__main__":
    main()
