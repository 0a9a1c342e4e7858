"""Lines of progress on standard error: one that moves on a terminal, plain ones now and then elsewhere."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

PLAIN_EVERY_S = 5.0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what runs, children included, with exit code 130 and 143."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was judged\n")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows a line; indented ones are results, and stay."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True, highlight=False)
        with console.status("starting") as status:

            def moving(line: str) -> None:
                if line.startswith(" "):
                    console.print(escape(line))
                else:
                    status.update(escape(line))

            yield moving
        return
    shown_at, shown = -PLAIN_EVERY_S, ""

    def plain(line: str) -> None:
        nonlocal shown_at, shown
        now, phase = time.monotonic(), line.partition(" ")[0]
        if not phase or phase != shown or now - shown_at >= PLAIN_EVERY_S:
            shown_at, shown = now, phase
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    yield plain
