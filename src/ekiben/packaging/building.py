"""The process that builds one Bento from the staged folder it is started in; the order is JSON on standard input."""

import json
import sys
from pathlib import Path


def main() -> None:
    order = json.load(sys.stdin)
    import bentoml

    source = Path.cwd()
    bentoml.bentos.build_bentofile(
        str(source / "bentofile.yaml"),
        name=order["name"],
        version=order["version"],
        labels=order["labels"],
        build_ctx=str(source),
        args=order["args"],
    )


if __name__ == "__main__":
    main()
