"""What runs in a slot where the platform's behaviour is looked at and not BentoML's: a real HTTP server (uvicorn, as
below BentoML) that says which Bento it serves. `python slot_server.py FOLDER PORT`; FOLDER holds the file `bento`.

`GET /` answers with the Bento's tag, `GET /slow` does so after one second. A Bento whose version says so misbehaves:
`broken` dies while it starts, `mute` never becomes ready.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvicorn

TAG = (Path(sys.argv[1]) / "bento").read_text()
if "broken" in TAG:
    sys.exit("ModuleNotFoundError: No module named 'torch'")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    status = 503 if scope["path"] == "/readyz" and "mute" in TAG else 200
    body = TAG.encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", backlog=2048)
