"""The same model on LitServe; `python litserve_app.py PORT`. Batches a slow model, as ours does."""

import os
import sys
from itertools import accumulate
from typing import Any

import litserve
from model import here

SLOW = bool(os.environ.get("SLOW"))


class Digits(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = here()

    def decode_request(self, request: dict[str, Any]) -> list[list[float]]:
        return request["rows"]

    def batch(self, inputs: list[list[list[float]]]) -> Any:
        self.sizes = [len(rows) for rows in inputs]
        return [row for rows in inputs for row in rows]

    def predict(self, rows: Any) -> Any:
        return self.model(rows)

    def unbatch(self, output: Any) -> Any:
        ends = list(accumulate(self.sizes))
        starts = [0, *ends[:-1]]
        return [tuple(part[start:end] for part in output) for start, end in zip(starts, ends, strict=True)]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"classes": output[0], "probabilities": output[1]}


if __name__ == "__main__":
    api = Digits(max_batch_size=64, batch_timeout=0.002) if SLOW else Digits()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
