"""`python -m ekiben.tracker --data DIR`: the tracker as a process of its own."""

import argparse
import sys
from pathlib import Path

from ekiben.errors import EkibenError
from ekiben.tracker.server import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ekiben.tracker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder for the database and the blobs")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default)")
    parser.add_argument(
        "--protect",
        action="append",
        default=[],
        metavar="ALIAS",
        help="alias that only admin keys may move; repeatable",
    )
    given = parser.parse_args()
    try:
        serve(given.data, given.host, given.port, frozenset(given.protect))
    except EkibenError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
