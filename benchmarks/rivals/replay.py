"""A W&B server as fast as can be: it answers a client's script from memory, with what another server once answered.

    python replay.py record UPSTREAM FILE     passes requests on, keeps the answers, writes them when it ends
    python replay.py play FILE                answers the nth request of a kind with the nth answer of that kind

Prints `listening on http://127.0.0.1:PORT`.
"""

import base64
import json
import signal
import socket
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import uvicorn

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


async def read(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def kind_of(scope: Any, body: bytes) -> str:
    if scope["path"] == "/graphql":
        return str(
            json.loads(body).get("operationName") or json.loads(body)["query"].split("(")[0].split("{")[0].strip()
        )
    return f"{scope['method']} {scope['path'].split('/')[1]}"


class Recorder:
    def __init__(self, upstream: str) -> None:
        self.client = httpx.AsyncClient(base_url=upstream, timeout=60)
        self.answers: dict[str, list[Answer]] = defaultdict(list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await read(receive)
        target = scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        answer = await self.client.request(scope["method"], target, content=body, headers=scope["headers"])
        headers = [
            (name, value)
            for name, value in answer.headers.raw
            if name.lower() not in (b"content-length", b"transfer-encoding", b"date")
        ]
        kept = (answer.status_code, headers, answer.content)
        self.answers[kind_of(scope, body)].append(kept)
        await reply(send, kept)


class Player:
    def __init__(self, answers: dict[str, list[Answer]], old: bytes, new: bytes) -> None:
        # Addresses within the answers lead here.
        self.answers = {
            kind: [
                (status, headers, body.replace(old, new) if len(body) < 1 << 20 else body)
                for status, headers, body in kept
            ]
            for kind, kept in answers.items()
        }
        self.count: dict[str, int] = defaultdict(int)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await read(receive)
        kind = kind_of(scope, body)
        kept = self.answers[kind]
        number = min(self.count[kind], len(kept) - 1)
        self.count[kind] += 1
        await reply(send, kept[number])


async def reply(send: Any, answer: Answer) -> None:
    status, headers, body = answer
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def save(file: Path, answers: dict[str, list[Answer]], address: str) -> None:
    kinds = {
        kind: [
            (status, [(name.decode(), value.decode()) for name, value in headers], base64.b64encode(body).decode())
            for status, headers, body in kept
        ]
        for kind, kept in answers.items()
    }
    file.write_text(json.dumps({"address": address, "answers": kinds}))


def load(file: Path) -> tuple[dict[str, list[Answer]], str]:
    saved = json.loads(file.read_text())
    answers = {
        kind: [
            (status, [(name.encode(), value.encode()) for name, value in headers], base64.b64decode(body))
            for status, headers, body in kept
        ]
        for kind, kept in saved["answers"].items()
    }
    return answers, saved["address"]


def main() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    app: Any
    if sys.argv[1] == "record":
        app = Recorder(sys.argv[2])
    else:
        answers, old = load(Path(sys.argv[2]))
        app = Player(answers, old.encode(), address.encode())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    listener.listen()
    print(f"listening on http://{address}", flush=True)
    server.run([listener])
    if isinstance(app, Recorder):
        save(Path(sys.argv[3]), app.answers, address)


if __name__ == "__main__":
    main()
