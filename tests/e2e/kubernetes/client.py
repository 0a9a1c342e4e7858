"""A client inside the cluster: what a pod of the Bento's own image runs. Python's standard library, and no more.

It asks the Service by its name without a pause: two clients keep their connections for ever, one for ten requests, and
one opens a new connection each time. Every second it writes a line of JSON: how many answers were good, and what
failed. A kept connection that the server had closed before one byte of an answer is no failure: clients ask once more
on a new one, as HTTP allows.
"""

import http.client
import json
import os
import socket
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

URL, BODY = urlsplit(os.environ["URL"]), os.environ["BODY"].encode()
seen: dict[str, Any] = {"good": 0, "again": 0, "failed": []}
lock = threading.Lock()


def address() -> str:
    """A Service's address stays the same; that names are resolved each time is not what is looked at."""
    while True:
        try:
            return str(socket.getaddrinfo(URL.hostname, URL.port or 80, type=socket.SOCK_STREAM)[0][4][0])
        except OSError:
            time.sleep(0.5)


def ask(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", URL.path, BODY, {"Content-Type": "application/json", "Host": URL.netloc})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise ValueError(f"{answer.status} {text[:100]!r}")


def client(keep: int) -> None:
    connection, left = None, 0
    while True:
        time.sleep(0.02)
        for attempt in (1, 2):
            fresh = connection is None or left == 0
            if fresh:
                if connection is not None:
                    connection.close()
                connection, left = http.client.HTTPConnection(ADDRESS, URL.port or 80, timeout=20), keep
            try:
                ask(connection)
                left -= 1
                with lock:
                    seen["good"] += 1
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                stale = isinstance(error, ConnectionError) and not fresh and attempt == 1
                connection = None
                with lock:
                    if stale:
                        seen["again"] += 1
                        continue
                    how = "new" if fresh else "kept"
                    seen["failed"].append(f"{time.strftime('%H:%M:%S')} {how}: {type(error).__name__} {error}")
                break


ADDRESS = address()
for each in (10**9, 10**9, 10, 1):
    threading.Thread(target=client, args=(each,), daemon=True).start()
while True:
    time.sleep(1)
    with lock:
        sys.stdout.write(json.dumps({**seen, "failed": seen["failed"][:20]}) + "\n")
        sys.stdout.flush()
